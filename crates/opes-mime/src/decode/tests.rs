use super::*;
use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut decoder = Decoder::new(Encoding::QuotedPrintable);
    decoder.push(text, &mut out);
    decoder.finish(&mut out);
    out
}

#[test]
fn quoted_printable_of_rfc_2045() {
    for (encoded, content) in [
        (
            &b"Now's the time =\r\nfor all"[..],
            &b"Now's the time for all"[..],
        ),
        (b"a=3Db=3d", b"a=b="),
        (b"soft = \t\r\nbreak", b"soft break"),
        (b"end of line  \r\nnext", b"end of line\r\nnext"),
        (b"inner  space", b"inner  space"),
        (b"broken =ZZ =4 =", b"broken =ZZ =4 "),
        (b"==41", b"=A"),
    ] {
        assert_eq!(
            quoted(encoded).escape_ascii().to_string(),
            content.escape_ascii().to_string()
        );
    }
}

#[test]
fn base64_is_lenient() {
    assert_eq!(base64(b"TV\r\nqQ"), b"MZ\x90");
    assert_eq!(base64(b"T!V*q-Q"), b"MZ\x90");
    assert_eq!(base64(b"TVo=TVo="), b"MZMZ");
    assert_eq!(base64(b"T"), b"");
}

proptest! {
    #[test]
    fn base64_round_trips(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(base64(STANDARD.encode(&content).as_bytes()), content);
    }

    #[test]
    fn chunks_do_not_matter(text in "[=A-F0-9a-z \t\r\n+/]{0,120}", cuts in proptest::collection::vec(1usize..9, 1..60)) {
        for encoding in [Encoding::Base64, Encoding::QuotedPrintable, Encoding::SevenBit] {
            let mut whole = Vec::new();
            let mut decoder = Decoder::new(encoding);
            decoder.push(text.as_bytes(), &mut whole);
            decoder.finish(&mut whole);
            let mut pieces = Vec::new();
            let mut decoder = Decoder::new(encoding);
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                decoder.push(chunk, &mut pieces);
                rest = tail;
            }
            decoder.finish(&mut pieces);
            prop_assert_eq!(whole, pieces);
        }
    }
}
