use proptest::prelude::*;

use super::*;

const FACTS: Facts<'_> = Facts {
    date: "Tue, 24 Nov 2026 05:05:30 +0000",
    smtputf8: false,
};

fn repaired(message: &[u8]) -> (Vec<u8>, Vec<&'static str>) {
    let normalised = normalise(message, &Config::default(), FACTS).unwrap();
    let rope = Rope::identity(message.len() as u64)
        .splice_all(normalised.edits)
        .unwrap();
    (rope.flatten(message), normalised.done)
}

/// With what every message needs.
fn fine(rest: &str) -> String {
    format!(
        "Date: Tue, 24 Nov 2026 05:05:30 +0000\r\nMessage-ID: <1@example.org>\r\nFrom: a@example.org\r\n{rest}"
    )
}

fn check(given: &str, expected: &str, word: &str) {
    let (octets, done) = repaired(given.as_bytes());
    assert_eq!(String::from_utf8_lossy(&octets), expected);
    assert_eq!(done, [word]);
}

#[test]
fn what_is_fine_stays_as_it_is() {
    let multipart = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJj\r\n--b--\r\n";
    for rest in [
        "Subject: a\r\n\r\nbody\r\n",
        "\r\n",
        multipart,
        "Subject: =?utf-8?q?a?=\r\n\r\n.\r\n..\r\n\t \r\n",
    ] {
        let message = fine(rest);
        assert_eq!(
            repaired(message.as_bytes()),
            (message.clone().into_bytes(), Vec::new()),
            "{rest}"
        );
    }
}

#[test]
fn line_ends() {
    check(
        &fine("Subject: a\r\n\r\none\ntwo\rthree\r\nfour"),
        &fine("Subject: a\r\n\r\none\r\ntwo\r\nthree\r\nfour\r\n"),
        "line-ends",
    );
    // So many that it is one edit.
    check(
        &fine(&format!("\r\n{}", "x\n".repeat(3000))),
        &fine(&format!("\r\n{}", "x\r\n".repeat(3000))),
        "line-ends",
    );
}

#[test]
fn fields_that_are_there_twice() {
    check(
        &fine("Subject: one\r\nsubject: two\r\nFROM: b@example.org\r\n\r\nbody\r\n"),
        &fine(
            "Subject: one\r\nX-Duplicate-subject: two\r\nX-Duplicate-FROM: b@example.org\r\n\r\nbody\r\n",
        ),
        "singletons",
    );
}

#[test]
fn fields_that_are_missing_and_an_id_that_is_the_same_each_time() {
    let message = b"From: a@example.org\r\n\r\nbody\r\n";
    let (octets, done) = repaired(message);
    let text = String::from_utf8(octets).unwrap();
    assert!(
        text.starts_with(
            "From: a@example.org\r\nDate: Tue, 24 Nov 2026 05:05:30 +0000\r\nMessage-ID: <"
        ),
        "{text}"
    );
    assert!(
        text.ends_with("@normalizer.invalid>\r\n\r\nbody\r\n"),
        "{text}"
    );
    assert_eq!(done, ["date", "message-id"]);
    let later = Facts {
        date: "Tue, 24 Nov 2026 05:06:00 +0000",
        ..FACTS
    };
    let again = normalise(message, &Config::default(), later).unwrap();
    let id = |edits: &[Splice]| {
        let text = String::from_utf8(edits[0].replacement.to_vec()).unwrap();
        text.split("Message-ID").nth(1).unwrap().to_owned()
    };
    let first = normalise(message, &Config::default(), FACTS).unwrap();
    assert_eq!(id(&first.edits), id(&again.edits));
}

#[test]
fn raw_octets_in_header_fields_unless_smtputf8_was_said() {
    let message = fine("Subject: Grüße\r\n\r\nbody\r\n");
    let encoded = opes_mime::words::encode_words("Grüße");
    check(
        &message,
        &fine(&format!("Subject: {encoded}\r\n\r\nbody\r\n")),
        "raw-headers",
    );
    let utf8 = Facts {
        smtputf8: true,
        ..FACTS
    };
    assert_eq!(
        normalise(message.as_bytes(), &Config::default(), utf8).unwrap(),
        Normalised::default()
    );
}

