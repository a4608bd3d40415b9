//! Where one LDAP server listens (RFC 4516 §2, of which scheme, host and port are used).

use std::net::IpAddr;
use std::path::PathBuf;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// On this machine.
    Unix(PathBuf),
    Tcp {
        /// Without brackets.
        host: String,
        port: u16,
        security: Security,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    None,
    StartTls,
    Tls,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn parse(url: &str, start_tls: bool) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let security = match (scheme, start_tls) {
            ("ldapi", false) => return unix(rest).ok_or_else(|| refuse(url)),
            ("ldap", false) => Security::None,
            ("ldap", true) => Security::StartTls,
            ("ldaps", false) => Security::Tls,
            ("ldaps" | "ldapi", true) => {
                return Err(format!("startTls goes with ldap:// only, not with {url}"));
            }
            _ => return Err(refuse(url)),
        };
        let port = if security == Security::Tls { 636 } else { 389 };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split(rest, port).ok_or_else(|| refuse(url))?;
        Ok(Self::Tcp {
            host,
            port,
            security,
        })
    }

    /// To another machine, without TLS?
    pub(super) fn is_in_the_clear(&self) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Tcp { host, security, .. } => {
                *security == Security::None && !is_this_machine(host)
            }
        }
    }
}

fn refuse(url: &str) -> String {
    format!("`{url}` is no server; write ldaps://HOST, ldap://HOST:PORT or ldapi:///PATH")
}

/// `/run/slapd/ldapi`, or the same in per cent encoding, as OpenLDAP's tools want it.
fn unix(rest: &str) -> Option<Endpoint> {
    let mut path = Vec::new();
    let mut octets = rest.bytes();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
            let value = digit(octets.next())? * 16 + digit(octets.next())?;
            path.push(u8::try_from(value).ok()?);
        } else {
            path.push(octet);
        }
    }
    let path = String::from_utf8(path).ok()?;
    (path.starts_with('/') && path.len() > 1 && !path.contains('\0'))
        .then(|| Endpoint::Unix(path.into()))
}

fn split(rest: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => default,
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.chars().all(is_host)).then(|| (host.to_owned(), port))
}

pub(crate) fn is_this_machine(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    address.is_ok_and(|address| address.is_loopback()) || host == "localhost"
}
