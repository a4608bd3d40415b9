//! Values of header and status fields made harmless: one line, bounded, in the character set that the field may have.

/// Longest value, octets: with name, `: ` and what we add the line stays below the 998 of RFC 5322 §2.1.1.
const VALUE_OCTETS_MAX: usize = 800;

/// Controls, and what Unicode counts as line ends or as nothing to see, as `?`; cut to what a line can have.
pub(crate) fn shown(text: &str) -> String {
    let visible = |c: char| {
        let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
        if breaks { '?' } else { c }
    };
    let text: String = text.chars().map(visible).collect();
    cut(&text, VALUE_OCTETS_MAX).to_owned()
}

/// As [`shown`], in US-ASCII.
pub(crate) fn ascii(text: &str) -> String {
    shown(text)
        .chars()
        .map(|c| if c.is_ascii() { c } else { '?' })
        .collect()
}

/// A host name or address literal that can stand in an address and a `Reporting-MTA` field.
pub(crate) fn host(text: &str) -> String {
    let safe =
        |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let host: String = text.chars().filter(safe).take(255).collect();
    if host.is_empty() {
        "localhost".to_owned()
    } else {
        host
    }
}

/// The left side of a message id (RFC 5322 §3.6.4).
pub(crate) fn id(text: &str) -> String {
    let safe = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let id: String = text.chars().filter(safe).take(64).collect();
    let id = id.trim_matches('.').to_owned();
    if id.is_empty() { "0".to_owned() } else { id }
}

/// An address as it goes between angle brackets in a header field. What could end the brackets is replaced.
pub(crate) fn address(text: &str) -> String {
    shown(text).replace(['<', '>'], "?")
}

/// The longest beginning of at most `octets` octets that ends between two characters.
pub(crate) fn cut(text: &str, octets: usize) -> &str {
    text.get(..text.floor_char_boundary(octets)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_in_its_line_and_in_its_brackets() {
        assert_eq!(shown("a\r\nBcc: b\u{2028}c\0"), "a??Bcc: b?c?");
        assert_eq!(shown(&"é".repeat(1000)).len(), VALUE_OCTETS_MAX);
        assert_eq!(ascii("Jürgen"), "J?rgen");
        assert_eq!(address("a>, <b@example.org"), "a?, ?b@example.org");
        assert_eq!(host("mail.example.com>\r\nX: y"), "mail.example.comX:y");
        assert_eq!(host(""), "localhost");
        assert_eq!(id("..A-1>@"), "A-1");
    }
}
