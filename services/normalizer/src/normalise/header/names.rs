//! Names of MIME sections that no file should have: with a path, control characters, blanks and dots at an end, or very long.

/// Octets of a name between its quotes that are kept; file systems have 255.
const NAME_OCTETS_MAX: usize = 200;
/// Of them, those of the end: the extension stays.
const END_OCTETS: usize = 20;
/// In place of an octet that should not be there: what stood where can still be seen.
const INSTEAD: u8 = b'_';

/// A field value with its `name` and `filename` parameters made usual; `None`: they are, or cannot be read with certainty.
pub(super) fn value(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    let mut first = true;
    loop {
        let end = parameter_end(rest)?;
        let (part, behind) = rest.split_at(end);
        if first {
            out.extend_from_slice(part);
        } else {
            out.extend_from_slice(&parameter(part));
        }
        first = false;
        let Some((semicolon, behind)) = behind.split_first() else {
            break;
        };
        out.push(*semicolon);
        rest = behind;
    }
    (out != value).then_some(out)
}

/// Up to the next semicolon outside of quotes; `None` if a quote does not end.
fn parameter_end(text: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in text.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// ` filename="…"`, as it was or with another value.
fn parameter(text: &[u8]) -> Vec<u8> {
    let Some(equals) = text.iter().position(|octet| *octet == b'=') else {
        return text.to_vec();
    };
    let (attribute, value) = text.split_at(equals + 1);
    let attribute_name = text.get(..equals).unwrap_or_default();
    let attribute_name = attribute_name.trim_ascii().to_ascii_lowercase();
    let extended = attribute_name.ends_with(b"*");
    let base = attribute_name.split(|octet| *octet == b'*').next();
    let is_name = matches!(base, Some(b"name" | b"filename"));
    // Encoded words are no names yet; a name in pieces has no end that could be looked at.
    let is_encoded_word = value.windows(2).any(|two| two == b"=?");
    let in_pieces = attribute_name.iter().any(u8::is_ascii_digit);
    if !is_name || is_encoded_word || in_pieces {
        return text.to_vec();
    }
    let new = if extended {
        percent(value)
    } else {
        plain(value)
    };
    [attribute, &new].concat()
}

/// `"a/b.txt"` or a token.
fn plain(value: &[u8]) -> Vec<u8> {
    let name = value.trim_ascii();
    let (before, rest) = value.split_at(value.len() - value.trim_ascii_start().len());
    let behind = rest.get(name.len()..).unwrap_or_default();
    let inner = name
        .strip_prefix(b"\"")
        .and_then(|name| name.strip_suffix(b"\""));
    let new = match inner {
        Some(inner) => [b"\"", usual(inner).as_slice(), b"\""].concat(),
        None => usual(name),
    };
    [before, &new, behind].concat()
}

fn usual(name: &[u8]) -> Vec<u8> {
    let mut new = Vec::with_capacity(name.len());
    let mut octets = name.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        match octet {
            b'\\' => {
                // A quoted quote is the only use of a backslash that is none of a path.
                if octets.next_if_eq(&b'"').is_some() {
                    new.extend_from_slice(b"\\\"");
                } else {
                    octets.next_if_eq(&b'\\');
                    new.push(INSTEAD);
                }
            }
            b'/' | b':' => new.push(INSTEAD),
            octet if octet.is_ascii_control() && !matches!(octet, b'\r' | b'\n' | b'\t') => {
                new.push(INSTEAD);
            }
            octet => new.push(octet),
        }
    }
    ends(&mut new);
    if new.len() > NAME_OCTETS_MAX && !new.contains(&b'\\') {
        let end = new.split_off(new.len() - END_OCTETS);
        new.truncate(NAME_OCTETS_MAX - END_OCTETS);
        new.extend(end);
    }
    new
}

/// Blanks and dots: hidden files, and ends that some systems drop so that another name is left.
fn ends(name: &mut [u8]) {
    let odd = |octet: &&mut u8| matches!(**octet, b'.' | b' ');
    name.iter_mut()
        .take_while(odd)
        .for_each(|octet| *octet = INSTEAD);
    name.iter_mut()
        .rev()
        .take_while(odd)
        .for_each(|octet| *octet = INSTEAD);
}

/// `UTF-8''a%2Fb.txt` (RFC 2231 §4).
fn percent(value: &[u8]) -> Vec<u8> {
    let mut new = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((octet, behind)) = rest.split_first() {
        let code = (*octet == b'%').then(|| behind.get(..2)).flatten();
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (code, octet) {
            (Some(code), _) if code.is_ascii_control() || matches!(code, b'/' | b'\\' | b':') => {
                new.push(INSTEAD);
                rest = behind.get(2..).unwrap_or_default();
            }
            (None, b'/' | b'\\' | b':') => {
                new.push(INSTEAD);
                rest = behind;
            }
            _ => {
                new.push(*octet);
                rest = behind;
            }
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> String {
        let new = value(text.as_bytes());
        String::from_utf8(new.unwrap_or_else(|| text.into())).unwrap()
    }

    #[test]
    fn unusual_names_become_usual_and_usual_ones_stay() {
        let long = "a".repeat(300);
        for (before, after) in [
            (
                r#"attachment; filename="a.txt""#.to_owned(),
                r#"attachment; filename="a.txt""#.to_owned(),
            ),
            (
                r#"attachment; filename="../../etc/passwd""#.into(),
                r#"attachment; filename="___.._etc_passwd""#.into(),
            ),
            (
                r#"attachment; filename="C:\dir\x.exe""#.into(),
                r#"attachment; filename="C__dir_x.exe""#.into(),
            ),
            (
                r#"attachment; filename="a\"b.txt"; size=3"#.into(),
                r#"attachment; filename="a\"b.txt"; size=3"#.into(),
            ),
            (
                "text/plain; name=a.exe..; charset=utf-8".into(),
                "text/plain; name=a.exe__; charset=utf-8".into(),
            ),
            (
                "attachment; filename*=UTF-8''a%2Fb%00%E2%82%AC".into(),
                "attachment; filename*=UTF-8''a_b_%E2%82%AC".into(),
            ),
            (
                format!(r#"attachment; filename="{long}.exe""#),
                format!(r#"attachment; filename="{}.exe""#, "a".repeat(196)),
            ),
            // Not names, not certain, or not to be read yet.
            (
                r#"multipart/mixed; boundary="a/b""#.into(),
                r#"multipart/mixed; boundary="a/b""#.into(),
            ),
            (
                r#"attachment; filename="a/b"#.into(),
                r#"attachment; filename="a/b"#.into(),
            ),
            (
                r#"attachment; filename="=?utf-8?B?Zm9v/w==?=""#.into(),
                r#"attachment; filename="=?utf-8?B?Zm9v/w==?=""#.into(),
            ),
        ] {
            assert_eq!(of(&before), after);
        }
    }

    proptest! {
        #[test]
        fn any_octets_become_usual_once(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = [&b"a; filename="[..], &octets].concat();
            if let Some(new) = value(&text) {
                prop_assert_eq!(value(&new), None);
            }
        }
    }
}
