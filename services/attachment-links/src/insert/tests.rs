use opes_mime::Rope;
use proptest::prelude::*;

use super::*;

const TEMPLATE: &str = "{name} ({type}, {size}) until {expires}:\n{link}\n";

fn entry(name: &str) -> Entry {
    Entry {
        name: name.to_owned(),
        kind: "application/pdf".to_owned(),
        size: 25 << 20,
        expires: 0,
        link: "https://files.example.com/abc".to_owned(),
    }
}

/// A text of its own, and an attachment behind it.
fn message(kind: &str, charset: &str, encoding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: {kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    );
    let tail = b"\r\n--b\r\nContent-Type: application/pdf\r\n\r\nx\r\n--b--\r\n";
    [head.as_bytes(), body, tail].concat()
}

/// The decoded text with the link, and that nothing else was touched.
fn with_link(message: &[u8], name: &str) -> Option<Vec<u8>> {
    let structure = opes_mime::scan(message);
    let part = structure.part("1").unwrap();
    let splice = into_text(
        &structure,
        part,
        part.body(message),
        TEMPLATE,
        &[entry(name)],
    )?;
    let rope = Rope::identity(message.len() as u64)
        .splice_all(vec![splice.clone()])
        .unwrap();
    let changed = rope.flatten(message);
    let at = |octet: u64| usize::try_from(octet).unwrap();
    let (start, end) = (at(splice.offset), at(splice.offset + splice.size));
    assert!(changed.starts_with(&message[..start]) && changed.ends_with(&message[end..]));
    let again = opes_mime::scan(&changed);
    let paths = |structure: &Structure| {
        structure
            .parts
            .iter()
            .map(|part| part.path.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(&again), paths(&structure));
    let part = again.part("1").unwrap();
    Some(decoded(part, &changed))
}

fn decoded(part: &Part, message: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut decoder = opes_mime::decode::Decoder::new(part.encoding);
    decoder.push(part.body(message), &mut text);
    decoder.finish(&mut text);
    text
}

const SAID: &str = "a.pdf (application/pdf, 25.0 MiB) until Thu, 01 Jan 1970 00:00:00 UTC:\r\nhttps://files.example.com/abc";

#[test]
fn a_plain_text_gets_it_at_its_end_in_every_encoding() {
    for (encoding, body, text) in [
        ("7bit", "hello", "hello"),
        ("8bit", "grüße\r\n", "grüße\r\n"),
        ("quoted-printable", "gr=C3=BC=\r\n=C3=9Fe =", "grüße "),
        ("base64", "aGVsbG8=", "hello"),
        ("base64", "aGVs\r\nbG8h", "hello!"),
        ("base64", "aGVsbG8=\r\n", "hello"),
        ("base64", "", ""),
    ] {
        let message = message("text/plain", "utf-8", encoding, body.as_bytes());
        let found = String::from_utf8(with_link(&message, "a.pdf").unwrap()).unwrap();
        let rest = found.strip_prefix(text).unwrap();
        assert_eq!(rest.trim_start(), SAID, "{encoding}: {found}");
        assert!(rest.starts_with("\r\n"), "{encoding}: {found}");
    }
}

#[test]
fn html_gets_it_before_the_end_of_its_body() {
    let html = "<html><body><p>hi</p></Body ></html>";
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, html);
    let base64 = format!("{}\r\n{}", &base64[..20], &base64[20..]);
    for (encoding, body) in [
        ("7bit", html.to_owned()),
        (
            "quoted-printable",
            "<html><body><p>hi</p><=\r\n/B=6Fdy ></html>".to_owned(),
        ),
        ("base64", base64),
    ] {
        let message = message("text/html", "iso-8859-1", encoding, body.as_bytes());
        let found = String::from_utf8(with_link(&message, "ü<b>.pdf").unwrap()).unwrap();
        let inserted = found.strip_prefix("<html><body><p>hi</p>").unwrap();
        let inserted = inserted.strip_suffix("</Body ></html>").unwrap().trim();
        assert_eq!(
            inserted,
            "<div><p>&#252;_b_.pdf (application/pdf, 25.0 MiB) until Thu, 01 Jan 1970 00:00:00 UTC:<br>\r\n<a href=\"https://files.example.com/abc\">https://files.example.com/abc</a></p>\r\n</div>",
            "{encoding}"
        );
    }
    let bare = message("text/html", "utf-8", "7bit", b"<p>hi");
    let found = String::from_utf8(with_link(&bare, "a").unwrap()).unwrap();
    assert!(found.starts_with("<p>hi\r\n<div>"), "{found}");
}

