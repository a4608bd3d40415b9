//! How a service is reached: [`ServiceClientConfig`], [`Source`], [`Address`], [`Target`].

use std::fmt;
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
    /// Where its instances are: `http://host:port`, `https://host:port` (needs [`tls`](Self::tls)), `unix:/path`, or
    /// `dns://host:port` for all addresses of a name, which is looked up again every few seconds.
    pub endpoints: Vec<String>,
    /// Our certificate and the authorities of services, for `https://`; with it `dns://` means TLS too.
    pub tls: Option<ClientTls>,
    /// Name that the service's certificate must be for; none = the host of the endpoint.
    pub server_name: Option<String>,
    /// For one attempt to connect and negotiate.
    pub connect_timeout: Duration,
    /// A transaction in which the service moves nothing for so long, although it is its turn, is given up.
    pub idle_timeout: Duration,
    /// Connections are kept for so long after the last transaction.
    pub connection_idle: Duration,
    /// OCP connections at most per endpoint; the next is opened when all others are full.
    pub connections: usize,
    /// Transactions open at once, over all endpoints.
    pub max_in_flight: u32,
    /// Transactions that wait for a place; beyond it they fail at once.
    pub max_queued: u32,
    /// Transactions open at once on a connection; the service may ask for fewer.
    pub max_transactions_per_connection: u32,
    /// OPES system that we belong to: an absolute URI (RFC 3897 §3.2); empty = not configured.
    pub system: String,
    /// Octets that a service may insert into one message; more is a protocol error.
    pub inserted_octets_max: u64,
    /// Whoever runs the instances starts them when they are wanted: while there are none, a transaction waits
    /// [`connect_timeout`](Self::connect_timeout) for the first instead of failing at once.
    pub awaits_instances: bool,
    /// The service may see a message twice: what a lost connection interrupted is repeated on another endpoint.
    pub idempotent: bool,
    /// Largest frame that is read, in octets.
    pub frame_octets_max: usize,
    /// Network and randomness to work with.
    pub host: Host,
}

impl ServiceClientConfig {
    /// Defaults for everything but the address.
    pub fn new(name: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            endpoints: vec![endpoint.into()],
            tls: None,
            server_name: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_mins(1),
            connection_idle: Duration::from_mins(1),
            connections: 2,
            max_in_flight: 1000,
            max_queued: 1000,
            max_transactions_per_connection: 256,
            system: String::new(),
            inserted_octets_max: 64 * 1024 * 1024,
            awaits_instances: false,
            idempotent: false,
            frame_octets_max: 4 * 1024 * 1024,
            host: Host::default(),
        }
    }
}

/// Endpoints of one service at most; a name with more addresses is cut.
pub(crate) const ENDPOINTS_MAX: usize = 256;

/// What a configured endpoint stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Fixed(Address),
    /// `dns://host:port`: every address of this name.
    Name {
        host: String,
        port: u16,
    },
}

impl Source {
    /// What has no known form stays as it is: dialling it says why it cannot be dialled. `known_as`: what a fixed one's certificate must be
    /// for, if that is not its host.
    pub(crate) fn parse(endpoint: &str, known_as: Option<&str>) -> Self {
        let name = endpoint.strip_prefix("dns://");
        let name = name.and_then(|name| name.rsplit_once(':'));
        match name.map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(port))) if !host.is_empty() && port > 0 => Self::Name {
                host: host.to_owned(),
                port,
            },
            _ => Self::Fixed(Address {
                target: endpoint.to_owned(),
                host: known_as.map(str::to_owned),
            }),
        }
    }
}

/// As it was written.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => f.write_str(&address.target),
            Self::Name { host, port } => write!(f, "dns://{host}:{port}"),
        }
    }
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// As [`Target`] reads it.
    pub(crate) target: String,
    /// The name that it was found by, or that it is known by to who found it, which is what a certificate would be for.
    pub(crate) host: Option<String>,
}

/// A parsed [`Address::target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(Uri),
    Tls { host: String, port: u16 },
    Unix(PathBuf),
}

impl Target {
    /// The error is the remedy, for people.
    pub(crate) fn parse(target: &str) -> Result<Self, &'static str> {
        const FORM: &str = "the address is none of http://HOST:PORT, https://HOST:PORT, dns://HOST:PORT and unix:/PATH";
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
    use super::{Address, Source, Target};

    #[test]
    fn sources() {
        let name = |host: &str, port| Source::Name {
            host: host.into(),
            port,
        };
        assert_eq!(Source::parse("dns://scan:9000", None), name("scan", 9000));
        for other in [
            "dns://scan",
            "dns://:1",
            "dns://scan:0",
            "unix:/x",
            "http://[::1]:1",
        ] {
            let address = Address {
                target: other.into(),
                host: None,
            };
            assert_eq!(Source::parse(other, None), Source::Fixed(address));
        }
    }

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
