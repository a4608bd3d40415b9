//! Octets that no server on the way has a reason to change: what is signed is 7bit (RFC 3156 §3, RFC 8551 §3.1.3).
//!
//! Leaves of the MIME tree that are not, become base64; everything else stays to the octet.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opes_mime::{Part, Rope, Splice};

/// RFC 5322 §2.1.1, octets without the line end.
const LINE_OCTETS_MAX: usize = 998;
/// RFC 2045 §6.8: 76 characters a line.
const BASE64_LINE_OCTETS: usize = 57;

/// The entity as it can be signed; `None` if it can as it is. What cannot be helped, such as a header field in UTF-8, stays.
pub(crate) fn seven_bit(entity: &[u8]) -> Option<Vec<u8>> {
    if is_safe(entity) {
        return None;
    }
    let structure = opes_mime::scan(entity);
    if structure.truncated.is_some() {
        return None;
    }
    let mut splices = Vec::new();
    for part in &structure.parts {
        let body = part.body(entity);
        if !part.encoding.is_identity() {
            continue;
        }
        if part.is_container() {
            // 8bit of what is inside now (RFC 2045 §6.4).
            if declared(part, entity).is_some() {
                splices.extend(encoding(part, entity, "7bit"));
            }
        } else if !is_safe(body) {
            splices.extend(encoding(part, entity, "base64"));
            splices.push(Splice {
                offset: part.body_start,
                size: part.body_len(),
                replacement: lines(body).into(),
            });
        }
    }
    splices.sort_by_key(|splice| splice.offset);
    let rope = Rope::identity(entity.len() as u64).splice_all(splices);
    rope.ok().map(|rope| rope.flatten(entity))
}

fn is_safe(octets: &[u8]) -> bool {
    let lines = octets.split(|octet| *octet == b'\n');
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let ended = lines.peek().is_some();
        let (text, crlf) = match line.split_last() {
            Some((b'\r', text)) => (text, true),
            _ => (line, false),
        };
        let whole = if ended { crlf } else { !crlf };
        let fits = text.len() <= LINE_OCTETS_MAX;
        let clean = text
            .iter()
            .all(|octet| octet.is_ascii() && *octet != 0 && *octet != b'\r');
        if !(fits && clean && whole) {
            return false;
        }
    }
    true
}

/// The field Content-Transfer-Encoding of an entity, with its line end, in octets of the message.
fn declared(part: &Part, entity: &[u8]) -> Option<std::ops::Range<u64>> {
    const NAME: &[u8] = b"content-transfer-encoding";
    let start = usize::try_from(part.header_start).ok()?;
    let end = usize::try_from(part.body_start).ok()?;
    let header = entity.get(start..end)?;
    let mut at = start;
    let mut found: Option<std::ops::Range<usize>> = None;
    for line in header.split_inclusive(|octet| *octet == b'\n') {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        match (&mut found, folded) {
            (Some(field), true) => field.end = at + line.len(),
            (Some(_), false) => break,
            (None, _) => {
                let name = line.split(|octet| *octet == b':').next().unwrap_or(line);
                if name.trim_ascii_end().eq_ignore_ascii_case(NAME) {
                    found = Some(at..at + line.len());
                }
            }
        }
        at += line.len();
    }
    found.map(|field| field.start as u64..field.end as u64)
}

/// The change that gives an entity another encoding.
fn encoding(part: &Part, entity: &[u8], name: &str) -> Option<Splice> {
    let range = declared(part, entity).unwrap_or(part.header_start..part.header_start);
    (range.end <= part.body_start).then(|| Splice {
        offset: range.start,
        size: range.end - range.start,
        replacement: format!("Content-Transfer-Encoding: {name}\r\n").into(),
    })
}

/// Base64 in lines; the last one without a line end.
pub(crate) fn lines(octets: &[u8]) -> String {
    let lines = octets
        .chunks(BASE64_LINE_OCTETS)
        .map(|line| STANDARD.encode(line));
    lines.collect::<Vec<_>>().join("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fine_stays() {
        for fine in [
            &b"Content-Type: text/plain\r\n\r\nhello\r\n"[..],
            b"\r\n",
            b"\r\nno line end",
        ] {
            assert_eq!(seven_bit(fine), None, "{}", String::from_utf8_lossy(fine));
        }
    }

    #[test]
    fn leaves_become_base64_and_containers_7bit() {
        let entity = "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding:\r\n 8bit\r\n\r\ngrün\r\n--b\r\n\r\nfine\r\n--b--\r\n";
        let safe = seven_bit(entity.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(safe).unwrap(),
            "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--b\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nZ3LDvG4=\r\n--b\r\n\r\nfine\r\n--b--\r\n"
        );
    }

    #[test]
    fn bare_line_ends_and_long_lines_are_not_safe() {
        let long = format!("\r\n{}\r\n", "x".repeat(999));
        for entity in ["\r\na\nb\r\n", "\r\na\rb\r\n", long.as_str()] {
            let safe = seven_bit(entity.as_bytes()).unwrap();
            assert!(is_safe(&safe), "{safe:?}");
            assert!(safe.starts_with(b"Content-Transfer-Encoding: base64\r\n\r\n"));
        }
    }
}
