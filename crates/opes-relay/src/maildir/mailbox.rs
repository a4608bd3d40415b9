//! From an address to the folder of its mailbox, in a way that no address can leave the root or meet another's folder.

use std::path::PathBuf;

use super::deposit::DepositError;

/// Longest name of a folder after escaping, octets; file systems allow 255. Longer addresses are refused, not cut: two of
/// them could meet in one mailbox.
const COMPONENT_OCTETS_MAX: usize = 240;

/// `<domain>/<local part>`, relative. The domain is folded to lower case (RFC 5321 §2.4), the local part is not; quoting that
/// changes nothing (RFC 5321 §4.1.2) is taken away. `postmaster` without a domain is ours.
pub(super) fn mailbox_of(address: &str, own_domain: &str) -> Result<PathBuf, DepositError> {
    let (local_part, domain) = address.rsplit_once('@').unwrap_or((address, own_domain));
    let local_part = unquoted(local_part);
    let domain = domain.to_lowercase();
    let components = safe_component(&domain).zip(safe_component(&local_part));
    let (domain, local_part) =
        components.ok_or_else(|| DepositError::Address(address.to_owned()))?;
    Ok(PathBuf::from(domain).join(local_part))
}

fn unquoted(local_part: &str) -> String {
    let inner = local_part
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return local_part.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

/// The text as one name in a folder: letters, digits and a few signs as they are, every other octet as `%XX`. A leading dot is
/// escaped too, which leaves neither `.`, `..` nor hidden folders. `None`: empty or too long.
pub(super) fn safe_component(text: &str) -> Option<String> {
    let mut safe = String::with_capacity(text.len());
    for (at, octet) in text.bytes().enumerate() {
        let plain = octet.is_ascii_alphanumeric()
            || matches!(octet, b'_' | b'-' | b'+' | b'=')
            || octet == b'.' && at > 0;
        if plain {
            safe.push(char::from(octet));
        } else {
            safe.push('%');
            safe.extend([octet >> 4, octet & 15].map(hex_digit));
        }
    }
    (1..=COMPONENT_OCTETS_MAX)
        .contains(&safe.len())
        .then_some(safe)
}

fn hex_digit(value: u8) -> char {
    char::from_digit(value.into(), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Component, Path};

    #[test]
    fn mailboxes_are_named_after_their_addresses() {
        for (address, path) in [
            ("b@example.com", "example.com/b"),
            ("Jo.Bloggs+x@EXAMPLE.com", "example.com/Jo.Bloggs+x"),
            ("postmaster", "mx.example.org/postmaster"),
            ("\"b\"@example.com", "example.com/b"),
            ("\"a b\\\"c\"@example.com", "example.com/a%20b%22c"),
            ("b@[192.0.2.1]", "%5B192.0.2.1%5D/b"),
            ("ü@example.com", "example.com/%C3%BC"),
            ("a%2Fb@example.com", "example.com/a%252Fb"),
        ] {
            let mailbox = mailbox_of(address, "mx.example.org").expect("a mailbox");
            assert_eq!(mailbox, Path::new(path), "{address}");
        }
    }

    #[test]
    fn no_address_leaves_the_root() {
        for address in [
            "../../etc/passwd@example.com",
            "..@..",
            ".@.",
            "\"../..\"@example.com",
            "a@../../etc",
            "a@/etc",
            "/etc/passwd@example.com",
            "a\0b@example.com",
            "\"\\../x\"@example.com",
        ] {
            let mailbox = mailbox_of(address, "mx.example.org").expect("a mailbox");
            let components: Vec<_> = mailbox.components().collect();
            assert_eq!(components.len(), 2, "{address}");
            assert!(
                components.iter().all(|c| matches!(c, Component::Normal(_))),
                "{address}"
            );
            assert!(!mailbox.to_string_lossy().contains('\0'));
        }
    }

    #[test]
    fn addresses_without_a_possible_mailbox_are_refused() {
        let long = format!("{}@example.com", "a".repeat(241));
        for address in ["", "@example.com", "\"\"@example.com", "a@", &long] {
            assert!(mailbox_of(address, "mx.example.org").is_err(), "{address}");
        }
    }
}
