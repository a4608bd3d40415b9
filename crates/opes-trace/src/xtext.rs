//! `xtext` of ESMTP parameters (RFC 3461 §4): printable US-ASCII, with `+HH` for `+`, `=` and all else.

/// As it goes behind the `=` of a parameter.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'+' | b'=' => encoded.push_str(&format!("+{octet:02X}")),
            b'!'..=b'~' => encoded.push(char::from(octet)),
            _ => encoded.push_str(&format!("+{octet:02X}")),
        }
    }
    encoded
}

/// None if it is no xtext, or not UTF-8 once decoded.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('+');
    let mut octets = plain(parts.next()?)?.to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let upper = |octet: u8| octet.is_ascii_digit() || (b'A'..=b'F').contains(&octet);
        if !digits.bytes().all(upper) {
            return None;
        }
        octets.push(u8::from_str_radix(digits, 16).ok()?);
        octets.extend_from_slice(plain(rest)?);
    }
    String::from_utf8(octets).ok()
}

fn plain(text: &str) -> Option<&[u8]> {
    let fine = |octet: u8| matches!(octet, b'!'..=b'~') && octet != b'=';
    text.bytes().all(fine).then_some(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_xtext() {
        for text in ["a=b", "a+", "a+3", "a+3d", "a b", "+FF"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("a+3Db+2B").as_deref(), Some("a=b+"));
    }

    proptest! {
        #[test]
        fn round_trip(text in ".{0,40}") {
            let encoded = encode(&text);
            prop_assert!(encoded.bytes().all(|octet| matches!(octet, b'!'..=b'~')));
            prop_assert_eq!(decode(&encoded), Some(text));
        }

        #[test]
        fn never_panics(text in "[+=0-9A-Fg ä]{0,12}") {
            let _ = decode(&text);
        }
    }
}
