//! DNS lists (RFC 5782): is the client's address in them?

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::dns::{Dns, NoAnswer};
use crate::config::own::{DnsblConfig, is_error};

/// What no list may list (RFC 5782 §5): one that does lists the world, as lists that have ended do.
const NEVER_LISTED: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What a list says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Listing {
    /// Not listed, or for a reason that has no weight.
    No,
    /// Listed, with its weight.
    Yes(f64),
    /// No answer, or one that is not to be believed.
    Failed,
}

/// Of each list, in their order.
pub(crate) async fn check(
    dns: &Dns,
    lists: &[DnsblConfig],
    client: IpAddr,
    until: Instant,
) -> Vec<Listing> {
    let each = lists.iter().map(|list| async move {
        let asked = dns.check(until, one(dns, list, client)).await;
        asked.unwrap_or(Listing::Failed)
    });
    join_all(each).await
}

async fn one(dns: &Dns, list: &DnsblConfig, client: IpAddr) -> Listing {
    let Ok(codes) = dns.addresses(&name(client, &list.zone)).await else {
        return Listing::Failed;
    };
    let listing = judge(list, &codes);
    if !matches!(listing, Listing::Yes(_)) {
        return listing;
    }
    let never = match client {
        IpAddr::V4(_) => NEVER_LISTED.into(),
        IpAddr::V6(_) => IpAddr::V6(NEVER_LISTED.to_ipv6_mapped()),
    };
    match dns.addresses(&name(never, &list.zone)).await {
        Ok(codes) if codes.is_empty() => listing,
        Ok(_) => {
            tracing::warn!(
                zone = list.zone,
                "the DNS list lists 127.0.0.1, so it lists everybody: take it out"
            );
            Listing::Failed
        }
        Err(NoAnswer) => Listing::Failed,
    }
}

/// `codes`: the A records; none: not listed.
fn judge(list: &DnsblConfig, codes: &[Ipv4Addr]) -> Listing {
    let strange = |code: &Ipv4Addr| !code.is_loopback() || is_error(*code);
    if codes.iter().any(strange) {
        tracing::warn!(
            zone = list.zone,
            ?codes,
            "the DNS list does not answer us: its policy, or the resolver's"
        );
        return Listing::Failed;
    }
    let weights = codes.iter().filter_map(|code| list.weight_of(*code));
    weights
        .max_by(f64::total_cmp)
        .map_or(Listing::No, Listing::Yes)
}

/// Octets or nibbles backwards before the zone (RFC 5782 §2.1, §2.4).
fn name(address: IpAddr, zone: &str) -> String {
    let mut name = String::new();
    match address {
        IpAddr::V4(address) => {
            for octet in address.octets().iter().rev() {
                let _infallible = write!(name, "{octet}.");
            }
        }
        IpAddr::V6(address) => {
            for octet in address.octets().iter().rev() {
                let _infallible = write!(name, "{:x}.{:x}.", octet & 0xf, octet >> 4);
            }
        }
    }
    name.push_str(zone.trim_end_matches('.'));
    name.push('.');
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(codes: &[(Ipv4Addr, f64)]) -> DnsblConfig {
        DnsblConfig {
            zone: "l.example.net".into(),
            name: String::new(),
            weight: 4.0,
            codes: codes.iter().copied().collect(),
        }
    }

    #[test]
    fn names_as_the_rfc_has_them() {
        assert_eq!(
            name([192, 0, 2, 99].into(), "bad.example.net."),
            "99.2.0.192.bad.example.net."
        );
        let address = "2001:db8:1:2:3:4:567:89ab".parse().unwrap();
        assert_eq!(
            name(address, "ugly.example.net"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.net."
        );
        let mapped = IpAddr::V6(NEVER_LISTED.to_ipv6_mapped());
        assert!(name(mapped, "l.example.net").starts_with("1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0."));
    }

    #[test]
    fn codes_and_what_is_no_code() {
        let code = |last| Ipv4Addr::new(127, 0, 0, last);
        let plain = list(&[]);
        assert_eq!(judge(&plain, &[]), Listing::No);
        assert_eq!(judge(&plain, &[code(2)]), Listing::Yes(4.0));
        for odd in [[127, 255, 255, 254], [192, 0, 2, 1]] {
            assert_eq!(judge(&plain, &[code(2), odd.into()]), Listing::Failed);
        }
        let coded = list(&[(code(2), 2.0), (code(4), 6.0)]);
        assert_eq!(judge(&coded, &[code(2), code(4)]), Listing::Yes(6.0));
        assert_eq!(judge(&coded, &[code(9)]), Listing::No);
    }
}
