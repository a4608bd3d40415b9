//! The body that a milter puts in place of the message's (SMFIR_REPLBODY).

use bytes::{Bytes, BytesMut};

use crate::connection::MilterError;

/// Lines end with CRLF however the milter ended them (RFC 5322 §2.1), the last one too; nothing else has CR or LF, which could end the message
/// to the next server.
#[derive(Debug)]
pub(crate) struct NewBody {
    octets: BytesMut,
    /// CRs at the end of what was pushed: what follows says what they are.
    pending: usize,
    max: usize,
}

impl NewBody {
    /// Of at most `max` octets.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            octets: BytesMut::new(),
            pending: 0,
            max,
        }
    }

    /// The next octets.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), MilterError> {
        for piece in chunk.split_inclusive(|octet| matches!(octet, b'\r' | b'\n')) {
            match piece.split_last() {
                Some((b'\r', text)) => {
                    self.text(text);
                    self.pending += 1;
                }
                // Any number of CRs before it: one line end, to most readers.
                Some((b'\n', text)) => {
                    self.text(text);
                    self.pending = 0;
                    self.octets.extend_from_slice(b"\r\n");
                }
                _ => self.text(piece),
            }
        }
        // Each CR that is left may become two octets.
        let size = self.octets.len().saturating_add(2 * self.pending);
        if size > self.max {
            return Err(MilterError::BodyTooLarge(self.max));
        }
        Ok(())
    }

    /// Octets of a line. CRs in front of them were line ends.
    fn text(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.end_lines();
            self.octets.extend_from_slice(text);
        }
    }

    fn end_lines(&mut self) {
        for _ in 0..std::mem::take(&mut self.pending) {
            self.octets.extend_from_slice(b"\r\n");
        }
    }

    /// All of it.
    pub(crate) fn finish(mut self) -> Bytes {
        self.end_lines();
        if !self.octets.is_empty() && !self.octets.ends_with(b"\n") {
            self.octets.extend_from_slice(b"\r\n");
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
            (&[b"a\r.\rb"], b"a\r\n.\r\nb\r\n"),
            (&[b"a\r", b".\r", b"\r\n", b"b"], b"a\r\n.\r\nb\r\n"),
            (&[b"a\r\r"], b"a\r\n\r\n"),
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
                prop_assert!(cut.first() != Some(&b'\n'));
                prop_assert!(!cut.windows(2).any(|pair| (pair[0] == b'\r') != (pair[1] == b'\n')));
                prop_assert!(cut.is_empty() || cut.ends_with(b"\r\n"));
            }
        }
    }
}
