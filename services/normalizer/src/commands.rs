//! Commands that no repair is possible for: an address that is too long cannot be made a shorter one.

/// RFC 5321 §4.5.3.1.1 to .3, in octets.
const LOCAL_PART_MAX: usize = 64;
const DOMAIN_MAX: usize = 255;
const PATH_MAX: usize = 254;

/// What is wrong with the address between the angle brackets of a MAIL or RCPT line. A line without brackets is the processor's affair.
pub(crate) fn complaint(line: &[u8]) -> Option<&'static str> {
    let start = line.iter().position(|octet| *octet == b'<')?;
    let end = line.iter().rposition(|octet| *octet == b'>')?;
    let address = line.get(start + 1..end)?;
    if address.iter().any(u8::is_ascii_control) {
        return Some("The address has control characters in it");
    }
    let at = address.iter().rposition(|octet| *octet == b'@');
    let (local, domain) = address.split_at(at.unwrap_or(address.len()));
    let too_long =
        local.len() > LOCAL_PART_MAX || domain.len() > DOMAIN_MAX + 1 || address.len() > PATH_MAX;
    too_long.then_some("The address is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_addresses() {
        let (local, domain) = ("l".repeat(64), format!("{}.example", "d".repeat(181)));
        for (line, wrong) in [
            ("MAIL FROM:<>".to_owned(), false),
            ("RCPT TO:<bob@example.com> NOTIFY=NEVER".to_owned(), false),
            (format!("RCPT TO:<{local}@{domain}>"), false),
            (format!("RCPT TO:<l{local}@example.com>"), true),
            (format!("RCPT TO:<{local}@d{domain}>"), true),
            ("RCPT TO:<bob\x01@example.com>".to_owned(), true),
            ("RCPT TO:<\"bob\x7f\"@example.com>".to_owned(), true),
            ("NOOP".to_owned(), false),
        ] {
            assert_eq!(complaint(line.as_bytes()).is_some(), wrong, "{line:?}");
        }
    }
}
