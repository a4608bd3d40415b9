//! The body that a milter puts in place of the message's (SMFIR_REPLBODY).

use bytes::{Bytes, BytesMut};

use crate::connection::MilterError;

/// Lines end with CRLF however the milter ended them (RFC 5322 §2.1), the last one too.
#[derive(Debug)]
pub(crate) struct NewBody {
    octets: BytesMut,
    max: usize,
}

impl NewBody {
    /// Of at most `max` octets.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            octets: BytesMut::new(),
            max,
        }
    }

    /// The next octets.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), MilterError> {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
            let (line, tail) = rest.split_at_checked(end + 1).unwrap_or((rest, &[]));
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            self.octets.extend_from_slice(line);
            if self.octets.last() != Some(&b'\r') {
                self.octets.extend_from_slice(b"\r");
            }
            self.octets.extend_from_slice(b"\n");
            rest = tail;
            self.check()?;
        }
        self.octets.extend_from_slice(rest);
        self.check()
    }

    fn check(&self) -> Result<(), MilterError> {
        if self.octets.len() > self.max {
            return Err(MilterError::BodyTooLarge(self.max));
        }
        Ok(())
    }

    /// All of it.
    pub(crate) fn finish(mut self) -> Bytes {
        match self.octets.as_ref() {
            [] | [.., b'\r', b'\n'] => {}
            [.., b'\r'] => self.octets.extend_from_slice(b"\n"),
            _ => self.octets.extend_from_slice(b"\r\n"),
        }
        self.octets.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(chunks: &[&[u8]]) -> Result<Bytes, MilterError> {
        let mut body = NewBody::new(40);
        for chunk in chunks {
            body.push(chunk)?;
        }
        Ok(body.finish())
    }

    #[test]
    fn lines_end_with_crlf_wherever_the_chunks_end() {
        for (chunks, expected) in [
            (&[&b"a\nb\r\n"[..]][..], &b"a\r\nb\r\n"[..]),
            (&[b"a\r", b"\nb"], b"a\r\nb\r\n"),
            (&[b"a\r"], b"a\r\n"),
            (&[b"\n\n"], b"\r\n\r\n"),
            (&[b"a\rb"], b"a\rb\r\n"),
            (&[b""], b""),
        ] {
            assert_eq!(body(chunks).unwrap(), expected, "{chunks:?}");
        }
        let error = body(&[b"12345678901234567890\n", b"12345678901234567890"]).unwrap_err();
        assert!(error.to_string().contains("bodySizeMax"), "{error}");
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(octets in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..30), cut in 1_usize..30) {
            let chunks: Vec<_> = octets.chunks(cut).collect();
            if let Ok(cut) = body(&chunks) {
                prop_assert_eq!(&cut, &body(&[&octets]).unwrap());
                prop_assert!(!cut.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'));
                prop_assert!(cut.is_empty() || cut.ends_with(b"\r\n"));
            }
        }
    }
}
