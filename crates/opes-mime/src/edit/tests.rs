use mail_parser::MessageParser;
use proptest::prelude::*;

use super::*;
use crate::rope::Rope;
use crate::scan::scan;

fn crlf(message: &str) -> Vec<u8> {
    message.replace('\n', "\r\n").into_bytes()
}

fn edited(message: &[u8], edits: &[Edit]) -> Result<Vec<u8>, EditError> {
    let splices = apply(&scan(message), message, edits)?;
    let rope = Rope::identity(message.len() as u64)
        .splice_all(splices)
        .expect("apply gives sorted splices");
    Ok(rope.flatten(message))
}

fn text(message: &str, edits: &[Edit]) -> String {
    String::from_utf8(edited(&crlf(message), edits).unwrap())
        .unwrap()
        .replace("\r\n", "\n")
}

fn add(name: &str, value: &str, append: bool) -> Edit {
    Edit::HeaderAdd {
        name: name.into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        append,
    }
}

fn replace(name: &str, index: u32, value: &str) -> Edit {
    Edit::HeaderReplace {
        name: name.into(),
        index,
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn delete(name: &str, index: Option<u32>) -> Edit {
    Edit::HeaderDelete {
        name: name.into(),
        index,
    }
}

fn mark(text: &str) -> Edit {
    Edit::SubjectMark { text: text.into() }
}

fn replace_part(path: &str, text: &str) -> Edit {
    Edit::PartReplace {
        path: path.into(),
        text: text.into(),
        name: String::new(),
    }
}

fn mark_body(text: &str) -> Edit {
    Edit::BodyMark { text: text.into() }
}

#[test]
fn fields_are_added_at_the_top_and_below_the_last() {
    let edits = [
        add("A", "1", false),
        add("B", "2", false),
        add("Y", "8", true),
        add("Z", "", true),
    ];
    assert_eq!(
        text("M: n\n\nbody\n", &edits),
        "A: 1\nB: 2\nM: n\nY: 8\nZ:\n\nbody\n"
    );
    assert_eq!(text("M: n", &edits), "A: 1\nB: 2\nM: n\nY: 8\nZ:\n");
    assert_eq!(text("\nbody", &edits), "A: 1\nB: 2\nY: 8\nZ:\n\nbody");
    assert_eq!(text("", &edits), "A: 1\nB: 2\nY: 8\nZ:\n");
}

#[test]
fn fields_are_inserted_between_others() {
    let insert = |index, value: &str| Edit::HeaderInsert {
        name: "I".into(),
        index,
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let edits = [
        insert(1, "1"),
        insert(0, "0"),
        insert(1, "2"),
        insert(3, "3"),
        delete("B", None),
        add("Z", "9", true),
    ];
    assert_eq!(
        text("A: a\nB: b\n c\nC: d\n\nbody\n", &edits),
        "I: 0\nA: a\nI: 1\nI: 2\nC: d\nI: 3\nZ: 9\n\nbody\n"
    );
    assert_eq!(text("\nbody", &[insert(0, "0")]), "I: 0\n\nbody");
}

#[test]
fn fields_are_replaced_and_deleted_by_name_and_number() {
    let message = "X: 1\nx : 2\n folded\nM: n\nX: 3\n\n";
    assert_eq!(
        text(message, &[replace("X", 1, "two")]),
        "X: 1\nx : two\nM: n\nX: 3\n\n"
    );
    assert_eq!(
        text(message, &[delete("x", Some(1))]),
        "X: 1\nM: n\nX: 3\n\n"
    );
    assert_eq!(
        text(message, &[delete("X", None), delete("X", Some(0))]),
        "M: n\n\n"
    );
    assert_eq!(text(message, &[delete("Q", None)]), message);
    assert_eq!(
        text(message, &[replace("Q", 0, "new")]),
        "X: 1\nx : 2\n folded\nM: n\nX: 3\nQ: new\n\n"
    );
    assert_eq!(
        edited(&crlf(message), &[replace("X", 3, "?")]),
        Err(EditError::NoSuchField {
            name: "X".into(),
            index: 3
        })
    );
    assert_eq!(
        edited(
            &crlf(message),
            &[replace("X", 0, "a"), delete("X", Some(0))]
        ),
        Err(EditError::Conflict { offset: 2 })
    );
}

#[test]
fn values_cannot_end_their_field() {
    for value in [
        "a\r\nEvil: 1",
        "a\nb",
        "a\rb",
        "a\0b",
        "a\r\n",
        "a\r\n \r\n b",
        "\r\n\tok\r\n \t",
    ] {
        let result = edited(b"A: b\r\n\r\n", &[add("X", value, false)]);
        assert!(
            matches!(result, Err(EditError::InvalidValue { .. })),
            "{value:?}: {result:?}"
        );
    }
    for name in ["", "A b", "A:", "Ä", "A\r\nB", &"n".repeat(77)] {
        assert!(
            matches!(
                edited(b"", &[add(name, "v", true)]),
                Err(EditError::InvalidName(_))
            ),
            "{name:?}"
        );
        assert!(
            matches!(
                edited(b"", &[delete(name, None)]),
                Err(EditError::InvalidName(_))
            ),
            "{name:?}"
        );
    }
    assert!(matches!(
        edited(b"", &[add("X", &"v".repeat(996), true)]),
        Err(EditError::LineTooLong { .. })
    ));
    assert_eq!(
        text("\n", &[add("X", "folded\r\n value", true)]),
        "X: folded\n value\n\n"
    );
}

#[test]
fn the_subject_is_marked_once() {
    let marks = [mark("[X] ")];
    for (subject, expected) in [
        ("Subject: Hi\n\n", "Subject: [X] Hi\n\n"),
        ("SUBJECT:Hi\n\n", "SUBJECT: [X] Hi\n\n"),
        ("Subject: Re: [X] Hi\n\n", "Subject: Re: [X] Hi\n\n"),
        (
            "Subject: =?utf-8?B?W1hdIEhp?=\n\n",
            "Subject: =?utf-8?B?W1hdIEhp?=\n\n",
        ),
        (
            "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\n\n",
            "Subject: [X] =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\n\n",
        ),
        ("Subject:\n folded\n\n", "Subject:\n [X] folded\n\n"),
        ("Subject:\n\n", "Subject: [X]\n\n"),
        ("A: b\n\n", "A: b\nSubject: [X]\n\n"),
        (
            "Subject: one\nSubject: two\n\n",
            "Subject: [X] one\nSubject: two\n\n",
        ),
    ] {
        assert_eq!(text(subject, &marks), expected);
        assert_eq!(
            text(expected, &marks),
            expected,
            "marking twice changes nothing"
        );
    }
    assert_eq!(
        edited(b"", &[mark("a\r\nb")]),
        Err(EditError::InvalidText("subject mark"))
    );
    assert_eq!(
        edited(b"", &[mark("  ")]),
        Err(EditError::InvalidText("subject mark"))
    );
}

#[test]
fn marks_that_are_not_ascii_decode_with_the_subject() {
    for subject in [
        "Hallo",
        "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=",
        "",
        &"long ".repeat(190),
    ] {
        let message = crlf(&format!("Subject: {subject}\n\nbody"));
        let result = edited(
            &message,
            &[mark(
                "[geprüft – entfernt: größere Dateien, übrige Anhänge]",
            )],
        )
        .unwrap();
        let parsed = MessageParser::default()
            .parse(&message)
            .unwrap()
            .subject()
            .unwrap_or_default()
            .to_owned();
        let marked = MessageParser::default()
            .parse(&result)
            .unwrap()
            .subject()
            .unwrap()
            .to_owned();
        let expected = format!("[geprüft – entfernt: größere Dateien, übrige Anhänge] {parsed}");
        assert_eq!(marked.trim(), expected.trim());
        assert!(
            result
                .split(|c| *c == b'\n')
                .all(|line| line.len() <= LINE_OCTETS_MAX + 1)
        );
        assert_eq!(
            edited(
                &result,
                &[mark(
                    "[geprüft – entfernt: größere Dateien, übrige Anhänge]"
                )]
            )
            .unwrap(),
            result
        );
    }
}

const MIXED: &str = "Subject: s\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n\none\n--b\nContent-Type: image/png\n\ntwo\n\n--b\n--b--\nepilogue";

#[test]
fn a_part_gives_way_to_a_text() {
    let fields = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\nContent-Disposition: inline\n\n";
    let head = "Subject: s\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n";
    let tail = "\n--b\n--b--\nepilogue";
    assert_eq!(
        text(MIXED, &[replace_part("2", "gone")]),
        format!("{head}\none\n--b\n{fields}gone{tail}")
    );
    let empty = text(MIXED, &[replace_part("3", "filled")]);
    assert_eq!(
        empty,
        format!(
            "{head}\none\n--b\nContent-Type: image/png\n\ntwo\n\n--b\n{fields}filled\n--b--\nepilogue"
        )
    );
    assert_eq!(
        edited(&crlf(MIXED), &[replace_part("4", "x")]),
        Err(EditError::NoSuchPart("4".into()))
    );
    assert!(matches!(
        edited(
            &crlf(MIXED),
            &[replace_part("2", "x"), replace_part("2", "y")]
        ),
        Err(EditError::Conflict { .. })
    ));
}

#[test]
fn the_message_itself_gives_way_to_a_text() {
    let message = "Content-Type: application/x\nSubject: s\nContent-Transfer-Encoding: base64\nX: y\n\nTVqQ\n";
    assert_eq!(
        text(message, &[replace_part("", "gone")]),
        "Subject: s\nX: y\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\nContent-Disposition: inline\n\ngone"
    );
    let bare = text("Subject: s", &[replace_part("", "gone"), mark("[x]")]);
    assert!(
        bare.starts_with("Subject: [x] s\nMIME-Version: 1.0\n") && bare.ends_with("inline\n\ngone"),
        "{bare}"
    );
}

#[test]
fn the_new_part_is_what_was_asked_for() {
    let long = "x".repeat(1200);
    for (content, name) in [
        ("plain\nlines", "note.txt"),
        (
            "Grüße, 100 % = alles ",
            "geprüft \"ok\" – lange Erklärung zum Anhang.txt",
        ),
        ("--b--\n--b\n-- \n", "a\\b\".txt"),
        (long.as_str(), ""),
        ("", ""),
    ] {
        let edit = Edit::PartReplace {
            path: "2".into(),
            text: content.into(),
            name: name.into(),
        };
        let message = edited(&crlf(MIXED), &[edit]).unwrap();
        let structure = scan(&message);
        assert_eq!(structure.parts.len(), 4, "{content}");
        assert_eq!(structure.part("2").unwrap().name, name);
        let parsed = MessageParser::default().parse(&message).unwrap();
        assert_eq!(
            parsed.parts[2].text_contents().unwrap(),
            content.replace('\n', "\r\n")
        );
        assert!(
            message
                .split(|c| *c == b'\n')
                .all(|line| line.len() <= LINE_OCTETS_MAX + 1)
        );
    }
    let named = Edit::PartReplace {
        path: "2".into(),
        text: String::new(),
        name: "a\r\nb".into(),
    };
    assert_eq!(
        edited(&crlf(MIXED), &[named]),
        Err(EditError::InvalidText("name of the new part"))
    );
}

/// Content of the first text of type `subtype`, before and after `edit`.
fn marked_text(message: &[u8], edit: Edit) -> (String, String) {
    let content = |message: &[u8]| {
        let parsed = MessageParser::default().parse(message).unwrap();
        parsed
            .text_bodies()
            .next()
            .unwrap()
            .text_contents()
            .unwrap()
            .to_owned()
    };
    (
        content(message),
        content(&edited(message, &[edit]).unwrap()),
    )
}

#[test]
fn body_marks_decode_with_the_text_behind_them() {
    for fields in [
        "Content-Transfer-Encoding: 8bit\n\nGrüße, Welt\n",
        "Content-Transfer-Encoding: quoted-printable\n\nGr=C3=BC=C3=9Fe,=\n Welt\n",
        "Content-Transfer-Encoding: base64\n\nR3LDvMOfZSwgV2\nVsdAo=\n",
    ] {
        let message = crlf(&format!(
            "Content-Type: text/plain; charset=utf-8\n{fields}"
        ));
        for text in [
            "Vorsicht, geprüft!",
            "a",
            "ab",
            "abc",
            "zwei\nZeilen",
            "--b",
        ] {
            let (before, after) = marked_text(&message, mark_body(text));
            let (mark, rest) = after.split_at(after.len() - before.len());
            assert_eq!(rest, before);
            assert_eq!(mark.trim(), text.replace('\n', "\r\n"), "{fields}");
        }
    }
}

#[test]
fn every_alternative_is_marked_and_attachments_are_not() {
    let message = "Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/plain\nContent-Disposition: attachment\n\nfile\n--m\nContent-Type: multipart/alternative; boundary=a\n\n--a\n\nplain\n--a\nContent-Type: multipart/related; boundary=r\n\n--r\nContent-Type: text/html\n\n<p>html\n--r--\n--a--\n--m--\n";
    let marked = text(message, &[mark_body("1 < 2")]);
    assert!(
        marked.contains("\n\n1 < 2\n\nplain\n")
            && marked.contains("\n\n<div>1 &lt; 2</div>\n<p>html\n"),
        "{marked}"
    );
    assert!(marked.contains("\n\nfile\n"));
    let without_plain = text(message, &[mark_body("1 < 2"), replace_part("2.1", "gone")]);
    assert!(
        without_plain.contains("<div>1 &lt; 2</div>") && !without_plain.contains("\n1 < 2"),
        "{without_plain}"
    );
}

#[test]
fn impossible_body_marks_are_refused() {
    for message in [
        "Content-Type: image/png\n\nx",
        "Content-Type: text/plain; charset=utf-16\n\nx",
        "Content-Type: text/plain; charset=us-ascii\n\nx",
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: x-uuencode\n\nx",
    ] {
        assert!(
            matches!(
                edited(&crlf(message), &[mark_body("ü")]),
                Err(EditError::Unsupported(_))
            ),
            "{message}"
        );
    }
    assert_eq!(text("A: b", &[mark_body("x")]), "A: b\n\nx\n\n");
}

#[test]
fn new_fields_stay_in_a_header_section_without_end() {
    for (message, edits, expected) in [
        (
            "A: 1",
            vec![delete("A", None), add("B", "2", true)],
            "B: 2\r\n",
        ),
        (
            "A: 1",
            vec![add("B", "2", true), delete("A", None)],
            "B: 2\r\n",
        ),
        (
            "A: 1",
            vec![mark_body("text"), add("B", "2", true)],
            "A: 1\r\nB: 2\r\n\r\ntext\r\n\r\n",
        ),
        (
            "A: 1\r\n",
            vec![mark_body("text"), mark_body("more")],
            "A: 1\r\n\r\ntext\r\n\r\nmore\r\n\r\n",
        ),
        (
            "Content-Type: a/b\r\n",
            vec![replace_part("", "gone"), add("B", "2", true)],
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\
             Content-Disposition: inline\r\nB: 2\r\n\r\ngone",
        ),
    ] {
        let made = edited(message.as_bytes(), &edits).unwrap();
        assert_eq!(String::from_utf8(made).unwrap(), expected, "{edits:?}");
    }
}

#[test]
fn a_header_section_beyond_its_limit_is_not_cut_by_a_body_mark() {
    let message = "X: y\r\n".repeat(200_000);
    let error = edited(message.as_bytes(), &[mark_body("text")]).unwrap_err();
    assert_eq!(error, EditError::HeaderBeyondLimit(Limit::HeaderFields));
}

#[test]
fn own_splices_must_fit() {
    let splice = |offset, size| {
        Edit::Splice(Splice {
            offset,
            size,
            replacement: Bytes::new(),
        })
    };
    assert!(matches!(
        edited(b"A: b\r\n", &[splice(3, 9)]),
        Err(EditError::OutOfRange { end: 12, .. })
    ));
    assert!(edited(b"A: b\r\n", &[splice(u64::MAX, u64::MAX)]).is_err());
    assert!(matches!(
        apply(&scan(b"A: b\r\n"), b"A:", &[]),
        Err(EditError::HeaderMissing { have: 2, want: 6 })
    ));
    assert_eq!(
        edited(b"", &vec![mark("x"); EDITS_MAX + 1]),
        Err(EditError::TooMany)
    );
}

/// Messages of pieces that edits care about.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("Subject: s\r\n"),
        Just("X: 1\r\n"),
        Just(" folded\r\n"),
        Just("\r\n"),
        Just("no field\r\n"),
        Just("text"),
        Just("Content-Type: multipart/mixed; boundary=b\r\n"),
        Just("Content-Type: message/rfc822\r\n"),
        Just("--b\r\n"),
        Just("--b--\r\n"),
        Just("Content-Transfer-Encoding: base64\r\n"),
        Just("Content-Type: text/html\r\n"),
        Just("\u{fc}"),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let name = prop_oneof![Just("X"), Just("Subject"), Just("Y"), Just("Content-Type")];
    let path = prop_oneof![Just(""), Just("1"), Just("2"), Just("1.1"), Just("2.1")];
    let edit = prop_oneof![
        (name.clone(), "[a-z]{0,9}", any::<bool>())
            .prop_map(|(name, value, append)| add(name, &value, append)),
        (name.clone(), 0..2u32).prop_map(|(name, index)| replace(name, index, "new")),
        (name, proptest::option::of(0..2u32)).prop_map(|(name, index)| delete(name, index)),
        "[a-zü]{1,9}".prop_map(|text| mark(&text)),
        (path, "[a-zü\n-]{0,9}").prop_map(|(path, text)| replace_part(path, &text)),
        "[a-zü\n-]{1,9}".prop_map(|text| mark_body(&text)),
        (0..60u64, 0..9u64).prop_map(|(offset, size)| Edit::Splice(Splice {
            offset,
            size,
            replacement: Bytes::from_static(b"#")
        })),
    ];
    proptest::collection::vec(edit, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Outside the spliced spans the result is the original, octet for octet.
    #[test]
    fn what_is_not_edited_stays(message in messages(), edits in edits()) {
        let Ok(splices) = apply(&scan(&message), &message, &edits) else { return Ok(()) };
        let result = edited(&message, &edits).unwrap();
        let (mut ours, mut original) = (result.as_slice(), message.as_slice());
        let mut done = 0;
        for splice in &splices {
            let kept = usize::try_from(splice.offset - done).unwrap();
            prop_assert_eq!(&ours[..kept], &original[..kept]);
            prop_assert!(ours[kept..].starts_with(&splice.replacement));
            ours = &ours[kept + splice.replacement.len()..];
            original = &original[kept + usize::try_from(splice.size).unwrap()..];
            done = splice.offset + splice.size;
        }
        prop_assert_eq!(ours, original);
    }

    /// Adding a field changes the field list by that field, and no other part of the structure.
    #[test]
    fn an_added_field_is_the_only_difference(message in messages(), append in any::<bool>()) {
        let before = scan(&message);
        let result = edited(&message, &[add("X-New", "v", append)]).unwrap();
        let after = scan(&result);
        prop_assert_eq!(result.len(), message.len() + if append && before.fields_end > 0 && !message[..usize::try_from(before.fields_end).unwrap()].ends_with(b"\n") { 12 } else { 10 });
        prop_assert_eq!(after.fields.len(), before.fields.len() + 1);
        prop_assert_eq!(after.parts.len(), before.parts.len());
    }

    #[test]
    fn arbitrary_octets_and_edits_never_panic(message in proptest::collection::vec(any::<u8>(), 0..200), edits in edits()) {
        if let Ok(result) = edited(&message, &edits) {
            scan(&result);
        }
    }
}
