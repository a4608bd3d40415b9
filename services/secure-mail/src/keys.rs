//! The keys in a folder, by address. Read again when the folder changes; the last good reading stays.
//!
//! Owns what makes a key usable: bindings, expiry and revocation are checked when it is read, and the time when it is used. Keys come from
//! whoever may write into the folder; nothing is fetched from anywhere.

mod folder;
pub(crate) mod pgp;
pub(crate) mod x509;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;

use arc_swap::ArcSwap;
use opes_reload::{Look, POLL_INTERVAL, Watch};

use crate::config::{Config, DkimKey};
use crate::dkim::{DkimKeyError, Signer};
use crate::keys::pgp::{Certificate, SecretKey};
use crate::keys::x509::{Anchors, Identity, Recipient};

/// Most files in the folder.
pub(crate) const FILES_MAX: usize = 10_000;
/// Largest file, octets.
pub(crate) const FILE_OCTETS_MAX: u64 = 4 * 1024 * 1024;
/// Most keys of one kind for one address.
const KEYS_PER_ADDRESS_MAX: usize = 16;

/// One reading of the folder.
#[derive(Default)]
pub(crate) struct Keys {
    identities: BTreeMap<String, String>,
    pgp: HashMap<String, Vec<Arc<Certificate>>>,
    pgp_secret: HashMap<String, Vec<Arc<SecretKey>>>,
    smime: HashMap<String, Vec<Arc<Recipient>>>,
    smime_secret: HashMap<String, Vec<Arc<Identity>>>,
    dkim: Vec<(DkimKey, Signer)>,
    /// Of S/MIME.
    pub(crate) anchors: Anchors,
}

/// The folder under watch.
pub(crate) struct KeyStore {
    current: Arc<ArcSwap<Keys>>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Missing, not permitted, too large.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// As configured, or a file in it.
        path: PathBuf,
        /// From the operating system, or ours.
        reason: String,
    },
    /// More files than are read.
    #[error("{}: more than {FILES_MAX} files", .0.display())]
    TooMany(PathBuf),
    /// What is in it is no key, or one that may not be used.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why, and the remedy.
        reason: String,
    },
    /// No thread for the polling.
    #[error("no thread to watch the keys: {0}")]
    NoThread(std::io::Error),
}

// === impl Keys ===

impl Keys {
    /// Reads everything that `config` names.
    pub(crate) fn read(config: &Config) -> Result<Self, KeysError> {
        let mut keys = Self {
            identities: config.identities.clone(),
            ..Self::default()
        };
        let mut loose = x509::Loose::default();
        for path in folder::files(&config.keys)? {
            let malformed = |reason: String| KeysError::Malformed {
                path: path.clone(),
                reason,
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("asc") => {
                    let octets = folder::read(&path)?;
                    keys.add_pgp(&octets).map_err(malformed)?;
                }
                Some("pem") => {
                    let octets = folder::read(&path)?;
                    loose.add(&octets).map_err(malformed)?;
                }
                _ => tracing::warn!(file = %path.display(), "neither *.asc nor *.pem: not read"),
            }
        }
        keys.add_smime(loose);
        if let Some(path) = &config.trust_anchors {
            let octets = folder::read(path)?;
            keys.anchors = Anchors::from_pem(&octets).map_err(|reason| KeysError::Malformed {
                path: path.clone(),
                reason,
            })?;
        }
        for entry in &config.dkim {
            let path = config.keys.join(&entry.file);
            let octets = folder::read(&path)?;
            let signer = Signer::from_pem(&octets);
            let signer = signer.map_err(|error: DkimKeyError| KeysError::Malformed {
                path,
                reason: error.to_string(),
            })?;
            keys.dkim.push((entry.clone(), signer));
        }
        Ok(keys)
    }

    fn add_pgp(&mut self, armor: &[u8]) -> Result<(), String> {
        let found = pgp::read(armor)?;
        for certificate in found.certificates {
            let certificate = Arc::new(certificate);
            for address in &certificate.addresses {
                add(&mut self.pgp, address, &certificate);
            }
        }
        for secret in found.secrets {
            let secret = Arc::new(secret);
            for address in &secret.addresses {
                add(&mut self.pgp_secret, address, &secret);
            }
        }
        Ok(())
    }

