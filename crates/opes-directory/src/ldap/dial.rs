//! From the configuration to a connection: TCP or Unix socket, TLS, bind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::guard::{EXTENDED_RESPONSE, element, read_message};
use crate::config::{self, ConfigError, DirectoryConfig, Endpoint, LdapConfig, Security, wrong};
use crate::directory::Failure;

/// ExtendedRequest 1 with the name 1.3.6.1.4.1.1466.20037 (RFC 4511 §4.14.1).
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
/// Octets of the answer to it.
const START_TLS_OCTETS_MAX: usize = 16 * 1024;

pub(super) struct Dialer {
    endpoints: Vec<Endpoint>,
    /// Which is tried first: the one that was reached last, until it does not answer.
    first: AtomicUsize,
    tls: Option<TlsConnector>,
    /// DN, and the file of its password.
    credential: Option<(String, PathBuf)>,
    /// For one server, so that there is time for the next one.
    timeout: Duration,
    connections: Gauge,
}

// === impl Dialer ===

impl Dialer {
    pub(super) fn new(
        ldap: &LdapConfig,
        config: &DirectoryConfig,
        connections: Gauge,
    ) -> Result<Self, ConfigError> {
        let endpoints = ldap.endpoints()?;
        let with_tls = |endpoint: &Endpoint| match endpoint {
            Endpoint::Unix(_) => false,
            Endpoint::Tcp { security, .. } => *security != Security::None,
        };
        let tls = if endpoints.iter().any(with_tls) {
            Some(tls(ldap.ca_file.as_deref())?)
        } else {
            None
        };
        let servers = u32::try_from(endpoints.len()).unwrap_or(1);
        Ok(Self {
            tls,
            credential: ldap.credential()?,
            timeout: config.timeout() / servers.max(1),
            endpoints,
            first: AtomicUsize::new(0),
            connections,
        })
    }

    /// The first server that can be reached.
    pub(super) async fn dial(&self) -> Result<Connection, Failure> {
        let mut last = Failure::Unreachable("there is no server".to_owned());
        let first = self.first.load(Ordering::Relaxed);
        let servers = self.endpoints.iter().enumerate();
        for (server, endpoint) in servers.clone().skip(first).chain(servers.take(first)) {
            match tokio::time::timeout(self.timeout, self.one(server, endpoint)).await {
                Ok(Ok(connection)) => {
                    self.first.store(server, Ordering::Relaxed);
                    return Ok(connection);
                }
                Ok(Err(failure)) => last = failure,
                Err(_elapsed) => last = Failure::Unreachable("no connection in time".to_owned()),
            }
        }
        Err(last)
    }

    /// Another server is tried first, if this one was.
    pub(super) fn suspect(&self, server: usize) {
        let next = (server + 1) % self.endpoints.len().max(1);
        let _moved_already =
            self.first
                .compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn one(&self, server: usize, endpoint: &Endpoint) -> Result<Connection, Failure> {
        let mut connection = self.open(server, endpoint).await?;
        if let Some((dn, file)) = &self.credential {
            // Read anew, because secrets are replaced while we run.
            let password = config::password(file).map_err(Failure::Refused)?;
            connection.bind(dn, password.expose_secret()).await?;
        }
        Ok(connection)
    }

    async fn open(&self, server: usize, endpoint: &Endpoint) -> Result<Connection, Failure> {
        let open = self.connections.clone();
        match endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                Connection::over(stream, server, open).await
            }
            Endpoint::Tcp {
                host,
                port,
                security,
            } => {
                let stream = TcpStream::connect((host.as_str(), *port));
                let mut stream = stream.await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                match security {
                    Security::None => return Connection::over(stream, server, open).await,
                    Security::StartTls => start_tls(&mut stream).await?,
                    Security::Tls => {}
                }
                let name = ServerName::try_from(host.clone()).map_err(unreachable)?;
                let tls = self.tls.as_ref().ok_or_else(|| unreachable("no TLS"))?;
                let stream = tls.connect(name, stream).await.map_err(unreachable)?;
                Connection::over(stream, server, open).await
            }
        }
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Dialer");
        shown
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

fn unreachable(error: impl std::fmt::Display) -> Failure {
    Failure::Unreachable(error.to_string())
}

/// Reads not an octet beyond the answer: what follows in the clear could be anybody's, and fails the handshake.
async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), Failure> {
    stream.write_all(START_TLS).await.map_err(unreachable)?;
    let answer = read_message(stream, || START_TLS_OCTETS_MAX).await;
    let answer = answer.map_err(|fault| unreachable(fault.text()))?;
    if is_success(&answer) == Some(true) {
        Ok(())
    } else {
        Err(Failure::Refused("it does not start TLS".to_owned()))
    }
}

fn is_success(message: &[u8]) -> Option<bool> {
    let (_, content, _) = element(message)?;
    let (_, _id, rest) = element(content)?;
    let (tag, response, _) = element(rest)?;
    let (_, code, _) = element(response)?;
    Some(tag == EXTENDED_RESPONSE && code == [0])
}

fn tls(ca_file: Option<&Path>) -> Result<TlsConnector, ConfigError> {
    let roots = match ca_file {
        Some(path) => {
            let place = |reason: String| wrong("ldap.caFile", reason);
            let text = std::fs::read_to_string(path)
                .map_err(|error| place(format!("{}: {error}", path.display())))?;
            opes_tls::authorities(path, &text).map_err(|error| place(error.to_string()))?
        }
        None => system_roots()?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("ldap.url", error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system_roots() -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _others) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(wrong(
            "ldap.caFile",
            "this system trusts no authority; name a file".to_owned(),
        ));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_success_starts_tls() {
        let answers: [(&[u8], bool); 4] = [
            (
                b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
                true,
            ),
            (
                b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00",
                false,
            ),
            (
                b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00",
                false,
            ),
            (b"\x30\x05\x02\x01\x01\x78\x00", false),
        ];
        for (answer, expected) in answers {
            let (mut ours, mut theirs) = tokio::io::duplex(100);
            theirs.write_all(answer).await.unwrap();
            assert_eq!(start_tls(&mut ours).await.is_ok(), expected, "{answer:x?}");
        }
        // The request is what it says: 31 octets, of which 22 name the operation.
        let (tag, content, rest) = element(START_TLS).unwrap();
        assert_eq!((tag, content.len(), rest.len()), (0x30, 29, 0));
        let (_, _, operation) = element(content).unwrap();
        let (tag, name, rest) = element(operation).unwrap();
        assert_eq!((tag, name.len(), rest.len()), (0x77, 24, 0));
    }
}
