use super::*;
use proptest::prelude::*;

fn splice(offset: u64, size: u64, replacement: &'static [u8]) -> Splice {
    Splice {
        offset,
        size,
        replacement: Bytes::from_static(replacement),
    }
}

#[test]
fn splices_replace_insert_and_delete() {
    let rope = Rope::identity(10);
    let edited = rope
        .splice_all(vec![
            splice(0, 0, b"<"),
            splice(2, 3, b"xy"),
            splice(9, 1, b""),
        ])
        .unwrap();
    assert_eq!(edited.flatten(b"0123456789"), b"<01xy5678");
    assert_eq!(
        (edited.len(), edited.inserted_len(), edited.original_end()),
        (9, 3, 9)
    );
    assert!(!edited.is_identity(10));
    assert!(rope.is_identity(10) && Rope::identity(0).is_identity(0));
}

#[test]
fn neighbours_merge_and_empty_pieces_vanish() {
    let rope = Rope::from_pieces(vec![
        Piece::Original { offset: 0, len: 2 },
        Piece::Inserted(Bytes::new()),
        Piece::Original { offset: 2, len: 3 },
        Piece::Inserted(Bytes::from_static(b"a")),
        Piece::Inserted(Bytes::from_static(b"b")),
    ]);
    assert_eq!(
        rope.pieces(),
        [
            Piece::Original { offset: 0, len: 5 },
            Piece::Inserted(Bytes::from_static(b"ab"))
        ]
    );
}

#[test]
fn bad_splices_are_refused() {
    let rope = Rope::identity(4);
    assert!(matches!(
        rope.splice_all(vec![splice(3, 2, b"")]),
        Err(RopeError::OutOfRange { .. })
    ));
    let crossing = vec![splice(2, 2, b""), splice(1, 1, b"")];
    assert!(matches!(
        rope.splice_all(crossing),
        Err(RopeError::Overlap {
            offset: 1,
            previous_end: 4
        })
    ));
    assert!(
        rope.splice_all(vec![splice(u64::MAX, u64::MAX, b"")])
            .is_err()
    );
    assert!(rope.slice(3..9).is_err());
    assert!(rope.compose(&Rope::identity(5)).is_err());
}

#[test]
fn hostile_pieces_saturate() {
    let rope = Rope::from_pieces(vec![
        Piece::Original {
            offset: u64::MAX,
            len: u64::MAX
        };
        3
    ]);
    assert_eq!(rope.len(), u64::MAX);
    assert_eq!(rope.original_end(), u64::MAX);
    assert_eq!(rope.flatten(b"abc"), b"");
}

/// Splices that fit a message of `len` octets, sorted, apart.
fn splices(len: u64) -> impl Strategy<Value = Vec<Splice>> {
    let one = (
        0..=len,
        0..4u64,
        proptest::collection::vec(any::<u8>(), 0..5),
    );
    proptest::collection::vec(one, 0..6).prop_map(move |mut raw| {
        raw.sort();
        let mut done = 0;
        let fit = |(offset, size, octets): (u64, u64, Vec<u8>)| {
            let offset = offset.max(done);
            let size = size.min(len - offset);
            done = offset + size;
            Splice {
                offset,
                size,
                replacement: octets.into(),
            }
        };
        raw.into_iter().map(fit).collect()
    })
}

/// The naive reference: edits from the back on a vector.
fn reference(original: &[u8], edits: &[Splice]) -> Vec<u8> {
    let mut octets = original.to_vec();
    for edit in edits.iter().rev() {
        let from = usize::try_from(edit.offset).unwrap();
        let to = from + usize::try_from(edit.size).unwrap();
        octets.splice(from..to, edit.replacement.iter().copied());
    }
    octets
}

const ORIGINAL: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn same_as_the_naive_reference(edits in splices(ORIGINAL.len() as u64)) {
        let rope = Rope::identity(ORIGINAL.len() as u64).splice_all(edits.clone()).unwrap();
        let expected = reference(ORIGINAL, &edits);
        prop_assert_eq!(rope.len(), expected.len() as u64);
        prop_assert_eq!(rope.flatten(ORIGINAL), expected);
    }

    #[test]
    fn composing_is_editing_twice(first in splices(36), second in splices(20), from in 0u64..40, to in 0u64..40) {
        let inner = Rope::identity(36).splice_all(first).unwrap();
        let view = inner.flatten(ORIGINAL);
        let fits = second.into_iter().filter(|s| s.offset + s.size <= view.len() as u64).collect::<Vec<_>>();
        let outer = Rope::identity(view.len() as u64).splice_all(fits.clone()).unwrap();
        let composed = inner.compose(&outer).unwrap();
        let expected = reference(&view, &fits);
        prop_assert_eq!(composed.flatten(ORIGINAL), expected.clone());
        let (from, to) = (from.min(composed.len()), to.min(composed.len()));
        if from <= to {
            let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
            prop_assert_eq!(&composed.slice(from..to).unwrap().flatten(ORIGINAL), &expected[range]);
        }
        let tail = Rope::from_pieces(composed.pieces_from(from).collect());
        prop_assert_eq!(&tail.flatten(ORIGINAL), &expected[usize::try_from(from).unwrap()..]);
    }
}
