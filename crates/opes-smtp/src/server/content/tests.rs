//! The end of data and bare line ends, against a naive reading of RFC 5321 §4.1.1.4 and §4.5.2.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    content: Vec<u8>,
    bare: bool,
    /// Octets after the end of data.
    rest: Option<Vec<u8>>,
}

fn read(octets: &[u8], piece: usize) -> Outcome {
    let (mut reader, mut input, mut outcome) =
        (DataReader::new(), BytesMut::new(), Outcome::default());
    for (index, part) in octets.chunks(piece).enumerate() {
        input.extend_from_slice(part);
        loop {
            match reader.next(&mut input) {
                Piece::NeedInput => break,
                Piece::Content(slice) => outcome.content.extend_from_slice(&slice),
                Piece::End => {
                    let read = (index * piece + part.len()).min(octets.len());
                    outcome.rest = Some([&input[..], &octets[read..]].concat());
                    outcome.bare = reader.has_bare_line_end();
                    return outcome;
                }
            }
        }
    }
    outcome.bare = reader.has_bare_line_end();
    outcome
}

/// `<CRLF>.<CRLF>`, where the CRLF of the DATA command counts as the first one; then one dot off each line that begins with one.
fn naive(octets: &[u8]) -> Option<Outcome> {
    let all = [b"\r\n", octets].concat();
    let end = memchr::memmem::find(&all, b"\r\n.\r\n")?;
    let (content, rest) = (&all[..end + 2], &all[end + 5..]);
    let bare = (0..content.len()).any(|i| match content[i] {
        b'\r' => content.get(i + 1) != Some(&b'\n'),
        b'\n' => i == 0 || content[i - 1] != b'\r',
        _ => false,
    });
    let mut unstuffed = Vec::new();
    for (i, octet) in content.iter().enumerate().skip(2) {
        if !(*octet == b'.' && content[i - 2..i] == *b"\r\n") {
            unstuffed.push(*octet);
        }
    }
    Some(Outcome {
        content: unstuffed,
        bare,
        rest: Some(rest.to_vec()),
    })
}

#[test]
fn a_message_in_one_read_is_one_slice() {
    let mut input = BytesMut::from(&b"Subject: x\r\n\r\n".repeat(300)[..]);
    let octets = input.len();
    input.extend_from_slice(b".\r\nQUIT\r\n");
    let mut reader = DataReader::new();
    assert!(matches!(reader.next(&mut input), Piece::Content(slice) if slice.len() == octets));
    assert_eq!(reader.next(&mut input), Piece::End);
    assert_eq!(&input[..], b"QUIT\r\n");
}

#[test]
fn a_dot_costs_one_cut() {
    let mut input = BytesMut::from(&b"a\r\n..b\r\nc\r\n"[..]);
    let mut reader = DataReader::new();
    assert_eq!(
        reader.next(&mut input),
        Piece::Content(Bytes::from_static(b"a\r\n"))
    );
    assert_eq!(
        reader.next(&mut input),
        Piece::Content(Bytes::from_static(b".b\r\nc\r\n"))
    );
    assert_eq!(reader.next(&mut input), Piece::NeedInput);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn end_of_data_is_where_the_standard_says(
        octets in "[\r\n.a]{0,24}(\r\n\\.\r\n)?[\r\n.a]{0,4}",
        piece in 1_usize..30,
    ) {
        let outcome = read(octets.as_bytes(), piece);
        match naive(octets.as_bytes()) {
            None => prop_assert_eq!(outcome.rest, None),
            Some(expected) => {
                prop_assert_eq!(outcome.bare, expected.bare);
                prop_assert_eq!(&outcome.rest, &expected.rest);
                // Content with bare line ends is thrown away.
                if !expected.bare {
                    prop_assert_eq!(outcome, expected);
                }
            }
        }
    }

    #[test]
    fn bare_line_ends_in_chunks_do_not_depend_on_their_borders(
        octets in "[\r\na]{0,16}",
        piece in 1_usize..20,
    ) {
        let octets = octets.as_bytes();
        let mut cr = false;
        let bare = octets.chunks(piece).any(|chunk| has_bare_line_end(chunk, &mut cr)) || cr;
        let text = String::from_utf8_lossy(octets).replace("\r\n", "");
        prop_assert_eq!(bare, text.contains(['\r', '\n']));
    }
}
