//! Relaxed canonicalisation (RFC 6376 §3.4.2, §3.4.4).

/// `name:value` without its line end, appended to `out`.
pub(super) fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.to_ascii_lowercase().as_bytes());
    out.push(b':');
    let start = out.len();
    let mut blank = false;
    for &octet in value {
        match octet {
            b'\r' | b'\n' => {}
            b' ' | b'\t' => blank = true,
            octet => {
                if blank && out.len() > start {
                    out.push(b' ');
                }
                blank = false;
                out.push(octet);
            }
        }
    }
}

/// Gives the canonical body to `take`, piece by piece. Lines end at CRLF only; the rest is content.
pub(super) fn body(body: &[u8], mut take: impl FnMut(&[u8])) {
    let mut empty_lines = 0_usize;
    let mut line = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = crlf(rest);
        let (text, after) = match end {
            Some(end) => (
                rest.get(..end).unwrap_or_default(),
                rest.get(end + 2..).unwrap_or_default(),
            ),
            None => (rest, &[][..]),
        };
        rest = after;
        line.clear();
        squeeze(text, &mut line);
        if line.is_empty() {
            empty_lines += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty_lines) {
            take(b"\r\n");
        }
        take(&line);
        take(b"\r\n");
    }
}

/// Runs of blanks become one, those at the end go.
fn squeeze(text: &[u8], out: &mut Vec<u8>) {
    let mut blank = false;
    for &octet in text {
        if matches!(octet, b' ' | b'\t') {
            blank = true;
            continue;
        }
        if std::mem::take(&mut blank) {
            out.push(b' ');
        }
        out.push(octet);
    }
}

fn crlf(octets: &[u8]) -> Option<usize> {
    octets.windows(2).position(|two| two == b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        body(text, |octets| out.extend_from_slice(octets));
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 6376 §3.4.5.
        assert_eq!(canonical(b" C \r\nD \t E\r\n\r\n\r\n"), b" C\r\nD E\r\n");
        let mut out = Vec::new();
        field("B", b" Y\t\r\n\tZ  ", &mut out);
        assert_eq!(out, b"b:Y Z");
    }

    #[test]
    fn the_end_of_a_body() {
        assert_eq!(canonical(b""), b"");
        assert_eq!(canonical(b"\r\n\r\n"), b"");
        assert_eq!(canonical(b"a"), b"a\r\n");
        // Lines of blanks only are empty lines (§3.4.4, and a trap for libraries).
        assert_eq!(canonical(b"a\r\n \t\r\n"), b"a\r\n");
        assert_eq!(canonical(b"a\r\n\r\nb\r\n"), b"a\r\n\r\nb\r\n");
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_is_stable(octets in proptest::collection::vec(0_u8..=255, 0..400)) {
            let once = canonical(&octets);
            proptest::prop_assert!(once.len() <= octets.len() + 2);
            proptest::prop_assert_eq!(canonical(&once), once);
        }
    }
}
