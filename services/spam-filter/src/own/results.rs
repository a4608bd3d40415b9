//! `Authentication-Results` (RFC 8601): the one we write, and those in our name that we did not.

/// The field.
pub(crate) const NAME: &str = "Authentication-Results";

/// Characters of one value; addresses have 254 (RFC 5321 §4.5.3.1.3).
const VALUE_MAX: usize = 256;

/// What one method found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    method: &'static str,
    result: &'static str,
    reason: &'static str,
    /// `header.d` and its value.
    properties: Vec<(&'static str, String)>,
}

// === impl Finding ===

impl Finding {
    pub(crate) fn new(method: &'static str, result: &'static str, reason: &'static str) -> Self {
        Self {
            method,
            result,
            reason,
            properties: Vec::new(),
        }
    }

    /// Left out if there is nothing to say.
    pub(crate) fn with(mut self, property: &'static str, said: impl Into<String>) -> Self {
        let said = said.into();
        if !said.is_empty() {
            self.properties.push((property, said));
        }
        self
    }
}

/// The value of the field, folded: one line a method.
pub(crate) fn write(authserv_id: &str, findings: &[Finding]) -> String {
    let mut text = authserv_id.to_owned();
    if findings.is_empty() {
        text.push_str("; none");
    }
    for finding in findings {
        text.push_str(&format!(";\r\n\t{}={}", finding.method, finding.result));
        if !finding.reason.is_empty() {
            text.push_str(&format!(" reason=\"{}\"", finding.reason));
        }
        for (property, said) in &finding.properties {
            text.push_str(&format!(" {property}={}", value(said)));
        }
    }
    text
}

/// A token, a mail address, or a quoted string (RFC 8601 §2.2). What strangers said cannot leave it.
fn value(said: &str) -> String {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let said: String = said.chars().take(VALUE_MAX).map(printable).collect();
    // A token is without the specials of RFC 2045 §5.1; a mail address has one of them.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`{|}~@".contains(c);
    let at_most_one_at = said.matches('@').count() <= 1;
    if !said.is_empty() && at_most_one_at && said.chars().all(is_plain) {
        return said;
    }
    let escaped: String = said
        .chars()
        .flat_map(|c| {
            let escape = matches!(c, '"' | '\\').then_some('\\');
            escape.into_iter().chain([c])
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Is this the value of a field that claims to be ours? What cannot be read is, if our name is in it anywhere.
pub(crate) fn claims(field: &[u8], authserv_id: &str) -> bool {
    let same = |said: &str| {
        said.trim_end_matches('.')
            .eq_ignore_ascii_case(authserv_id.trim_end_matches('.'))
    };
    if let Some(said) = named(field) {
        return same(&said);
    }
    let text = String::from_utf8_lossy(field).to_ascii_lowercase();
    text.contains(&authserv_id.to_ascii_lowercase())
}

/// The authserv-id: a token or a quoted string after white space and comments.
fn named(field: &[u8]) -> Option<String> {
    let rest = after_comments(field)?;
    if let [b'"', quoted @ ..] = rest {
        let mut text = Vec::new();
        let mut octets = quoted.iter();
        loop {
            match octets.next()? {
                b'"' => return String::from_utf8(text).ok(),
                b'\\' => text.push(*octets.next()?),
                b'\r' | b'\n' => {}
                octet => text.push(*octet),
            }
        }
    }
    let is_end = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b';' | b'(' | b'/');
    let end = rest.iter().position(is_end).unwrap_or(rest.len());
    let token = rest.get(..end).filter(|token| !token.is_empty())?;
    String::from_utf8(token.to_vec()).ok()
}

/// `None`: a comment that does not end.
fn after_comments(field: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    let mut octets = field.iter();
    loop {
        let rest = octets.as_slice();
        match octets.next() {
            None => return (depth == 0).then_some(rest),
            Some(b'\\') if depth > 0 => {
                let _quoted = octets.next();
            }
            Some(b'(') => depth += 1,
            Some(b')') if depth > 0 => depth -= 1,
            Some(octet) if depth > 0 || octet.is_ascii_whitespace() => {}
            Some(_) => return Some(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_line_a_method() {
        assert_eq!(write("mx.example.com", &[]), "mx.example.com; none");
        let findings = [
            Finding::new("spf", "pass", "").with("smtp.mailfrom", "ann@example.org"),
            Finding::new("dkim", "fail", "the body was changed")
                .with("header.d", "example.org")
                .with("header.b", "ab/=")
                .with("header.s", ""),
        ];
        assert_eq!(
            write("mx.example.com", &findings),
            "mx.example.com;\r\n\tspf=pass smtp.mailfrom=ann@example.org;\r\n\tdkim=fail reason=\"the body was changed\" header.d=example.org header.b=\"ab/=\""
        );
    }

    #[test]
    fn what_strangers_say_stays_a_value() {
        assert_eq!(
            value("a@example.org; dkim=pass"),
            "\"a@example.org; dkim=pass\""
        );
        assert_eq!(value("a\"b\\\r\n@c"), "\"a\\\"b\\\\??@c\"");
        assert_eq!(value("a@b@c"), "\"a@b@c\"");
        assert_eq!(
            value(&"ä".repeat(1000)),
            format!("\"{}\"", "?".repeat(VALUE_MAX))
        );
    }

    #[test]
    fn who_says_it_is_us() {
        for ours in [
            " mx.example.com; spf=pass",
            "mx.example.com",
            "\r\n MX.Example.COM 1; none",
            " (we (the\\) best)) mx.example.com; dkim=pass",
            " \"mx.example.com\"; dkim=pass",
            "mx.example.com.; dkim=pass",
            // Nobody can read these, so somebody might.
            " (unfinished mx.example.com; dkim=pass",
            " ; mx.example.com; dkim=pass",
        ] {
            assert!(claims(ours.as_bytes(), "mx.example.com"), "{ours}");
        }
        for other in [
            " mx.example.net; spf=pass",
            " other.example.com; x=mx.example.com",
            "",
            " mx.example.com.example.net; none",
            " (mx.example.com) mx.example.net; none",
        ] {
            assert!(!claims(other.as_bytes(), "mx.example.com"), "{other}");
        }
    }

    proptest! {
        #[test]
        fn hostile_fields_cannot_panic(field in proptest::collection::vec(any::<u8>(), 0..200), said in ".{0,300}") {
            let _claims = claims(&field, "mx.example.com");
            let written = write("mx.example.com", &[Finding::new("spf", "pass", "").with("smtp.mailfrom", said)]);
            prop_assert!(claims(written.as_bytes(), "mx.example.com"));
            // Nothing but our own fold, and no `;` outside of quotes.
            prop_assert_eq!(written.matches('\n').count(), 1);
        }
    }
}
