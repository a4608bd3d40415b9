//! Nobody's real address stands in our sources: only the ranges and names reserved for examples, private networks, loopback.
//!
//! A pragmatic scan: IPv4 and IPv6 literals, and domains of mail addresses. Numbers of sections (`§4.5.3.1`) look like
//! IPv4 addresses; four single digits are taken for one unless they are a well-known resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Finding;

/// Names that nobody can own (RFC 2606, RFC 6761).
const RESERVED_TOP: &[&str] = &["example", "test", "invalid", "localhost"];
const RESERVED_DOMAINS: &[&str] = &["example.com", "example.org", "example.net"];
/// Ours: the API group and the namespace of the protocol.
const OWN_DOMAINS: &[&str] = &["opes.dev"];
/// Public resolvers that pass for a section number.
const RESOLVERS: &[[u8; 4]] = &[[1, 1, 1, 1], [8, 8, 8, 8], [8, 8, 4, 4], [9, 9, 9, 9]];

/// Addresses that belong to somebody.
pub fn foreign_addresses(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let foreign = ip_words(line)
            .filter(|word| is_foreign_ip(word))
            .chain(mail_domains(line).filter(|domain| is_foreign_domain(domain)));
        for word in foreign {
            let message = format!(
                "`{word}` may be somebody's; use example.org, 192.0.2.0/24, 2001:db8::/32 or loopback"
            );
            findings.push(Finding::at(path, index, message));
        }
    }
    findings
}

/// Runs of characters that an IP address is made of, and that end where one can end.
fn ip_words(line: &str) -> impl Iterator<Item = &str> {
    let in_word = |c: char| c.is_alphanumeric() || matches!(c, '.' | ':' | '_' | '§');
    line.split(move |c| !in_word(c)).flat_map(|word| {
        let word = word.trim_matches(['.', ':']);
        // 192.0.2.1:25
        let host = word
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':'))
            .map(|(host, _)| host);
        [Some(word), host].into_iter().flatten()
    })
}

fn is_foreign_ip(word: &str) -> bool {
    let digits = word.bytes().any(|b| b.is_ascii_digit());
    match word.parse() {
        Ok(IpAddr::V4(address)) => is_foreign_ipv4(address),
        Ok(IpAddr::V6(address)) => digits && is_foreign_ipv6(address),
        Err(_) => false,
    }
}

fn is_foreign_ipv4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    let section = octets.iter().all(|&octet| octet < 10) && !RESOLVERS.contains(&octets);
    !(section
        || address.is_private()
        || address.is_documentation()
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_broadcast())
}

/// Only 2000::/3 is given to anybody (RFC 4291 §2.4).
fn is_foreign_ipv6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let documentation = (first, second) == (0x2001, 0xdb8);
    let mapped = address.to_ipv4_mapped().is_some_and(is_foreign_ipv4);
    mapped || first >> 13 == 1 && !documentation
}

/// What follows the `@` of something like a mail address, if it has a dot and a top-level domain of letters.
fn mail_domains(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices('@').filter_map(|(at, _)| {
        let local =
            line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || "+-_\"".contains(c));
        let rest = &line[at + 1..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')))
            .unwrap_or(rest.len());
        // Two dots: no domain any more, `a@example.org...`.
        let domain = rest[..end]
            .split("..")
            .next()
            .unwrap_or_default()
            .trim_matches(['.', '-']);
        let (_, top) = domain.rsplit_once('.')?;
        let plausible = top.len() >= 2 && top.bytes().all(|b| b.is_ascii_alphabetic());
        (local && plausible).then_some(domain)
    })
}

fn is_foreign_domain(domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    let below = |parent: &&str| domain == **parent || domain.ends_with(&format!(".{parent}"));
    !RESERVED_TOP
        .iter()
        .chain(RESERVED_DOMAINS)
        .chain(OWN_DOMAINS)
        .any(below)
}

#[cfg(test)]
mod tests {
    use super::foreign_addresses;

    fn found(line: &str) -> usize {
        foreign_addresses("a.rs", line).len()
    }

    // Put together at run time, so that this file passes its own check.
    fn foreign_ip(last: u8) -> String {
        format!("{}.{}.{}.{last}", 80, 81, 82)
    }

    #[test]
    fn what_belongs_to_somebody_is_found() {
        assert_eq!(found(&format!("connect to {}", foreign_ip(7))), 1);
        assert_eq!(found(&format!("\"{}:25\"", foreign_ip(7))), 1);
        assert_eq!(found(&format!("{0}.{0}.{0}.{0}", 8)), 1);
        assert_eq!(found(&format!("{}:{}", "2a00", ":1")), 1);
        assert_eq!(found(&format!("joe@{}.com", "bigmail")), 1);
        assert_eq!(found(&format!("<joe@{}.example.com.org>", "a")), 1);
    }

    #[test]
    fn what_is_reserved_is_fine() {
        for line in [
            "192.0.2.1 198.51.100.0/24 203.0.113.9:25 127.0.0.1:0 0.0.0.0 255.255.255.255 10.0.0.0/8",
            "::1 [2001:db8::25]:24 ::ffff:192.0.2.1 std::net a::b",
            "RFC 5321 §4.5.3.1, 4.5.3.2 version 1.2.3",
            "joe@example.org x+y@a.b.example.com z@spam.example q@mail.test opes@opes.dev",
            "@example.org a@example.org....Sender b@example..org 10.1.2.3 git@ a@b tonic@0.14.9 x @ y.rs",
        ] {
            assert_eq!(foreign_addresses("a.rs", line), Vec::new(), "{line}");
        }
    }
}
