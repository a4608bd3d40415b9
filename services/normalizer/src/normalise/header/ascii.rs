//! A field's value in US-ASCII. What has no such form, as an address with raw octets in it, stays as it is.

use opes_mime::words::{decode_charset, encode_words};

/// Fields with addresses in them: only names and comments may be encoded (RFC 2047 §5).
const ADDRESSES: [&str; 9] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "resent-from",
    "resent-to",
    "disposition-notification-to",
];

pub(super) fn value(name: &[u8], value: &[u8]) -> Vec<u8> {
    let is = |wanted: &&str| name.eq_ignore_ascii_case(wanted.as_bytes());
    let text = text_of(value);
    if ADDRESSES.iter().any(is) {
        return phrases(&text).into_bytes();
    }
    let is_mime = name
        .get(..8)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
    if is_mime && !name.eq_ignore_ascii_case(b"content-description") {
        return parameters(&text).into_bytes();
    }
    let lead: String = text
        .chars()
        .take_while(|c| *c == ' ' || *c == '\t')
        .collect();
    format!("{lead}{}", folded(text.trim())).into_bytes()
}

/// UTF-8, or what it is most often if it is not.
fn text_of(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => decode_charset("windows-1252", value),
    }
}

/// Unfolded, encoded, and folded between the encoded words.
fn folded(text: &str) -> String {
    let unfolded = text.replace("\r\n", "");
    encode_words(&unfolded).replace(' ', "\r\n ")
}

/// Runs of words that are not US-ASCII, and quoted strings that are not, become encoded words.
fn phrases(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (token, tail) = match c {
            '"' => rest.split_at(quoted_end(rest)),
            '<' => rest.split_at(rest.find('>').map_or(rest.len(), |end| end + 1)),
            ',' | ';' | ':' | '(' | ')' => rest.split_at(1),
            _ => rest.split_at(
                rest.find(['"', '<', ',', ';', ':', '(', ')'])
                    .unwrap_or(rest.len()),
            ),
        };
        match (c, token.is_ascii()) {
            ('<', _) | (_, true) => out.push_str(token),
            ('"', false) => out.push_str(&folded(&unquoted(token))),
            (_, false) => out.push_str(&words(token)),
        }
        rest = tail;
    }
    out
}

/// The words from the first to the last that is not US-ASCII together, as the space between two encoded words is not seen.
fn words(token: &str) -> String {
    let is_raw = |word: &&str| !word.is_ascii();
    // An address without angle brackets has no encoded form.
    if token.contains('@') {
        return token.to_owned();
    }
    let (Some(first), Some(last)) = (
        token.split_whitespace().find(is_raw),
        token.split_whitespace().rfind(is_raw),
    ) else {
        return token.to_owned();
    };
    let (Some(from), Some(to)) = (
        token.find(first),
        token.rfind(last).map(|at| at + last.len()),
    ) else {
        return token.to_owned();
    };
    let parts = token
        .get(..from)
        .zip(token.get(from..to))
        .zip(token.get(to..));
    match parts {
        Some(((before, raw), behind)) => format!("{before}{}{behind}", folded(raw)),
        None => token.to_owned(),
    }
}

/// Just behind the closing quote.
fn quoted_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn unquoted(quoted: &str) -> String {
    let inner = quoted.trim_matches('"');
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// `name="raw"` becomes `name*=UTF-8''…` (RFC 2231 §4).
fn parameters(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (key, tail) = rest.split_at(equals + 1);
        let end = match tail.chars().next() {
            Some('"') => quoted_end(tail),
            _ => tail.find([';', ' ', '\t', '\r']).unwrap_or(tail.len()),
        };
        let (value, behind) = tail.split_at(end);
        if value.is_ascii() || key.ends_with("*=") {
            out.push_str(key);
            out.push_str(value);
        } else {
            out.push_str(key.trim_end_matches('='));
            out.push_str("*=UTF-8''");
            out.push_str(&percent(&unquoted(value)));
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// RFC 2231 §7, `attribute-char`.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for octet in text.bytes() {
        match octet {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(octet));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, text: &str) -> String {
        String::from_utf8(value(name.as_bytes(), text.as_bytes())).unwrap()
    }

    #[test]
    fn each_kind_of_field() {
        let encoded = |text: &str| encode_words(text);
        assert_eq!(said("Subject", " Grüße"), format!(" {}", encoded("Grüße")));
        assert_eq!(
            said(
                "From",
                " \"Jörg \\\"J\\\" Müller\" <j@example.org>, Ann <a@example.org>"
            ),
            format!(
                " {} <j@example.org>, Ann <a@example.org>",
                encoded("Jörg \"J\" Müller")
            )
        );
        assert_eq!(
            said("To", " Herr Jörg von Müller Sr <j@example.org>"),
            format!(" Herr {} Sr <j@example.org>", encoded("Jörg von Müller"))
        );
        assert_eq!(said("To", " jörg@example.org"), " jörg@example.org");
        assert_eq!(
            said(
                "Content-Disposition",
                " attachment; filename=\"Größe 1.pdf\"; size=5"
            ),
            " attachment; filename*=UTF-8''Gr%C3%B6%C3%9Fe%201.pdf; size=5"
        );
    }

    #[test]
    fn what_is_no_utf_8_is_taken_for_latin() {
        let text = String::from_utf8(value(b"Subject", b" caf\xe9")).unwrap();
        assert_eq!(text, format!(" {}", encode_words("café")));
    }
}
