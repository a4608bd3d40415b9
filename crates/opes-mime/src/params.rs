//! Structured values with parameters: Content-Type and Content-Disposition (RFC 2045 §5.1, RFC 2183, RFC 2231).
//!
//! Owns one tolerant parser. Where readers differ it keeps every reading of a name. Never fails; oddities are a flag.

use crate::words;

/// Most parameters looked at in one value.
const PARAMETERS_MAX: usize = 100;
/// Deepest nesting of comments; deeper ones end at the first parenthesis.
const COMMENT_DEPTH_MAX: usize = 16;

/// `value; name=value; …`
#[derive(Debug, Default)]
pub(crate) struct Parameterized {
    /// Before the first semicolon, lower case, without white space and comments.
    pub(crate) value: String,
    params: Vec<Param>,
    /// Repeated parameters, or octets that belong to nothing.
    pub(crate) odd: bool,
}

#[derive(Debug)]
struct Param {
    /// Lower case, with the RFC 2231 suffix.
    name: String,
    value: Vec<u8>,
    quoted: bool,
    /// What stands between a quoted string and the next semicolon.
    tail: Vec<u8>,
}

impl Parameterized {
    pub(crate) fn parse(field_value: &[u8]) -> Self {
        let mut cursor = Cursor { rest: field_value };
        let value = cursor.token(b";");
        let mut parsed = Self {
            value: lower(&value),
            ..Self::default()
        };
        while cursor.rest.first() == Some(&b';') {
            cursor.advance(1);
            match cursor.param() {
                Some(param) if parsed.params.len() < PARAMETERS_MAX => parsed.add(param),
                Some(_) => parsed.odd = true,
                None => parsed.odd |= cursor.leftover(),
            }
        }
        parsed
    }

    fn add(&mut self, param: Param) {
        self.odd |=
            !param.tail.is_empty() || self.params.iter().any(|known| known.name == param.name);
        self.params.push(param);
    }

    /// The first `name` as octets; an unquoted one ends at white space or a comment.
    pub(crate) fn octets(&self, name: &str) -> Option<Vec<u8>> {
        match self.params.iter().find(|param| param.name == name) {
            Some(param) if param.quoted => Some(param.value.clone()),
            Some(param) => Some(bare_token(&param.value).to_vec()),
            None => self.extended(name),
        }
    }

    /// Every reading of the text parameter `name`, the most standard one first.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        let mut readings = Vec::new();
        if let Some(octets) = self.extended(name) {
            readings.push(self.extended_text(name, &octets));
        }
        for param in self.params.iter().filter(|param| param.name == name) {
            readings.push(words::decode_words(&param.value));
            if !param.tail.is_empty() {
                readings.push(words::decode_words(
                    &[param.value.as_slice(), &param.tail].concat(),
                ));
            }
            if !param.quoted {
                readings.push(words::decode_words(bare_token(&param.value)));
            }
        }
        readings
    }

    /// RFC 2231 §3: `name*`, or `name*0`, `name*1*`, … put together, percent-decoded where marked.
    fn extended(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(param) = self.find_suffixed(name, "*") {
            return Some(crate::decode::percent_like(
                after_charset(&param.value),
                b'%',
            ));
        }
        let mut octets = Vec::new();
        let mut index = 0usize;
        loop {
            if let Some(param) = self.find_suffixed(name, &format!("*{index}*")) {
                let text = if index == 0 {
                    after_charset(&param.value)
                } else {
                    &param.value
                };
                octets.extend(crate::decode::percent_like(text, b'%'));
            } else if let Some(param) = self.find_suffixed(name, &format!("*{index}")) {
                octets.extend_from_slice(&param.value);
            } else {
                return (index > 0).then_some(octets);
            }
            index += 1;
        }
    }

    fn extended_text(&self, name: &str, octets: &[u8]) -> String {
        let marked = self
            .find_suffixed(name, "*")
            .or_else(|| self.find_suffixed(name, "*0*"));
        match marked {
            Some(param) => {
                let charset = param
                    .value
                    .split(|c| *c == b'\'')
                    .next()
                    .unwrap_or_default();
                words::decode_charset(&String::from_utf8_lossy(charset), octets)
            }
            None => words::decode_words(octets),
        }
    }

    fn find_suffixed(&self, name: &str, suffix: &str) -> Option<&Param> {
        self.params
            .iter()
            .find(|param| param.name.strip_prefix(name) == Some(suffix))
    }
}

/// `charset'language'text`: the text; all of it if the quotes are missing.
fn after_charset(value: &[u8]) -> &[u8] {
    value.splitn(3, |c| *c == b'\'').nth(2).unwrap_or(value)
}

/// Up to white space or a comment.
fn bare_token(value: &[u8]) -> &[u8] {
    value
        .split(|c| c.is_ascii_whitespace() || *c == b'(')
        .next()
        .unwrap_or_default()
}

fn lower(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).to_ascii_lowercase()
}

struct Cursor<'v> {
    rest: &'v [u8],
}