#[test]
fn names_are_written_as_the_text_can_hold_them() {
    for (charset, encoding, expected) in [
        ("utf-8", "8bit", &b"M\xc3\xbcll"[..]),
        ("iso-8859-1", "8bit", b"M\xfcll"),
        ("koi8-r", "8bit", b"M?ll"),
        ("us-ascii", "quoted-printable", b"M?ll"),
        ("utf-8", "7bit", b"M?ll"),
        ("iso-2022-jp", "7bit", b"M?ll"),
    ] {
        let found = with_link(&message("text/plain", charset, encoding, b"x"), "Müll").unwrap();
        assert!(
            memchr::memmem::find(&found, expected).is_some(),
            "{charset} {encoding}: {}",
            found.escape_ascii()
        );
    }
    for charset in ["utf-16le", "utf-7", "x-unknown"] {
        let message = message("text/plain", charset, "base64", b"eAA=");
        assert_eq!(with_link(&message, "a"), None, "{charset}");
    }
    let unknown = message("text/plain", "utf-8", "x-uue", b"x");
    assert_eq!(with_link(&unknown, "a"), None);
}

#[test]
fn a_name_is_never_a_template_nor_a_delimiter() {
    let text = plain("{name}{link}{x}{", &entry("{link}"));
    assert_eq!(text, "{link}https://files.example.com/abc{x}{");
    let dashes = message("text/plain", "utf-8", "7bit", b"x");
    let structure = opes_mime::scan(&dashes);
    let part = structure.part("1").unwrap();
    let splice = into_text(&structure, part, b"x", "--b\n{link}", &[entry("a")]).unwrap();
    assert!(splice.replacement.starts_with(b"\r\n\r\n --b"));
}

#[test]
fn a_delimiter_that_follows_the_header_at_once_stays_one() {
    let message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n";
    let found = with_link(message, "a.pdf").unwrap();
    assert_eq!(String::from_utf8(found).unwrap().trim(), SAID);
}

#[test]
fn a_part_is_removed_with_its_delimiter_unless_it_is_the_first() {
    let message = message("text/plain", "utf-8", "7bit", b"hello");
    let structure = opes_mime::scan(&message);
    let index = |path: &str| {
        structure
            .parts
            .iter()
            .position(|part| part.path == path)
            .unwrap()
    };
    let splice = removal(&structure, index("2")).unwrap();
    let rope = Rope::identity(message.len() as u64)
        .splice_all(vec![splice])
        .unwrap();
    let left = String::from_utf8(rope.flatten(&message)).unwrap();
    assert!(left.ends_with("\r\n\r\nhello\r\n--b--\r\n"), "{left}");
    assert_eq!(removal(&structure, index("1")), None);
    assert_eq!(removal(&structure, 0), None);
}

proptest! {
    #[test]
    fn any_body_takes_a_link_or_not_and_nothing_breaks(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        html in any::<bool>(),
        encoding in prop_oneof![Just("7bit"), Just("8bit"), Just("quoted-printable"), Just("base64"), Just("x")],
        name in any::<String>(),
    ) {
        let kind = if html { "text/html" } else { "text/plain" };
        let message = message(kind, "utf-8", encoding, &body);
        let structure = opes_mime::scan(&message);
        for (index, part) in structure.parts.iter().enumerate() {
            let splice = into_text(&structure, part, part.body(&message), TEMPLATE, &[entry(&name)]);
            for splice in splice.into_iter().chain(removal(&structure, index)) {
                let rope = Rope::identity(message.len() as u64).splice_all(vec![splice]);
                prop_assert!(rope.is_ok());
            }
        }
    }

    #[test]
    fn what_was_there_is_still_there(text in "[ -~\r\n]{0,200}", html in any::<bool>(), base64 in any::<bool>()) {
        let kind = if html { "text/html" } else { "text/plain" };
        let (encoding, body) = if base64 {
            ("base64", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &text).into_bytes())
        } else {
            ("quoted-printable", opes_mime::edit::quoted_printable(text.as_bytes()))
        };
        let message = message(kind, "utf-8", encoding, &body);
        let structure = opes_mime::scan(&message);
        let part = structure.part("1").unwrap();
        let before = decoded(part, &message);
        let after = with_link(&message, "a.pdf").unwrap();
        let common = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        let rest = &before[common..];
        prop_assert!(after.ends_with(rest), "{:?} became {:?}", before.escape_ascii().to_string(), after.escape_ascii().to_string());
    }
}