    fn add_smime(&mut self, loose: x509::Loose) {
        let (recipients, identities) = loose.matched();
        for recipient in recipients {
            let recipient = Arc::new(recipient);
            for address in &recipient.addresses {
                add(&mut self.smime, address, &recipient);
            }
        }
        for identity in identities {
            let identity = Arc::new(identity);
            for address in &identity.certificate.addresses {
                add(&mut self.smime_secret, address, &identity);
            }
        }
    }

    /// The address itself, then the one that stands for it.
    fn names(&self, address: &str) -> impl Iterator<Item = String> {
        let own = address.to_ascii_lowercase();
        let domain = own.rfind('@').and_then(|at| own.get(at..));
        let other = self.identities.get(&own);
        let other = other.or_else(|| self.identities.get(domain?));
        let other = other.cloned();
        [Some(own), other].into_iter().flatten()
    }

    fn find<K>(&self, all: &HashMap<String, Vec<Arc<K>>>, address: &str) -> Vec<Arc<K>> {
        let found = self.names(address).find_map(|name| all.get(&name));
        found.cloned().unwrap_or_default()
    }

    /// OpenPGP certificates of an address.
    pub(crate) fn pgp(&self, address: &str) -> Vec<Arc<Certificate>> {
        self.find(&self.pgp, address)
    }

    /// OpenPGP keys of ours for an address.
    pub(crate) fn pgp_secret(&self, address: &str) -> Vec<Arc<SecretKey>> {
        self.find(&self.pgp_secret, address)
    }

    /// S/MIME certificates of an address.
    pub(crate) fn smime(&self, address: &str) -> Vec<Arc<Recipient>> {
        self.find(&self.smime, address)
    }

    /// S/MIME keys of ours for an address.
    pub(crate) fn smime_secret(&self, address: &str) -> Vec<Arc<Identity>> {
        self.find(&self.smime_secret, address)
    }

    /// The keys of a domain.
    pub(crate) fn dkim(&self, domain: &str) -> impl Iterator<Item = (&DkimKey, &Signer)> {
        let of_domain = |(key, _): &&(DkimKey, Signer)| key.domain.eq_ignore_ascii_case(domain);
        self.dkim
            .iter()
            .filter(of_domain)
            .map(|(key, signer)| (key, signer))
    }
}

fn add<K>(all: &mut HashMap<String, Vec<Arc<K>>>, address: &str, key: &Arc<K>) {
    let keys = all.entry(address.to_owned()).or_default();
    if keys.len() < KEYS_PER_ADDRESS_MAX {
        keys.push(Arc::clone(key));
    } else {
        tracing::warn!("more than {KEYS_PER_ADDRESS_MAX} keys for one address: not all are used");
    }
}

// === impl KeyStore ===

impl KeyStore {
    /// Reads the keys now and looks at the folder every second until it is dropped.
    pub(crate) fn open(config: &Arc<Config>) -> Result<Self, KeysError> {
        let watched = std::iter::once(&config.keys).chain(&config.trust_anchors);
        let watch = Watch::new(watched.cloned().collect());
        let current = Arc::new(ArcSwap::from_pointee(Keys::read(config)?));
        let (weak, config) = (Arc::downgrade(&current), Arc::clone(config));
        thread::Builder::new()
            .name("secure-mail-keys".to_owned())
            .spawn(move || follow(watch, &weak, &config))
            .map_err(KeysError::NoThread)?;
        Ok(Self { current })
    }

    /// The last good reading.
    pub(crate) fn current(&self) -> Arc<Keys> {
        self.current.load_full()
    }
}

fn follow(mut watch: Watch, current: &Weak<ArcSwap<Keys>>, config: &Config) {
    loop {
        thread::sleep(POLL_INTERVAL);
        let Some(current) = current.upgrade() else {
            return;
        };
        if watch.look() != Look::Taken {
            continue;
        }
        let place = |path: &Path| path.display().to_string();
        match Keys::read(config) {
            Ok(keys) => {
                current.store(Arc::new(keys));
                tracing::info!(folder = place(&config.keys), "keys read anew");
            }
            Err(error) => {
                let error = error.to_string();
                tracing::error!(error, "keys not taken; the last good ones stay");
            }
        }
    }
}

#[cfg(test)]
mod tests;