#[test]
fn a_multipart_without_an_end() {
    let start = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"a b\"\r\n\r\n--a b\r\n\r\none\r\n";
    check(
        &fine(start),
        &fine(&format!("{start}--a b--\r\n")),
        "boundaries",
    );
}

#[test]
fn base64_that_is_none() {
    let part = |body: &str| {
        fine(&format!(
            "MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n{body}"
        ))
    };
    check(
        &part("YWJjZGVm YWJjZGVm!YWJjZGVmYWJjZGV\r\nm\r\n"),
        &part("YWJjZGVmYWJjZGVmYWJjZGVmYWJjZGVm\r\n"),
        "base64",
    );
    check(&part("YWI\r\n"), &part("YWI=\r\n"), "base64");
    let long = "QUJD".repeat(40);
    let lines: Vec<_> = [&long[..76], &long[76..152], &long[152..]].to_vec();
    check(
        &part(&format!("{long}\r\n")),
        &part(&format!("{}\r\n", lines.join("\r\n"))),
        "base64",
    );
    // A text that only says so is left to people.
    let text = part("this is no base64, is it?! <really>\r\n");
    assert!(repaired(text.as_bytes()).1.is_empty());
}

#[test]
fn what_is_signed_is_not_touched() {
    let signed = fine(
        "MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nContent-Transfer-Encoding: base64\r\n\r\nYWI\r\n--s\r\nContent-Type: \
         application/pgp-signature\r\n\r\nx\r\n--s--\r\n",
    );
    assert!(repaired(signed.as_bytes()).1.is_empty());
}

#[test]
fn lines_that_are_too_long() {
    let long = "word ".repeat(300);
    let message = fine(&format!("Subject: a\r\n\r\n{long}\r\nshort\r\n"));
    let (octets, done) = repaired(message.as_bytes());
    assert_eq!(done, ["long-lines"]);
    let structure = opes_mime::scan(&octets);
    let part = &structure.parts[0];
    assert_eq!(part.encoding, opes_mime::Encoding::Base64);
    let mut text = Vec::new();
    let mut decoder = opes_mime::decode::Decoder::new(part.encoding);
    decoder.push(slice(&octets, part.body_start, part.body_end), &mut text);
    decoder.finish(&mut text);
    assert_eq!(text, format!("{long}\r\nshort\r\n").into_bytes());
    assert!(
        octets
            .split(|octet| *octet == b'\n')
            .all(|line| line.len() <= 999)
    );
}

fn mail() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"Subject: caf\xc3\xa9 \xe9\r\n"[..]),
        Just(&b"From: \"J\xc3\xb6rg\" <a@example.org>, \xe9@x\r\n"[..]),
        Just(&b"from: b@example.org\r\n"[..]),
        Just(&b"Content-Type: multipart/mixed; boundary=b; name=\"\xe9\"\r\n"[..]),
        Just(&b"Content-Type: text/plain\r\n"[..]),
        Just(&b"Content-Transfer-Encoding: base64\r\n"[..]),
        Just(&b"Content-Disposition: attachment; filename=\xc3\xa4.txt\r\n"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"--b\r\n"[..]),
        Just(&b"--b--\r\n"[..]),
        Just(&b"YWJj*ZGVm"[..]),
        Just(&b"QUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJDQUJD"[..]),
        Just(&b"not a field\r\n"[..]),
    ];
    proptest::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_was_repaired_is_fine(message in mail()) {
        let (once, _) = repaired(&message);
        let (twice, done) = repaired(&once);
        prop_assert!(done.is_empty(), "{done:?}\n{}\n---\n{}", String::from_utf8_lossy(&once), String::from_utf8_lossy(&twice));
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn hostile_mail_cannot_panic(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _repaired = repaired(&octets);
    }
}
