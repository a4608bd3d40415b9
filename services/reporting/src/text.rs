//! Texts from outside on their way into a database.

/// `text` without control characters (PostgreSQL has no NUL), at most `max` octets of it.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(max));
    for c in text.chars().filter(|c| !c.is_control()) {
        if cleaned.len() + c.len_utf8() > max {
            break;
        }
        cleaned.push(c);
    }
    cleaned
}

/// Two digits an octet.
pub(crate) fn hexadecimal(octets: &[u8]) -> String {
    let mut text = String::with_capacity(2 * octets.len());
    for octet in octets {
        text.push_str(&format!("{octet:02x}"));
    }
    text
}

/// Databases have no unsigned numbers.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn clean_texts_are_short_and_printable(text in any::<String>(), max in 0..50_usize) {
            let cleaned = clean(&text, max);
            prop_assert!(cleaned.len() <= max);
            prop_assert!(!cleaned.chars().any(char::is_control));
        }
    }
}
