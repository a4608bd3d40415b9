//! How a service is reached: [`ServiceClientConfig`], [`Target`].

use std::path::PathBuf;
use std::time::Duration;

use opes_host::Host;
use opes_tls::ClientTls;
use tonic::codegen::http::Uri;

/// How to reach one service, and bounds.
#[derive(Debug, Clone)]
pub struct ServiceClientConfig {
    /// Name in logs and errors.
    pub name: String,
    /// `http://host:port`, `https://host:port` (needs [`tls`](Self::tls)) or `unix:/path`.
    pub target: String,
    /// Our certificate and the authorities of services, for `https://`.
    pub tls: Option<ClientTls>,
    /// Name that the service's certificate must be for; none = the host of [`target`](Self::target).
    pub server_name: Option<String>,
    /// For one attempt to connect and negotiate.
    pub connect_timeout: Duration,
    /// A connection without transactions is closed after this.
    pub idle_timeout: Duration,
    /// OCP connections at most; the next is opened when all others are full.
    pub connections: usize,
    /// Transactions open at once on a connection; the service may ask for fewer.
    pub max_transactions_per_connection: u32,
    /// OPES system that we belong to: an absolute URI (RFC 3897 §3.2); empty = not configured.
    pub system: String,
    /// Octets that a service may insert into one message; more is a protocol error.
    pub inserted_octets_max: u64,
    /// The service may see a message twice: what a lost connection interrupted is tried once more on another one.
    pub idempotent: bool,
    /// Largest frame that is read, in octets.
    pub frame_octets_max: usize,
    /// Network and randomness to work with.
    pub host: Host,
}

impl ServiceClientConfig {
    /// Defaults for everything but the address.
    pub fn new(name: impl Into<String>, target: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            target: target.into(),
            tls: None,
            server_name: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_mins(1),
            connections: 2,
            max_transactions_per_connection: 256,
            system: String::new(),
            inserted_octets_max: 64 * 1024 * 1024,
            idempotent: false,
            frame_octets_max: 4 * 1024 * 1024,
            host: Host::default(),
        }
    }
}

/// A parsed [`ServiceClientConfig::target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(Uri),
    Tls { host: String, port: u16 },
    Unix(PathBuf),
}

impl Target {
    /// The error is the remedy, for people.
    pub(crate) fn parse(target: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "the address is none of http://HOST:PORT, https://HOST:PORT and unix:/PATH";
        if let Some(path) = target.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(FORM)
            } else {
                Ok(Self::Unix(PathBuf::from(path)))
            };
        }
        let uri: Uri = target.parse().map_err(|_| FORM)?;
        match (uri.scheme_str(), uri.host(), uri.port_u16()) {
            (Some("http"), Some(_), Some(_)) => Ok(Self::Tcp(uri)),
            (Some("https"), Some(host), Some(port)) => {
                // An IPv6 address is in brackets in a URI and nowhere else (RFC 3986 §3.2.2).
                let host = host.trim_matches(['[', ']']).to_owned();
                Ok(Self::Tls { host, port })
            }
            _ => Err(FORM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn targets() {
        assert!(matches!(
            Target::parse("http://127.0.0.1:80"),
            Ok(Target::Tcp(_))
        ));
        assert_eq!(
            Target::parse("unix:/run/x"),
            Ok(Target::Unix("/run/x".into()))
        );
        assert_eq!(
            Target::parse("https://[::1]:9000"),
            Ok(Target::Tls {
                host: "::1".into(),
                port: 9000
            })
        );
        for bad in [
            "",
            "https://example.com",
            "unix:",
            "127.0.0.1:80",
            "http://example.com",
            "ftp://example.com:1",
            "\0",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
