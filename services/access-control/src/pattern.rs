//! The patterns of a rule, compiled for a look-up that does not grow with their number.
//!
//! Each pattern is checked when it is read; the error names the pattern and the forms there are.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::Address;

/// Most patterns in one list of one rule.
pub const PATTERNS_MAX: usize = 50_000;

/// Which addresses are meant: `joe@example.org`, `joe@` (any domain), `@example.org`, `.example.org` (subdomains), `<>`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "OneOrMany")]
pub struct AddressPatterns {
    addresses: HashSet<String>,
    local_parts: HashSet<String>,
    domains: DomainPatterns,
    null: bool,
}

/// Which host names are meant: `mx.example.org`, `.example.org` (subdomains), `[*]` (any address literal).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "OneOrMany")]
pub struct HostPatterns {
    domains: DomainPatterns,
    any_literal: bool,
}

/// Which AUTH identities are meant, compared without case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "OneOrMany")]
pub struct IdentityPatterns {
    identities: HashSet<String>,
}

/// Which client addresses are meant: `192.0.2.0/24`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "OneOrMany")]
pub struct Networks {
    networks: Vec<IpNet>,
}

#[derive(Debug, Clone, Default)]
struct DomainPatterns {
    exact: HashSet<String>,
    /// Without the leading dot.
    parents: HashSet<String>,
}

/// A list may be written as a single word.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a pattern or a list of patterns")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

// === impl AddressPatterns ===

impl AddressPatterns {
    /// Is `address` meant? The text says by which pattern, for the log.
    pub fn find(&self, address: &Address) -> Option<String> {
        if address.is_null() {
            return self.null.then(|| "<>".to_owned());
        }
        if self.addresses.contains(address.as_str()) {
            return Some(address.as_str().to_owned());
        }
        if self.local_parts.contains(address.local_part()) {
            return Some(format!("{}@", address.local_part()));
        }
        let found = self.domains.find(address.domain())?;
        Some(if found.starts_with('.') {
            found
        } else {
            format!("@{found}")
        })
    }

    fn add(&mut self, pattern: &str) -> Result<(), String> {
        // A star is legal in a local part, but whoever writes one here expects a wildcard.
        if pattern.contains(['*', ' ']) {
            return Err(no_address(pattern));
        }
        let lower = pattern.to_lowercase();
        if lower == "<>" {
            self.null = true;
        } else if let Some(domain) = lower.strip_prefix('@') {
            self.domains
                .exact
                .insert(host(domain).ok_or_else(|| no_address(pattern))?);
        } else if lower.starts_with('.') {
            self.domains
                .add(&lower)
                .ok_or_else(|| no_address(pattern))?;
        } else if let Some(local) = lower.strip_suffix('@').filter(|local| !local.is_empty()) {
            self.local_parts.insert(local.to_owned());
        } else {
            let address = Address::new(pattern);
            let whole = !address.local_part().is_empty() && host(address.domain()).is_some();
            if !whole {
                return Err(no_address(pattern));
            }
            self.addresses.insert(address.as_str().to_owned());
        }
        Ok(())
    }
}

fn no_address(pattern: &str) -> String {
    format!(
        "`{pattern}` is no address pattern; write joe@example.org, joe@ (any domain), @example.org, \
         .example.org (its subdomains) or <> (the empty sender)"
    )
}

impl TryFrom<OneOrMany> for AddressPatterns {
    type Error = String;

    fn try_from(words: OneOrMany) -> Result<Self, String> {
        words.collect(Self::add)
    }
}

// === impl HostPatterns ===

impl HostPatterns {
    /// Is `host`, an argument of HELO or EHLO, meant? The text says by which pattern.
    pub fn find(&self, host: &str) -> Option<String> {
        let host = host.to_lowercase();
        if self.any_literal && host.starts_with('[') {
            return Some("[*]".to_owned());
        }
        self.domains.find(host.strip_suffix('.').unwrap_or(&host))
    }

    fn add(&mut self, pattern: &str) -> Result<(), String> {
        if pattern == "[*]" {
            self.any_literal = true;
            return Ok(());
        }
        self.domains.add(&pattern.to_lowercase()).ok_or_else(|| {
            format!(
                "`{pattern}` is no host pattern; write mx.example.org, .example.org (its subdomains), \
                 [192.0.2.1] or [*] (any address literal)"
            )
        })
    }
}

impl TryFrom<OneOrMany> for HostPatterns {
    type Error = String;

    fn try_from(words: OneOrMany) -> Result<Self, String> {
        words.collect(Self::add)
    }
}

// === impl IdentityPatterns ===

impl IdentityPatterns {
    /// Is `identity` meant? The text says by which pattern.
    pub fn find(&self, identity: &str) -> Option<String> {
        let identity = identity.to_lowercase();
        self.identities.contains(&identity).then_some(identity)
    }

    fn add(&mut self, pattern: &str) -> Result<(), String> {
        if pattern.is_empty() {
            return Err("an AUTH identity is empty; use `authenticated: false` instead".to_owned());
        }
        self.identities.insert(pattern.to_lowercase());
        Ok(())
    }
}

impl TryFrom<OneOrMany> for IdentityPatterns {
    type Error = String;

    fn try_from(words: OneOrMany) -> Result<Self, String> {
        words.collect(Self::add)
    }
}

// === impl Networks ===

impl Networks {
    /// Is `address` meant? The text says by which network.
    pub fn find(&self, address: IpAddr) -> Option<String> {
        // A dual-stack socket shows 192.0.2.1 as ::ffff:192.0.2.1.
        let address = address.to_canonical();
        self.networks
            .iter()
            .find(|network| network.contains(&address))
            .map(IpNet::to_string)
    }

