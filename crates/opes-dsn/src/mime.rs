//! Parts, transfer encodings and boundaries of the messages we write.

use memchr::memmem;

use crate::field;

/// RFC 5322 §2.1.1, without CRLF.
const LINE_OCTETS_MAX: usize = 998;
/// RFC 2045 §6.7 rule 5, without CRLF.
const ENCODED_LINE_OCTETS_MAX: usize = 76;

/// One part of a multipart, or the body of a message: its own fields and its octets.
#[derive(Debug)]
pub(crate) struct Part {
    content_type: &'static str,
    encoding: &'static str,
    pub(crate) octets: Vec<u8>,
}

// === impl Part ===

impl Part {
    /// As it is if it can go as it is, else quoted-printable.
    pub(crate) fn encoded(content_type: &'static str, octets: &[u8]) -> Self {
        if is_plain(octets) && octets.is_ascii() {
            return Self::unchanged(content_type, octets);
        }
        Self {
            content_type,
            encoding: "quoted-printable",
            octets: quoted_printable(octets),
        }
    }

    /// As it is; the caller has looked that [`is_plain`].
    pub(crate) fn unchanged(content_type: &'static str, octets: &[u8]) -> Self {
        Self {
            content_type,
            encoding: if octets.is_ascii() { "7bit" } else { "8bit" },
            octets: octets.to_vec(),
        }
    }

    /// Its fields, an empty line and its octets.
    pub(crate) fn write_to(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(
            format!(
                "Content-Type: {}\r\nContent-Transfer-Encoding: {}\r\n\r\n",
                self.content_type, self.encoding
            )
            .as_bytes(),
        );
        output.extend_from_slice(&self.octets);
    }
}

/// Lines that end with CRLF and are no longer than allowed, without NUL: can go through SMTP as they are.
pub(crate) fn is_plain(octets: &[u8]) -> bool {
    let mut line_start = 0;
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, octets) {
        let crlf = octets
            .get(at..)
            .is_some_and(|rest| rest.starts_with(b"\r\n"));
        let second = octets.get(at) == Some(&b'\n')
            && at.checked_sub(1).and_then(|at| octets.get(at)) == Some(&b'\r');
        if crlf {
            if at - line_start > LINE_OCTETS_MAX {
                return false;
            }
            line_start = at + 2;
        } else if !second {
            return false;
        }
    }
    octets.len() - line_start.min(octets.len()) <= LINE_OCTETS_MAX
}

/// RFC 2045 §6.7. CRLF stays a line end, every other octet that is not printable ASCII is written as `=XX`.
pub(crate) fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(octets.len() + octets.len() / 4);
    let mut column = 0;
    let mut rest = octets;
    while let Some((&octet, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            encoded.extend_from_slice(b"\r\n");
            column = 0;
            rest = after;
            continue;
        }
        let ends_line = tail.is_empty() || tail.starts_with(b"\r\n");
        let literal = match octet {
            // At the end of a line it would be lost on the way (rule 3).
            b' ' | b'\t' => !ends_line,
            octet => octet.is_ascii_graphic() && octet != b'=',
        };
        let width = if literal { 1 } else { 3 };
        // Room for the `=` of a soft line break.
        if column + width > ENCODED_LINE_OCTETS_MAX - 1 {
            encoded.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if literal {
            encoded.push(octet);
        } else {
            encoded.extend_from_slice(format!("={octet:02X}").as_bytes());
        }
        column += width;
        rest = tail;
    }
    encoded
}

/// A delimiter that is in none of `parts`. Of as many candidates as there are octets plus one, at least one is not: each that occurs has a place of its own.
pub(crate) fn boundary(id: &str, parts: &[Part]) -> String {
    let id = field::cut(id, 40);
    let occurs = |candidate: &str| {
        parts
            .iter()
            .any(|part| memmem::find(&part.octets, candidate.as_bytes()).is_some())
    };
    let octets: usize = parts.iter().map(|part| part.octets.len()).sum();
    (0..=octets)
        .map(|number| format!("=_{id}_{number:08x}"))
        .find(|candidate| !occurs(candidate))
        .unwrap_or_default()
}

/// `parts` between boundaries (RFC 2046 §5.1.1).
pub(crate) fn write_multipart(boundary: &str, parts: &[Part], output: &mut Vec<u8>) {
    for part in parts {
        output.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        part.write_to(output);
        // Belongs to the boundary.
        output.extend_from_slice(b"\r\n");
    }
    output.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use opes_mime::decode::Decoder;
    use opes_mime::structure::Encoding;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_is_what_can_go_through_smtp() {
        for (octets, plain) in [
            (&b""[..], true),
            (b"a\r\nb", true),
            (b"\r\n\r\n", true),
            (b"a\nb\r\n", false),
            (b"a\rb\r\n", false),
            (b"a\r\r\n", false),
            (b"\n", false),
            (b"a\0", false),
            ("ä\r\n".as_bytes(), true),
        ] {
            assert_eq!(is_plain(octets), plain, "{octets:?}");
        }
        let line = [b'x'; LINE_OCTETS_MAX + 1];
        assert!(is_plain(&line[1..]) && !is_plain(&line));
        assert!(!is_plain(&[&line[..], b"\r\n"].concat()));
        assert!(is_plain(&[&line[1..], b"\r\n", &line[1..]].concat()));
    }

    #[test]
    fn a_boundary_that_occurs_is_not_taken() {
        let part = |octets: &[u8]| Part::unchanged("text/plain", octets);
        let parts = [part(b"=_A_00000000\r\n"), part(b"--=_A_00000001--")];
        assert_eq!(boundary("A", &parts), "=_A_00000002");
    }

    proptest! {
        #[test]
        fn quoted_printable_decodes_to_the_same(octets in prop::collection::vec(any::<u8>(), 0..400)) {
            let encoded = quoted_printable(&octets);
            prop_assert!(is_plain(&encoded) && encoded.is_ascii());
            prop_assert!(encoded.split(|c| *c == b'\n').all(|line| line.len() <= 77));
            let mut decoded = Vec::new();
            let mut decoder = Decoder::new(Encoding::QuotedPrintable);
            decoder.push(&encoded, &mut decoded);
            decoder.finish(&mut decoded);
            prop_assert_eq!(decoded, octets);
        }
    }
}
