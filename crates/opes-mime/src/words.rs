//! Encoded words (RFC 2047) and the few character sets that header fields need.
//!
//! Owns decoding for comparison and display, and encoding of marks. UTF-8, US-ASCII, ISO-8859-1 and windows-1252 are exact; in
//! any other set the ASCII octets are right, which is enough for extensions and marks. Never fails: what cannot be decoded stays.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::decode;

/// Longest encoded word, RFC 2047 §2.
const ENCODED_WORD_OCTETS_MAX: usize = 75;
/// `=?UTF-8?B?` and `?=`.
const ENCODED_WORD_FRAME_OCTETS: usize = 12;

/// `octets` in `charset` as text.
pub fn decode_charset(charset: &str, octets: &[u8]) -> String {
    let single_octet = ["iso-8859-1", "latin1", "windows-1252", "cp1252"];
    if single_octet
        .iter()
        .any(|known| charset.eq_ignore_ascii_case(known))
    {
        return latin1(octets);
    }
    String::from_utf8(octets.to_vec()).unwrap_or_else(|_| latin1(octets))
}

fn latin1(octets: &[u8]) -> String {
    octets.iter().copied().map(char::from).collect()
}

/// An unstructured value: unfolded, encoded words decoded, white space between two of them dropped (RFC 2047 §6.2).
pub fn decode_words(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    let mut after_word = false;
    while let Some(start) = memchr::memmem::find(rest, b"=?") {
        let (plain, candidate) = rest.split_at(start);
        let Some((word, tail)) = decode_word(candidate) else {
            push_unfolded(&mut text, rest.get(..start + 2).unwrap_or_default());
            rest = rest.get(start + 2..).unwrap_or_default();
            after_word = false;
            continue;
        };
        if !(after_word && plain.iter().all(u8::is_ascii_whitespace)) {
            push_unfolded(&mut text, plain);
        }
        text.push_str(&word);
        after_word = true;
        rest = tail;
    }
    push_unfolded(&mut text, rest);
    text
}

fn push_unfolded(text: &mut String, octets: &[u8]) {
    if memchr::memchr2(b'\r', b'\n', octets).is_none() {
        text.push_str(&decode_charset("utf-8", octets));
        return;
    }
    let unfolded: Vec<u8> = octets
        .iter()
        .copied()
        .filter(|c| !matches!(c, b'\r' | b'\n'))
        .collect();
    text.push_str(&decode_charset("utf-8", &unfolded));
}

/// One encoded word at the start of `octets`, and what follows it.
fn decode_word(octets: &[u8]) -> Option<(String, &[u8])> {
    let mut fields = octets.get(2..)?.splitn(3, |c| *c == b'?');
    let (charset, encoding, text_and_tail) = (fields.next()?, fields.next()?, fields.next()?);
    let end = memchr::memmem::find(text_and_tail, b"?=")?;
    let (text, tail) = text_and_tail.split_at(end);
    if charset.is_empty() || !charset.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let decoded = match encoding {
        b"B" | b"b" => decode::base64(text),
        b"Q" | b"q" => decode_q(text),
        _ => return None,
    };
    // RFC 2231 §5: a language may follow the character set.
    let charset = charset.split(|c| *c == b'*').next().unwrap_or_default();
    Some((
        decode_charset(&String::from_utf8_lossy(charset), &decoded),
        tail.get(2..)?,
    ))
}

/// RFC 2047 §4.2: quoted-printable with `_` for a space.
fn decode_q(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|c| if *c == b'_' { b' ' } else { *c })
        .collect();
    decode::percent_like(&spaced, b'=')
}

/// `text` as encoded words in UTF-8, with a space between two.
pub fn encode_words(text: &str) -> String {
    let octets_max = (ENCODED_WORD_OCTETS_MAX - ENCODED_WORD_FRAME_OCTETS) / 4 * 3;
    let mut words = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.floor_char_boundary(octets_max));
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str("=?UTF-8?B?");
        STANDARD.encode_string(word, &mut words);
        words.push_str("?=");
        rest = tail;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decodes_the_examples_of_rfc_2047() {
        for (value, text) in [
            ("=?ISO-8859-1?Q?a?=", "a"),
            ("=?ISO-8859-1?Q?a?= b", "a b"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a?=\r\n  =?ISO-8859-1?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a_b?=", "a b"),
            (
                "=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=",
                "If you can read this yo",
            ),
            ("=?iso-8859-1*de?q?Gr=FC=DFe?=", "Grüße"),
        ] {
            assert_eq!(decode_words(value.as_bytes()), text, "{value}");
        }
    }

    #[test]
    fn what_is_no_word_stays() {
        for value in [
            "plain",
            "=?",
            "=?a?b",
            "=?utf-8?x?abc?=",
            "=??Q?a?=",
            "a =?utf-8?q?b",
        ] {
            assert_eq!(decode_words(value.as_bytes()), value);
        }
    }

    proptest! {
        #[test]
        fn words_round_trip(text in "\\PC{0,80}") {
            let words = encode_words(&text);
            prop_assert!(words.split(' ').all(|word| word.len() <= ENCODED_WORD_OCTETS_MAX));
            prop_assert_eq!(decode_words(words.as_bytes()), text);
        }

        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_words(&value);
        }
    }
}
