//! The text that a reader would see: decoded, without markup, without what is invisible.
//!
//! Nothing fails: what cannot be decoded is looked at as it stands. Bounded by the octets that are looked at.

use mail_parser::decoders::html::html_to_text;
use opes_mime::decode::Decoder;
use opes_mime::words::{decode_charset, decode_words};
use opes_mime::{Part, Structure};

/// Subject fields and text parts, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readable {
    /// Of every Subject field: readers differ in which one they show.
    pub subjects: Vec<String>,
    /// Of every part of type text, attachments included.
    pub texts: Vec<String>,
}

/// What there is to read in `octets`, whose structure this is. At most `decoded_max` octets of parts are decoded.
pub fn readable(octets: &[u8], structure: &Structure, decoded_max: usize) -> Readable {
    let mut left = decoded_max;
    let mut read = Readable::default();
    for field in &structure.fields {
        if slice(octets, field.name.start, field.name.end).eq_ignore_ascii_case(b"subject") {
            let value = slice(octets, field.value.start, field.value.end);
            read.subjects.push(plain(&decode_words(value)));
        }
    }
    for part in structure.parts.iter().filter(|part| is_text(part)) {
        let body = slice(octets, part.body_start, part.body_end);
        let body = body.get(..body.len().min(left)).unwrap_or_default();
        left -= body.len();
        read.texts.push(text_of(part, body));
        if left == 0 {
            break;
        }
    }
    read
}

fn is_text(part: &Part) -> bool {
    part.content_type.starts_with("text/")
}

fn text_of(part: &Part, body: &[u8]) -> String {
    let mut octets = Vec::with_capacity(body.len());
    let mut decoder = Decoder::new(part.encoding);
    decoder.push(body, &mut octets);
    decoder.finish(&mut octets);
    let text = decode_charset(&part.charset, &octets);
    match part.content_type.as_str() {
        "text/html" => plain(&html_to_text(&text)),
        _ => plain(&text),
    }
}

/// One space between words, so that a phrase is found across a line end; nothing invisible inside of words.
fn plain(text: &str) -> String {
    let visible: String = text.chars().filter(|c| !is_invisible(*c)).collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Soft hyphen, zero-width characters, direction marks, word joiner, byte order mark, variation selectors.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}'
            | '\u{feff}' | '\u{fe00}'..='\u{fe0f}'
    )
}

fn slice(octets: &[u8], from: u64, to: u64) -> &[u8] {
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let found = range.and_then(|(from, to)| octets.get(from..to.min(octets.len())));
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(message: &str) -> Readable {
        readable(
            message.as_bytes(),
            &opes_mime::scan(message.as_bytes()),
            1 << 20,
        )
    }

    #[test]
    fn encodings_charsets_markup_and_what_is_invisible() {
        let message = "Subject: =?utf-8?q?Caf=C3=A9?= =?iso-8859-1?q?_f=FCr?=\r\n alle\r\n\
            MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
            --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\ndGhlIGNh4oCLc2lubwppcyBvcGVu\r\n\
            --b\r\nContent-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>the <b>ca</b>sino &amp; caf=E9</p>\r\n\
            --b\r\nContent-Type: image/png\r\n\r\ncasino\r\n--b--\r\n";
        let read = read(message);
        assert_eq!(read.subjects, ["Café für alle"]);
        assert_eq!(read.texts, ["the casino is open", "the casino & café"]);
    }

    #[test]
    fn every_subject_counts_and_no_more_is_decoded_than_allowed() {
        let message = "Subject: one\r\nsubject: two\r\n\r\nthe body is here\r\n";
        assert_eq!(read(message).subjects, ["one", "two"]);
        let structure = opes_mime::scan(message.as_bytes());
        assert_eq!(
            readable(message.as_bytes(), &structure, 8).texts,
            ["the body"]
        );
    }

    proptest! {
        #[test]
        fn hostile_mail_cannot_panic(octets in proptest::collection::vec(any::<u8>(), 0..500), max in 0_usize..600) {
            let with_header = [&b"Subject: =?x?b?\r\nContent-Type: text/html; charset=utf-7\r\nContent-Transfer-Encoding: base64\r\n\r\n"[..], &octets].concat();
            for message in [&octets, &with_header] {
                let _read = readable(message, &opes_mime::scan(message), max);
            }
        }
    }
}
