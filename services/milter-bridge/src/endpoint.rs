//! Where a milter listens, written as Postfix has it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// A milter's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `inet:HOST:PORT`; an IPv6 address in brackets.
    Inet {
        /// Name or address, without brackets.
        host: String,
        /// Of TCP.
        port: u16,
    },
    /// `unix:/PATH`.
    Unix(PathBuf),
}

/// Not such a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither form.
    #[error("`{0}` is no milter socket; write inet:HOST:PORT or unix:/PATH")]
    Form(String),
    /// The form of Sendmail's and milters' own configuration.
    #[error("`{0}` is in Sendmail's form; write inet:HOST:PORT as Postfix does")]
    Sendmail(String),
    /// Not from the root.
    #[error("`{0}`: the path must begin with a slash")]
    Relative(String),
}

impl Endpoint {
    /// Does what is sent there stay on this machine?
    pub fn is_this_machine(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Inet { host, .. } => {
                let address: Result<IpAddr, _> = host.parse();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(form)?;
        match kind {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(EndpointError::Relative(text.to_owned())),
            "inet" if rest.contains('@') => Err(EndpointError::Sendmail(text.to_owned())),
            "inet" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
                let bare = host
                    .strip_prefix('[')
                    .and_then(|host| host.strip_suffix(']'));
                let host = bare.unwrap_or(host);
                let port = port.parse().ok().filter(|port| *port != 0);
                match port {
                    Some(port) if !host.is_empty() && (bare.is_some() || !host.contains(':')) => {
                        let host = host.to_owned();
                        Ok(Self::Inet { host, port })
                    }
                    _ => Err(form()),
                }
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { host, port } if host.contains(':') => write!(f, "inet:[{host}]:{port}"),
            Self::Inet { host, port } => write!(f, "inet:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_back() {
        for (text, here) in [
            ("inet:127.0.0.1:8891", true),
            ("inet:localhost:8891", true),
            ("inet:[::1]:8891", true),
            ("unix:/run/opendkim/opendkim.sock", true),
            ("inet:milter.example.com:8891", false),
            ("inet:[2001:db8::1]:8891", false),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
            assert_eq!(endpoint.is_this_machine(), here, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_the_remedy() {
        for (text, said) in [
            ("127.0.0.1:8891", "no milter socket"),
            ("inet:8891@localhost", "Sendmail's form"),
            ("inet:localhost", "no milter socket"),
            ("inet:localhost:0", "no milter socket"),
            ("inet:::1:8891", "no milter socket"),
            ("inet::8891", "no milter socket"),
            ("unix:run/a", "slash"),
            ("local:/run/a", "no milter socket"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
