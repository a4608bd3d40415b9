//! One end of mutual TLS, kept fresh.
//!
//! A change of any of the three files makes a new generation: new connections use it, and whoever holds a connection of the
//! old one is told by a token, so that an authority that was taken away does not live on in a long-lived connection.
//! Sessions are never resumed: a resumed one would not look at the certificates again.
//! Material comes from files that are watched, or from memory, where its owner replaces it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use opes_reload::{Look, OpenError, Reloaded};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::pem::{PemError, authorities, certified_key, provider};

/// HTTP/2 in TLS (RFC 9113 §3.3), which is what gRPC speaks.
pub const ALPN_H2: &[u8] = b"h2";

/// PEM files, read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutualFiles {
    /// Our certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities that the other end's certificate must come from.
    pub ca: PathBuf,
}

/// The same three as PEM texts, for material that is in no file.
#[derive(Clone, PartialEq, Eq)]
pub struct MutualTexts {
    /// Our certificate chain, leaf first.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authorities that the other end's certificate must come from.
    pub ca: String,
}

/// One end's material. Clones share it.
pub struct Mutual<C> {
    /// Names of the three parts for messages, whether they are files or not.
    files: Arc<MutualFiles>,
    live: Live<C>,
    make: Make<C>,
}

type Make<C> = fn(SingleCertAndKey, RootCertStore, &Path) -> Result<C, PemError>;

enum Live<C> {
    Files(Reloaded<Generation<C>>),
    Memory(Arc<ArcSwap<Generation<C>>>),
}

/// The end that calls and checks the other one's name.
pub type ClientTls = Mutual<ClientConfig>;

/// The end that is called; who has a certificate of the authorities may call.
pub type ServerTls = Mutual<ServerConfig>;

struct Generation<C> {
    config: Arc<C>,
    /// Tells the connections of this generation that it is over.
    over: DropGuard,
}

// === impl Mutual ===

impl ClientTls {
    /// Reads the files. The error names the one that cannot be used.
    pub fn client(files: MutualFiles) -> Result<Self, OpenError> {
        Self::open(files, client_config)
    }

    /// From memory. The error names the part that cannot be used: `tls.crt`, `tls.key` or `ca.crt`.
    pub fn client_in_memory(texts: &MutualTexts) -> Result<Self, PemError> {
        Self::hold(texts, client_config)
    }
}

impl ServerTls {
    /// Reads the files. The error names the one that cannot be used.
    pub fn server(files: MutualFiles) -> Result<Self, OpenError> {
        Self::open(files, server_config)
    }

    /// From memory. The error names the part that cannot be used: `tls.crt`, `tls.key` or `ca.crt`.
    pub fn server_in_memory(texts: &MutualTexts) -> Result<Self, PemError> {
        Self::hold(texts, server_config)
    }
}

impl<C: Send + Sync + 'static> Mutual<C> {
    fn open(files: MutualFiles, make: Make<C>) -> Result<Self, OpenError> {
        let paths = [&files.certificate, &files.key, &files.ca].map(PathBuf::clone);
        let live = Reloaded::open_all(paths, move |paths, texts| generation(paths, texts, make))?;
        Ok(Self {
            files: Arc::new(files),
            live: Live::Files(live),
            make,
        })
    }

    fn hold(texts: &MutualTexts, make: Make<C>) -> Result<Self, PemError> {
        let files = MutualFiles {
            certificate: "tls.crt".into(),
            key: "tls.key".into(),
            ca: "ca.crt".into(),
        };
        let first = generation(files.paths(), texts.all(), make)?;
        Ok(Self {
            files: Arc::new(files),
            live: Live::Memory(Arc::new(ArcSwap::from_pointee(first))),
            make,
        })
    }

    /// Puts `texts` in force, as a change of the files would. Texts that cannot be used change nothing. Material from files is
    /// its files' only, and stays as it is.
    pub fn replace(&self, texts: &MutualTexts) -> Result<(), PemError> {
        if let Live::Memory(live) = &self.live {
            let fresh = generation(self.files.paths(), texts.all(), self.make)?;
            live.store(Arc::new(fresh));
        }
        Ok(())
    }

    /// For a new connection, with the token that says when it is to be replaced by another one.
    pub fn current(&self) -> (Arc<C>, CancellationToken) {
        let generation = match &self.live {
            Live::Files(live) => live.current(),
            Live::Memory(live) => live.load_full(),
        };
        let over = DropGuard::token(&generation.over);
        (Arc::clone(&generation.config), over.clone())
    }

    /// Where the material is from.
    pub fn files(&self) -> &MutualFiles {
        &self.files
    }

    /// Looks at the files now ([`Reloaded::look`]); without files there is nothing to see.
    pub fn look(&self) -> Look {
        match &self.live {
            Live::Files(live) => live.look(),
            Live::Memory(_) => Look::Unchanged,
        }
    }
}

fn generation<C>(
    [cert_at, key_at, ca_at]: [&Path; 3],
    [cert, key, ca]: [&str; 3],
    make: Make<C>,
) -> Result<Generation<C>, PemError> {
    let ours = certified_key((cert_at, cert), (key_at, key))?;
    let config = make(ours.into(), authorities(ca_at, ca)?, ca_at)?;
    Ok(Generation {
        config: Arc::new(config),
        over: CancellationToken::new().drop_guard(),
    })
}

impl<C> Clone for Mutual<C> {
    fn clone(&self) -> Self {
        Self {
            files: Arc::clone(&self.files),
            live: match &self.live {
                Live::Files(live) => Live::Files(live.clone()),
                Live::Memory(live) => Live::Memory(Arc::clone(live)),
            },
            make: self.make,
        }
    }
}

impl<C> fmt::Debug for Mutual<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mutual").field(&self.files).finish()
    }
}

// === impl MutualFiles, MutualTexts ===

impl MutualFiles {
    fn paths(&self) -> [&Path; 3] {
        [&self.certificate, &self.key, &self.ca].map(PathBuf::as_path)
    }
}

impl MutualTexts {
    fn all(&self) -> [&str; 3] {
        [&self.certificate, &self.key, &self.ca].map(String::as_str)
    }
}

impl fmt::Debug for MutualTexts {
    // The key is nobody's to see.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutualTexts")
            .field("certificate", &self.certificate)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

fn client_config(
    ours: SingleCertAndKey,
    authorities: RootCertStore,
    ca: &Path,
) -> Result<ClientConfig, PemError> {
    let builder = ClientConfig::builder_with_provider(provider());
    let mut config = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(ca, &error))?
        .with_root_certificates(authorities)
        .with_client_cert_resolver(Arc::new(ours));
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

fn server_config(
    ours: SingleCertAndKey,
    authorities: RootCertStore,
    ca: &Path,
) -> Result<ServerConfig, PemError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider()).build();
    let builder = ServerConfig::builder_with_provider(provider());
    let mut config = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(ca, &error))?
        .with_client_cert_verifier(verifier.map_err(|error| unusable(ca, &error))?)
        .with_cert_resolver(Arc::new(ours));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}

fn unusable(ca: &Path, error: &dyn std::error::Error) -> PemError {
    PemError::Unusable {
        path: ca.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
