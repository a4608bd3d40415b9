//! PROXY protocol, versions 1 and 2: who the client behind a load balancer is.
//!
//! Incremental and bounded; only a peer in [`TrustedProxies`] may be believed, and such a peer must send the header.
//! Source: "The PROXY protocol", HAProxy Technologies, 2020-03-05, sections 2.1 and 2.2.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use thiserror::Error;

/// Longest header of version 1, with CRLF (§2.1).
pub const V1_OCTETS_MAX: usize = 107;

/// Longest body of version 2 that we take: addresses and extensions (§2.2 allows 65,535; the addresses need 36).
pub const V2_BODY_OCTETS_MAX: usize = 4096;

const V1_PREFIX: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_OCTETS: usize = 16;

/// What a prefix of the connection says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A header has begun and is not complete.
    NeedMore,
    /// A header.
    Done {
        /// Octets that it took; SMTP begins after them.
        consumed: usize,
        /// What it says.
        header: Header,
    },
}

/// Content of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (health check), or does not know: the addresses of the connection hold.
    Local,
    /// The proxy speaks for a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// The connection does not begin with a usable PROXY header; it must be closed without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// Neither version 1 nor version 2.
    #[error("connection does not begin with a PROXY header; does the load balancer send one?")]
    Missing,
    /// More than [`V1_OCTETS_MAX`] or [`V2_BODY_OCTETS_MAX`].
    #[error("PROXY header is too long")]
    TooLong,
    /// Not what the version prescribes.
    #[error("PROXY header is malformed")]
    Syntax,
    /// Version 2 with a version, command or transport that is not known.
    #[error("PROXY header has an unknown version, command or transport")]
    Unknown,
}

/// Networks whose PROXY headers are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

// === impl TrustedProxies ===

impl TrustedProxies {
    /// Without networks nobody is trusted.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// IPv4 addresses mapped into IPv6 count as IPv4.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

// === Parsing ===

/// Reads the header at the start of a connection.
pub fn parse(input: &[u8]) -> Result<Parsed, ProxyError> {
    if begins(input, V2_SIGNATURE) {
        return parse_v2(input);
    }
    if begins(input, V1_PREFIX) {
        return parse_v1(input);
    }
    Err(ProxyError::Missing)
}

/// True if `input` begins with `prefix`, as far as it goes.
fn begins(input: &[u8], prefix: &[u8]) -> bool {
    input.iter().zip(prefix).all(|(a, b)| a == b)
}

fn parse_v1(input: &[u8]) -> Result<Parsed, ProxyError> {
    let head = input.get(..input.len().min(V1_OCTETS_MAX)).unwrap_or(input);
    let Some(end) = memchr::memmem::find(head, b"\r\n") else {
        return if head.len() == V1_OCTETS_MAX {
            Err(ProxyError::TooLong)
        } else {
            Ok(Parsed::NeedMore)
        };
    };
    let line = head.get(V1_PREFIX.len()..end).ok_or(ProxyError::Syntax)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Syntax)?;
    Ok(Parsed::Done {
        consumed: end + 2,
        header: v1_header(line)?,
    })
}

fn v1_header(line: &str) -> Result<Header, ProxyError> {
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Header::Local);
    }
    let mut word = || words.next().ok_or(ProxyError::Syntax);
    let (source, destination) = (v1_address(family, word()?)?, v1_address(family, word()?)?);
    let (source_port, destination_port) = (v1_port(word()?)?, v1_port(word()?)?);
    if words.next().is_some() {
        return Err(ProxyError::Syntax);
    }
    Ok(Header::Proxied {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn v1_address(family: &str, text: &str) -> Result<IpAddr, ProxyError> {
    match family {
        "TCP4" => text
            .parse::<Ipv4Addr>()
            .map(IpAddr::V4)
            .map_err(|_| ProxyError::Syntax),
        "TCP6" => text
            .parse::<Ipv6Addr>()
            .map(IpAddr::V6)
            .map_err(|_| ProxyError::Syntax),
        _ => Err(ProxyError::Syntax),
    }
}

fn v1_port(text: &str) -> Result<u16, ProxyError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or(ProxyError::Syntax)
}

fn parse_v2(input: &[u8]) -> Result<Parsed, ProxyError> {
    let Some((head, rest)) = input.split_at_checked(V2_HEAD_OCTETS) else {
        return Ok(Parsed::NeedMore);
    };
    let &[.., version_command, transport, high, low] = head else {
        return Ok(Parsed::NeedMore);
    };
    let octets = usize::from(u16::from_be_bytes([high, low]));
    if octets > V2_BODY_OCTETS_MAX {
        return Err(ProxyError::TooLong);
    }
    let header = match rest.get(..octets) {
        None => return Ok(Parsed::NeedMore),
        Some(body) => v2_header(version_command, transport, body)?,
    };
    Ok(Parsed::Done {
        consumed: V2_HEAD_OCTETS + octets,
        header,
    })
}

/// §2.2: version 2 in the high nibble; command LOCAL is 0, PROXY is 1. Transport: family in the high nibble, STREAM is 1.
fn v2_header(version_command: u8, transport: u8, body: &[u8]) -> Result<Header, ProxyError> {
    match (version_command, transport) {
        // UNSPEC and UNIX: the receiver must use the addresses of the connection.
        (0x20, _) | (0x21, 0x00 | 0x31 | 0x32) => Ok(Header::Local),
        (0x21, 0x11) => addresses::<4>(body),
        (0x21, 0x21) => addresses::<16>(body),
        _ => Err(ProxyError::Unknown),
    }
}

/// Source and destination address, then their ports.
fn addresses<const N: usize>(body: &[u8]) -> Result<Header, ProxyError>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>().ok_or(ProxyError::Syntax)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(ProxyError::Syntax)?;
    let (source_port, rest) = rest.split_first_chunk::<2>().ok_or(ProxyError::Syntax)?;
    let (destination_port, _extensions) =
        rest.split_first_chunk::<2>().ok_or(ProxyError::Syntax)?;
    Ok(Header::Proxied {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*source_port)),
        destination: SocketAddr::new(
            IpAddr::from(*destination),
            u16::from_be_bytes(*destination_port),
        ),
    })
}
