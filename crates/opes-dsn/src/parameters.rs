//! What the DSN parameters of MAIL and RCPT ask for (RFC 3461 §4), and their encodings.

use crate::field;

/// When the sender wants to hear of a recipient (RFC 3461 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notify {
    /// It was delivered, or handed to somebody who will not tell.
    pub success: bool,
    /// It will never be delivered. Also without the parameter.
    pub failure: bool,
}

/// NOTIFY of a recipient. What is not a value of RFC 3461 was never checked by a dialog of ours, and counts as absent.
pub fn notify(params: &[String]) -> Notify {
    let absent = Notify {
        success: false,
        failure: true,
    };
    let Some(value) = value(params, "NOTIFY") else {
        return absent;
    };
    let mut wanted = Notify {
        success: false,
        failure: false,
    };
    if value.eq_ignore_ascii_case("NEVER") {
        return wanted;
    }
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => wanted.success = true,
            "FAILURE" => wanted.failure = true,
            "DELAY" => {}
            _ => return absent,
        }
    }
    wanted
}

/// RET=FULL in the parameters of MAIL (RFC 3461 §4.3). Without RET the choice is ours: the header section says which message it was.
pub fn wants_content(params: &[String]) -> bool {
    value(params, "RET").is_some_and(|value| value.eq_ignore_ascii_case("FULL"))
}

/// ENVID in the parameters of MAIL, decoded (RFC 3461 §4.4).
pub(crate) fn envelope_id(params: &[String]) -> Option<String> {
    let value = value(params, "ENVID")?;
    Some(field::ascii(&xtext(value)))
}

/// ORCPT in the parameters of RCPT as type and address, decoded (RFC 3461 §4.2, RFC 6533 §3).
pub(crate) fn original_recipient(params: &[String]) -> Option<(String, String)> {
    let (kind, address) = value(params, "ORCPT")?.split_once(';')?;
    let is_atom = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if kind.is_empty() || kind.len() > 64 || !kind.chars().all(is_atom) {
        return None;
    }
    let address = if kind.eq_ignore_ascii_case("utf-8") {
        unicode(&xtext(address))
    } else {
        xtext(address)
    };
    Some((kind.to_owned(), field::shown(&address)))
}

/// utf-8-addr-xtext (RFC 6533 §3): `\x{HEX}` for what is not printable ASCII, and for `\`, `+` and `=`.
pub(crate) fn addr_xtext(address: &str) -> String {
    let mut text = String::with_capacity(address.len());
    for c in address.chars() {
        match c {
            '\\' | '+' | '=' => text.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
            '!'..='~' => text.push(c),
            c => text.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
        }
    }
    text
}

fn value<'a>(params: &'a [String], keyword: &str) -> Option<&'a str> {
    params.iter().find_map(|param| {
        let (name, value) = param.split_once('=')?;
        name.eq_ignore_ascii_case(keyword).then_some(value)
    })
}

/// xtext decoded; a `+` that starts no escape stays.
fn xtext(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        let escaped = tail
            .get(..2)
            .filter(|_| octet == b'+')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        octets.push(escaped.unwrap_or(octet));
        rest = escaped.and_then(|_| tail.get(2..)).unwrap_or(tail);
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// `\x{HEX}` decoded; what is no character stays.
fn unicode(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once("\\x{") {
        decoded.push_str(before);
        let character = escape.split_once('}').and_then(|(digits, after)| {
            let number = u32::from_str_radix(digits, 16).ok()?;
            Some((char::from_u32(number)?, after))
        });
        if let Some((character, after)) = character {
            decoded.push(character);
            rest = after;
        } else {
            decoded.push_str("\\x{");
            rest = escape;
        }
    }
    decoded.push_str(rest);
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn notify_is_failure_unless_said_otherwise() {
        for (text, success, failure) in [
            ("NOTIFY=NEVER", false, false),
            ("notify=never", false, false),
            ("NOTIFY=FAILURE,DELAY", false, true),
            ("NOTIFY=success", true, false),
            ("NOTIFY=SUCCESS,FAILURE", true, true),
            ("NOTIFY=DELAY", false, false),
            ("NOTIFY=sometimes", false, true),
            ("ORCPT=rfc822;a@example.org", false, true),
        ] {
            let expected = Notify { success, failure };
            assert_eq!(notify(&params(&[text])), expected, "{text}");
        }
    }

    #[test]
    fn xtext_and_types_of_original_recipients() {
        let original = |text| original_recipient(&params(&[text]));
        let pair = |kind: &str, address: &str| Some((kind.to_owned(), address.to_owned()));
        assert_eq!(
            original("ORCPT=rfc822;a+2Bb@example.org"),
            pair("rfc822", "a+b@example.org")
        );
        assert_eq!(
            original("orcpt=utf-8;\\x{E4}@example.org"),
            pair("utf-8", "ä@example.org")
        );
        assert_eq!(
            original("ORCPT=rfc822;a+0D+0AX:y"),
            pair("rfc822", "a??X:y")
        );
        assert_eq!(original("ORCPT=a b;c"), None);
        assert_eq!(
            envelope_id(&params(&["ENVID=QQ+3D+"])),
            Some("QQ=+".to_owned())
        );
        assert!(wants_content(&params(&["RET=full"])) && !wants_content(&params(&["RET=HDRS"])));
    }

    proptest! {
        #[test]
        fn an_address_survives_its_7_bit_form(address in "\\PC{0,40}") {
            let encoded = addr_xtext(&address);
            prop_assert!(encoded.bytes().all(|octet| octet.is_ascii_graphic()));
            prop_assert_eq!(unicode(&encoded), address);
        }
    }
}
