//! The right side of an entry: a new address, a next hop, or both.

use std::fmt;
use std::net::Ipv6Addr;

use opes_smtp::grammar::ForwardPath;

/// Where the recipients of one entry live. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    pub(crate) address: Option<NewAddress>,
    pub(crate) next_hop: Option<NextHop>,
}

/// How the address changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NewAddress {
    /// `joe@fr.example.org`.
    Whole(ForwardPath),
    /// `@fr.example.org`: the local part stays.
    Domain(String),
}

/// A server to hand a recipient to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// It speaks LMTP (RFC 2033), not SMTP.
    pub lmtp: bool,
}

// === impl Target ===

impl Target {
    /// Reads one or two words: `joe@fr.example.org`, `@fr.example.org`, `mx.example.org:25`, `mx.example.org:24/lmtp`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut target = Self::default();
        for word in text.split_whitespace() {
            let repeated = if word.contains('@') {
                target.address.replace(NewAddress::parse(word)?).is_some()
            } else {
                target.next_hop.replace(NextHop::parse(word)?).is_some()
            };
            if repeated {
                return Err(format!(
                    "`{text}` has two addresses or two next hops; one of each at most"
                ));
            }
        }
        if target == Self::default() {
            return Err("the new address or next hop is missing".to_owned());
        }
        Ok(target)
    }

    /// From one value each, as a directory has them. `port`: of a next hop that names none. Without any it is empty.
    pub(crate) fn from_values(
        address: Option<&str>,
        next_hop: Option<&str>,
        port: u16,
    ) -> Result<Self, String> {
        Ok(Self {
            address: address.map(NewAddress::parse).transpose()?,
            next_hop: next_hop
                .map(|word| NextHop::parse_or(word, Some(port)))
                .transpose()?,
        })
    }
}

// === impl NewAddress ===

impl NewAddress {
    fn parse(word: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "`{word}` is no address; write joe@fr.example.org, or @fr.example.org to keep the local part"
            )
        };
        if !word.is_ascii() {
            return Err(format!(
                "`{word}` is not US-ASCII, but the message may have no SMTPUTF8; write the domain with xn-- labels"
            ));
        }
        if let Some(domain) = word.strip_prefix('@') {
            let sample = ForwardPath::parse(&format!("a@{domain}"));
            return sample
                .map(|_| Self::Domain(domain.to_owned()))
                .ok_or_else(refuse);
        }
        ForwardPath::parse(word).map(Self::Whole).ok_or_else(refuse)
    }
}

// === impl NextHop ===

impl NextHop {
    fn parse(word: &str) -> Result<Self, String> {
        Self::parse_or(word, None)
    }

    /// `default`: the port, where the word has none.
    fn parse_or(word: &str, default: Option<u16>) -> Result<Self, String> {
        let refuse = || {
            format!(
                "`{word}` is no next hop; write mx.example.org:25, [2001:db8::1]:25 or mx.example.org:24/lmtp"
            )
        };
        let (server, lmtp) = match word.split_once('/') {
            None => (word, false),
            Some((server, "lmtp")) => (server, true),
            Some((server, "smtp")) => (server, false),
            Some(_) => return Err(refuse()),
        };
        let (host, port) = match (server.rsplit_once(':'), default) {
            (Some((host, port)), _) if !port.ends_with(']') => (host, port.parse().ok()),
            (_, default) => (server, default),
        };
        let port = port.filter(|&port| port != 0).ok_or_else(refuse)?;
        let host = host_name(host).ok_or_else(refuse)?;
        Ok(Self { host, port, lmtp })
    }
}

fn host_name(host: &str) -> Option<String> {
    if let Some(literal) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return literal
            .parse::<Ipv6Addr>()
            .ok()
            .map(|address| address.to_string());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    host.split('.').all(label).then(|| host.to_owned())
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.lmtp { "/lmtp" } else { "" };
        if self.host.contains(':') {
            write!(f, "[{}]:{}{protocol}", self.host, self.port)
        } else {
            write!(f, "{}:{}{protocol}", self.host, self.port)
        }
    }
}
