//! Frames: four octets of length (big-endian), one of code, the rest data.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Octets of code and data that are read at most. libmilter sends 65,536.
pub const FRAME_OCTETS_MAX: usize = 1024 * 1024;

/// Octets of the length.
const LENGTH_OCTETS: usize = 4;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// SMFIC_* or SMFIR_*.
    pub code: u8,
    /// What follows it.
    pub data: Bytes,
}

/// The stream is not one of frames; it cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not even a code.
    #[error("a frame of no octets; does a milter listen there?")]
    Empty,
    /// Beyond the limit.
    #[error(
        "a frame of {octets} octets, more than {FRAME_OCTETS_MAX}; does a milter listen there?"
    )]
    TooLong {
        /// As announced.
        octets: usize,
    },
}

impl Frame {
    /// Takes the first frame out of `buffer`; `None`: there is more to read first.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(length) = buffer.first_chunk::<LENGTH_OCTETS>() else {
            return Ok(None);
        };
        let octets = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        match octets {
            0 => return Err(FrameError::Empty),
            1..=FRAME_OCTETS_MAX => {}
            _ => return Err(FrameError::TooLong { octets }),
        }
        if buffer.len() - LENGTH_OCTETS < octets {
            return Ok(None);
        }
        buffer.advance(LENGTH_OCTETS);
        let code = buffer.get_u8();
        let data = buffer.split_to(octets - 1).freeze();
        Ok(Some(Self { code, data }))
    }
}

/// Appends a frame to `out`; `data` is appended by the function of that name.
pub(crate) fn encode(code: u8, out: &mut BytesMut, data: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(code);
    data(out);
    let octets = out.len() - start - LENGTH_OCTETS;
    let length = u32::try_from(octets).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = out.get_mut(start..start + LENGTH_OCTETS) {
        place.copy_from_slice(&length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_read() {
        for (octets, error) in [
            (&[0, 0, 0, 0][..], FrameError::Empty),
            (
                b"HTTP/1.1 400",
                FrameError::TooLong {
                    octets: 0x4854_5450,
                },
            ),
        ] {
            assert_eq!(Frame::decode(&mut octets.into()), Err(error));
        }
        let largest = [0, 0x10, 0, 0, b'b'];
        assert_eq!(Frame::decode(&mut largest[..].into()), Ok(None));
    }

    proptest! {
        #[test]
        fn any_octets_are_frames_or_an_error(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&octets[..]);
            let mut before = buffer.len();
            while let Ok(Some(_)) = Frame::decode(&mut buffer) {
                prop_assert!(buffer.len() < before);
                before = buffer.len();
            }
        }

        #[test]
        fn frames_come_back_however_they_are_cut(
            frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..10),
            cut in 1_usize..20,
        ) {
            let mut wire = BytesMut::new();
            for (code, data) in &frames {
                encode(*code, &mut wire, |out| out.extend_from_slice(data));
            }
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut buffer).unwrap() {
                    found.push((frame.code, frame.data.to_vec()));
                }
            }
            prop_assert_eq!(found, frames);
            prop_assert!(buffer.is_empty());
        }
    }
}