impl Cursor<'_> {
    fn advance(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// White space and comments.
    fn skip_space(&mut self) {
        loop {
            match self.rest.first() {
                Some(octet) if octet.is_ascii_whitespace() => self.advance(1),
                Some(b'(') => self.skip_comment(),
                _ => return,
            }
        }
    }

    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        while let Some(octet) = self.take() {
            match octet {
                b'(' if depth < COMMENT_DEPTH_MAX => depth += 1,
                b')' if depth <= 1 => return,
                b')' => depth -= 1,
                b'\\' => self.advance(1),
                _ => {}
            }
        }
    }

    /// Octets up to one of `ends`, white space and comments left out.
    fn token(&mut self, ends: &[u8]) -> Vec<u8> {
        let mut token = Vec::new();
        loop {
            self.skip_space();
            match self.rest.first() {
                Some(octet) if !ends.contains(octet) => token.push(*octet),
                _ => return token,
            }
            self.advance(1);
        }
    }

    /// `name=value`, up to the next semicolon. `None`: no name or no equals sign.
    fn param(&mut self) -> Option<Param> {
        let name = self.token(b"=;");
        if self.rest.first() != Some(&b'=') || name.is_empty() {
            return None;
        }
        self.advance(1);
        self.skip_space();
        let (value, quoted) = match self.rest.first() {
            Some(b'"') => (self.quoted_string(), true),
            _ => (self.unquoted(), false),
        };
        let tail = if quoted { self.unquoted() } else { Vec::new() };
        Some(Param {
            name: lower(&name),
            value,
            quoted,
            tail,
        })
    }

    /// RFC 5322 §3.2.4; one that does not end, ends with the field.
    fn quoted_string(&mut self) -> Vec<u8> {
        self.advance(1);
        let mut value = Vec::new();
        while let Some(octet) = self.take() {
            match octet {
                b'"' => return value,
                b'\\' => value.extend(self.take()),
                b'\r' | b'\n' => {}
                _ => value.push(octet),
            }
        }
        value
    }

    /// Up to the semicolon, unfolded and trimmed: names with blanks and parentheses are often sent without quotes.
    fn unquoted(&mut self) -> Vec<u8> {
        let end = memchr::memchr(b';', self.rest).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        value
            .trim_ascii()
            .iter()
            .copied()
            .filter(|c| !matches!(c, b'\r' | b'\n'))
            .collect()
    }

    /// Moves to the next semicolon; was there anything but white space?
    fn leftover(&mut self) -> bool {
        !self.unquoted().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(value: &str) -> String {
        Parameterized::parse(value.as_bytes())
            .texts("filename")
            .into_iter()
            .next()
            .unwrap_or_default()
    }

    #[test]
    fn names_in_all_spellings() {
        for (value, expected) in [
            ("attachment; filename=a.exe", "a.exe"),
            ("attachment; FileName = \"a \\\"b\\\".exe\"", "a \"b\".exe"),
            (
                "attachment (c;omment); filename=Report (1).pdf ; x=y",
                "Report (1).pdf",
            ),
            ("attachment; filename*=utf-8'de'%C3%BCbel.exe", "übel.exe"),
            ("attachment; filename*=iso-8859-1''%FCbel.exe", "übel.exe"),
            (
                "attachment; filename*0=\"inv\"; filename*1=\"oice.exe\"",
                "invoice.exe",
            ),
            (
                "attachment; filename*1*=%2Eexe; filename*0*=utf-8''inv%20oice",
                "inv oice.exe",
            ),
            (
                "attachment; filename=\"=?utf-8?B?w7xiZWwuZXhl?=\"",
                "übel.exe",
            ),
            (
                "attachment; filename=\"folded\r\n name.txt\"",
                "folded name.txt",
            ),
            ("attachment; filename=\"open", "open"),
            ("attachment; filename", ""),
        ] {
            assert_eq!(name(value), expected, "{value}");
        }
    }

    #[test]
    fn every_reading_is_kept() {
        let parsed = Parameterized::parse(b"attachment; filename=\"a.pdf\".exe; filename=b.exe");
        assert_eq!(
            parsed.texts("filename"),
            ["a.pdf", "a.pdf.exe", "b.exe", "b.exe"]
        );
        assert!(parsed.odd);
        assert!(!Parameterized::parse(b"text/plain; charset=utf-8; format=flowed;").odd);
    }

    #[test]
    fn boundaries() {
        let boundary = |value: &str| Parameterized::parse(value.as_bytes()).octets("boundary");
        assert_eq!(
            boundary("multipart/mixed; boundary=\"a b;c\""),
            Some(b"a b;c".to_vec())
        );
        assert_eq!(
            boundary("multipart/mixed;\r\n\tboundary=abc (x)"),
            Some(b"abc".to_vec())
        );
        assert_eq!(
            boundary("multipart/mixed; boundary*0=a; boundary*1=b"),
            Some(b"ab".to_vec())
        );
        assert_eq!(boundary("multipart/mixed"), None);
        assert_eq!(
            Parameterized::parse(b" Text / (x) HTML ; a=b").value,
            "text/html"
        );
    }

    proptest! {
        #[test]
        fn never_panics(value in "[a-c;=*0-1'\"\\\\() \r\n%?]{0,60}", octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            for value in [value.as_bytes(), &octets] {
                let parsed = Parameterized::parse(value);
                parsed.texts("a");
                parsed.octets("a");
            }
        }
    }
}