    fn add(&mut self, pattern: &str) -> Result<(), String> {
        let network = pattern
            .parse::<IpNet>()
            .or_else(|_| pattern.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| {
                format!(
                    "`{pattern}` is no network; write 192.0.2.0/24, 2001:db8::/32 or one address"
                )
            })?;
        // 192.0.2.1/24 is nearly always a slip for /32 or for .0/24; which one, only the writer knows.
        if network.trunc() != network {
            return Err(format!(
                "`{pattern}` has host bits; write {} for the network or {} for the host",
                network.trunc(),
                network.addr()
            ));
        }
        self.networks.push(network);
        Ok(())
    }
}

impl TryFrom<OneOrMany> for Networks {
    type Error = String;

    fn try_from(words: OneOrMany) -> Result<Self, String> {
        words.collect(Self::add)
    }
}

// === impl DomainPatterns ===

impl DomainPatterns {
    fn find(&self, domain: &str) -> Option<String> {
        if self.exact.contains(domain) {
            return Some(domain.to_owned());
        }
        if self.parents.is_empty() {
            return None;
        }
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.parents.contains(parent) {
                return Some(format!(".{parent}"));
            }
            rest = parent;
        }
        None
    }

    fn add(&mut self, pattern: &str) -> Option<()> {
        match pattern.strip_prefix('.') {
            Some(parent) => self.parents.insert(host(parent)?),
            None => self.exact.insert(host(pattern)?),
        };
        Some(())
    }
}

/// A plausible host name or address literal: catches `*.example.org`, `@@`, blanks and empty labels.
fn host(text: &str) -> Option<String> {
    let literal = text.starts_with('[') && text.ends_with(']') && !text.contains('*');
    let label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_alphanumeric() || c == '-' || c == '_' || !c.is_ascii())
    };
    (literal || text.split('.').all(label)).then(|| text.to_owned())
}

// === impl OneOrMany ===

impl OneOrMany {
    fn collect<P: Default>(
        self,
        add: impl Fn(&mut P, &str) -> Result<(), String>,
    ) -> Result<P, String> {
        let words = match self {
            Self::One(word) => vec![word],
            Self::Many(words) => words,
        };
        if words.is_empty() {
            return Err("an empty list never matches; leave the field out".to_owned());
        }
        if words.len() > PATTERNS_MAX {
            return Err(format!("more than {PATTERNS_MAX} patterns in one list"));
        }
        let mut patterns = P::default();
        for word in &words {
            add(&mut patterns, word)?;
        }
        Ok(patterns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(words: &[&str]) -> Result<AddressPatterns, String> {
        OneOrMany::Many(words.iter().map(|&word| word.to_owned()).collect()).try_into()
    }

    #[test]
    fn every_form_of_address_pattern() {
        let patterns = addresses(&[
            "Joe@Example.org",
            "abuse@",
            "@example.net",
            ".b.example.com",
            "<>",
        ])
        .unwrap();
        let found = |written: &str| patterns.find(&Address::new(written));
        assert_eq!(found("joe@example.org").as_deref(), Some("joe@example.org"));
        assert_eq!(found("jim@example.org"), None);
        assert_eq!(found("Abuse@example.org").as_deref(), Some("abuse@"));
        assert_eq!(found("x@EXAMPLE.net").as_deref(), Some("@example.net"));
        assert_eq!(found("x@sub.example.net"), None);
        assert_eq!(
            found("x@a.b.example.com").as_deref(),
            Some(".b.example.com")
        );
        assert_eq!(found("x@b.example.com"), None);
        assert_eq!(found("x@ab.example.com"), None);
        assert_eq!(found("").as_deref(), Some("<>"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_forms() {
        for word in [
            "",
            "joe",
            "@",
            ".",
            "*@example.org",
            "*.example.org",
            "joe@*.org",
            "a b@",
        ] {
            let refusal = addresses(&[word]).unwrap_err();
            assert!(
                refusal.contains("write joe@example.org"),
                "{word}: {refusal}"
            );
        }
        assert!(addresses(&[]).unwrap_err().contains("empty list"));
    }

    #[test]
    fn networks() {
        let networks = |words: &[&str]| -> Result<Networks, String> {
            OneOrMany::Many(words.iter().map(|&word| word.to_owned()).collect()).try_into()
        };
        let found = networks(&["192.0.2.0/24", "2001:db8::1"]).unwrap();
        assert!(found.find("192.0.2.7".parse().unwrap()).is_some());
        assert!(found.find("::ffff:192.0.2.7".parse().unwrap()).is_some());
        assert!(found.find("2001:db8::1".parse().unwrap()).is_some());
        assert!(found.find("2001:db8::2".parse().unwrap()).is_none());
        assert!(
            networks(&["192.0.2.1/24"])
                .unwrap_err()
                .contains("write 192.0.2.0/24")
        );
        assert!(
            networks(&["192.0.2"])
                .unwrap_err()
                .contains("is no network")
        );
    }

    #[test]
    fn host_patterns() {
        let words = ["mx.example.org", ".example.net", "[*]"]
            .map(str::to_owned)
            .to_vec();
        let patterns: HostPatterns = OneOrMany::Many(words).try_into().unwrap();
        assert!(patterns.find("MX.example.org.").is_some());
        assert!(patterns.find("a.example.net").is_some());
        assert!(patterns.find("[192.0.2.1]").is_some());
        assert!(patterns.find("example.net").is_none());
    }
}
