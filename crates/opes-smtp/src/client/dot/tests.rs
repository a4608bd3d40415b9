use super::DotStuffer;
use proptest::prelude::*;

fn stuff_in_chunks(content: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stuffer = DotStuffer::new();
    let mut wire = Vec::new();
    let mut rest = content;
    for cut in cuts {
        let (chunk, after) = rest.split_at((*cut).min(rest.len()));
        stuffer
            .stuff(chunk)
            .for_each(|slice| wire.extend_from_slice(slice));
        rest = after;
    }
    stuffer
        .stuff(rest)
        .for_each(|slice| wire.extend_from_slice(slice));
    wire.extend_from_slice(stuffer.finish());
    wire
}

/// The receiver's side, written line by line from RFC 5321 §4.5.2 as an independent check.
fn unstuff(wire: &[u8]) -> (Vec<u8>, usize) {
    let mut content = Vec::new();
    let mut at = 0;
    loop {
        let rest = &wire[at..];
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("a closed line")
            + 2;
        let line = &rest[..end];
        at += end;
        if line == b".\r\n" {
            return (content, at);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
}

#[test]
fn dots_at_line_starts_are_doubled() {
    for (content, wire) in [
        (&b""[..], &b".\r\n"[..]),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b".a\r\n..b\r\nc.\r\n", b"..a\r\n...b\r\nc.\r\n.\r\n"),
        (b"\r\n.\r\n.\r\n", b"\r\n..\r\n..\r\n.\r\n"),
        (b"a\n.b\r\n", b"a\n..b\r\n.\r\n"),
        (b"a\n.\r\nQUIT\r\n", b"a\n..\r\nQUIT\r\n.\r\n"),
        (b"a\r.\rb", b"a\r..\rb\r\n.\r\n"),
    ] {
        assert_eq!(stuff_in_chunks(content, &[]), wire, "{content:?}");
        let single_octets = vec![1; content.len()];
        assert_eq!(
            stuff_in_chunks(content, &single_octets),
            wire,
            "{content:?} by the octet"
        );
    }
}

#[test]
fn content_without_leading_dots_is_one_slice_of_the_chunk() {
    let chunk = b"Subject: a\r\n\r\nno dots.\r\nhere\r\n";
    let slices: Vec<_> = DotStuffer::new().stuff(chunk).collect();
    assert_eq!(slices.len(), 1);
    assert!(std::ptr::eq(slices[0], &raw const chunk[..]));
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b".".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"x".to_vec()),
        any::<u8>().prop_map(|octet| vec![octet]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// Without CR and LF but as line ends, as it is let in.
fn clean_content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b".".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"x".to_vec()),
        (b'\x0e'..).prop_map(|octet| vec![octet]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// How many octets a receiver reads that takes any CR or LF for a line end.
fn read_by_a_lenient_one(wire: &[u8]) -> usize {
    let is_end = |octet: &u8| matches!(octet, b'\r' | b'\n');
    let mut line_start = 0;
    for (at, octet) in wire.iter().enumerate() {
        if is_end(octet) {
            if wire[line_start..at] == *b"." {
                return at + 1;
            }
            line_start = at + 1;
        }
    }
    panic!("no end of data in {wire:?}")
}

proptest! {
    #[test]
    fn stuffing_round_trips(content in clean_content(), cuts in prop::collection::vec(0_usize..7, 0..20)) {
        let wire = stuff_in_chunks(&content, &cuts);
        let (received, used) = unstuff(&wire);
        prop_assert_eq!(used, wire.len(), "the only end of data is the one we wrote");
        let mut expected = content.clone();
        if !content.is_empty() && !content.ends_with(b"\r\n") {
            expected.extend_from_slice(b"\r\n");
        }
        prop_assert_eq!(received, expected);
    }

    #[test]
    fn nobody_finds_another_end_of_data(content in content(), cuts in prop::collection::vec(0_usize..7, 0..20)) {
        let wire = stuff_in_chunks(&content, &cuts);
        prop_assert_eq!(unstuff(&wire).1, wire.len());
        // The CR of the last line is an end to it.
        prop_assert_eq!(read_by_a_lenient_one(&wire), wire.len() - 1);
    }
}
