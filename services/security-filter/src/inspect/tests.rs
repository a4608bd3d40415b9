use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opes_mime::{Edit, Rope, apply};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::formats::tests::{eicar, pe, zip};

fn config() -> Config {
    Config::from_json(&json!({})).unwrap()
}

/// Path and label of what the defaults find in a message with CRLF line ends.
fn found(message: &str) -> Vec<(String, &'static str)> {
    labels(&inspect(
        message.replace('\n', "\r\n").as_bytes(),
        &config(),
    ))
}

fn labels(findings: &[Finding]) -> Vec<(String, &'static str)> {
    findings
        .iter()
        .map(|finding| (finding.path.clone(), finding.cause.label()))
        .collect()
}

fn one(path: &str, label: &'static str) -> Vec<(String, &'static str)> {
    vec![(path.to_owned(), label)]
}

/// A mixed message with a text and an entity that has these header lines and this body.
fn with_entity(entity: &str) -> String {
    format!(
        "Subject: s\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nText\n--b\n{entity}\n--b--\n"
    )
}

fn with_content(fields: &str, content: &[u8]) -> String {
    with_entity(&format!(
        "{fields}Content-Transfer-Encoding: base64\n\n{}",
        STANDARD.encode(content)
    ))
}

#[test]
fn clean_mail_is_clean() {
    for name in [
        "plain",
        "newsletter",
        "signed",
        "digest",
        "folded",
        "empty",
        "header-only",
        "prefix-boundaries",
        "missing-close",
    ] {
        let path = format!(
            "{}/../../tests/corpus/{name}.eml",
            env!("CARGO_MANIFEST_DIR")
        );
        assert_eq!(
            inspect(&std::fs::read(path).unwrap(), &config()),
            [],
            "{name}"
        );
    }
    assert_eq!(
        found(&with_content(
            "Content-Disposition: attachment; filename=a.pdf\n",
            b"%PDF-1.7"
        )),
        []
    );
    assert_eq!(
        found("Subject: s\n\n#!/bin/sh in a text is only a text\n"),
        []
    );
    assert_eq!(found("Subject: s\n\nWe begin 100 days of work.exe\n"), []);
}

#[test]
fn golden_messages_with_forbidden_parts() {
    for (name, expected) in [
        ("executable", one("2", "name")),
        ("nested-message", one("2.1.2", "name")),
        (
            "rfc2231-names",
            vec![("1".to_owned(), "name"), ("2".to_owned(), "name")],
        ),
        ("boundary-tricks", one("", "name")),
    ] {
        let path = format!(
            "{}/../../tests/corpus/{name}.eml",
            env!("CARGO_MANIFEST_DIR")
        );
        assert_eq!(
            labels(&inspect(&std::fs::read(path).unwrap(), &config())),
            expected,
            "{name}"
        );
    }
}

#[test]
fn content_counts_whatever_it_claims() {
    let lie = "Content-Type: image/png; name=holiday.png\n";
    for (content, label) in [
        (pe(), "pe"),
        (b"\x7fELF\x02".to_vec(), "elf"),
        (b"#!/bin/sh\n".to_vec(), "shebang"),
        (b"L\0\0\0\x01\x14\x02\0".to_vec(), "lnk"),
        (zip(&["word/vbaProject.bin"], 0), "ooxml-macro"),
        (zip(&["readme.txt", "x/setup.exe"], 0), "entry-name"),
        (format!("{}\r\n", eicar()).into_bytes(), "eicar"),
        (
            [vec![b'x'; 200_000], eicar().into_bytes()].concat(),
            "eicar",
        ),
    ] {
        assert_eq!(found(&with_content(lie, &content)), one("2", label));
    }
    assert_eq!(found(&with_content(lie, &zip(&["readme.txt"], 0))), []);
}

#[test]
fn names_in_every_spelling() {
    for field in [
        "Content-Disposition: attachment; filename=\"invoice.pdf.exe\"",
        "Content-Disposition: attachment; filename=\"invoice.EXE. \"",
        "Content-Disposition: attachment; filename*=utf-8''inv%6Fice%2Eexe",
        "Content-Disposition: attachment; filename*0=\"invoice.e\"; filename*1=\"xe\"",
        "Content-Type: application/x; name=\"=?utf-8?B?aW52b2ljZS5leGU=?=\"",
        "Content-Type: application/x; name=\"=?utf-8?Q?invoice.?= =?utf-8?Q?exe?=\"",
        "Content-Disposition: attachment; filename=a.txt\nContent-Type: text/plain; name=a.exe",
        "Content-Disposition: attachment; filename=\"a.txt\"; filename=\"a.exe\"",
        "Content-Disposition: attachment; filename=\"a\".exe",
        "Content-Disposition: attachment; filename=a.exe (comment)",
        "Content-Disposition: attachment; filename=a.txt\nContent-Disposition: attachment; filename=a.exe",
        "Content-Disposition: attachment;\n\tfilename\n =\n \"a.exe\"",
    ] {
        assert_eq!(
            found(&with_entity(&format!("{field}\n\nx"))),
            one("2", "name"),
            "{field}"
        );
    }
}

#[test]
fn uuencoded_files_in_a_text() {
    assert_eq!(
        found("Subject: s\n\nSee below\nbegin 644 tool.exe\n#0V%T\n`\nend\n"),
        one("", "entry-name")
    );
}

#[test]
fn declared_types() {
    let config =
        Config::from_json(&json!({ "blockTypes": ["audio/*"], "blockNames": [] })).unwrap();
    let message = with_entity("Content-Type: Audio/MPEG\n\nx").replace('\n', "\r\n");
    assert_eq!(
        labels(&inspect(message.as_bytes(), &config)),
        one("2", "declared-type")
    );
}

#[test]
fn messages_in_messages() {
    let nested = |depth: usize| {
        format!(
            "{}Subject: s\n\nhi\n",
            "Content-Type: message/rfc822\n\n".repeat(depth)
        )
    };
    assert_eq!(found(&nested(5)), []);
    assert_eq!(found(&nested(6)), one("1.1.1.1.1", "nesting"));
    assert_eq!(
        found(&nested(60))[0].0,
        "",
        "beyond the scanner's depth, the whole message"
    );
    let inner = with_content("Content-Disposition: attachment; filename=a.exe\n", b"x")
        .replace('\n', "\r\n");
    for times in 1..4 {
        let mut encoded = inner.clone();
        for _ in 0..times {
            encoded = with_content("Content-Type: message/rfc822\n", encoded.as_bytes())
                .replace('\n', "\r\n");
        }
        assert_eq!(
            labels(&inspect(encoded.as_bytes(), &config())),
            one("2", "name"),
            "encoded {times} times"
        );
    }
}

/// Each hides `evil.exe` from a strict reader.
#[test]
fn tricks_with_boundaries_and_encodings() {
    let evil = "Content-Disposition: attachment; filename=evil.exe\n\nx\n";
    let base64 = STANDARD.encode(pe());
    for (message, why) in [
        (
            format!(
                "Content-Type: multipart/mixed; boundary=a; boundary=b\n\n--a\n\nx\n--a--\n--b\n{evil}--b--\n"
            ),
            "second boundary",
        ),
        (
            format!(
                "Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n--a--\n--a\n{evil}--a--\n"
            ),
            "after the end",
        ),
        (
            format!(
                "Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx\n--a junk\n{evil}--a--\n"
            ),
            "delimiter with a tail",
        ),
        (
            format!("Content-Type: multipart/mixed\n\n--a\n{evil}--a--\n"),
            "no boundary",
        ),
        (
            format!(
                "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=a\n\n--a\n{evil}--a--\n"
            ),
            "two types",
        ),
        (
            format!(
                "Content-Type: multipart/mixed; boundary=a\nContent-Transfer-Encoding: base64\n\n{}",
                STANDARD.encode(format!("--a\n{evil}--a--\n"))
            ),
            "encoded multipart",
        ),
        (
            format!("Content-Transfer-Encoding: base-64\n\n{base64}"),
            "unknown encoding",
        ),
        (
            format!(
                "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\n{base64}"
            ),
            "two encodings",
        ),
    ] {
        let findings = found(&message);
        assert_eq!(findings.len(), 1, "{why}");
        assert_eq!(findings[0].0, "", "{why}");
    }
}

#[test]
fn defects_alone_forbid_nothing() {
    let ascii_armour = "Content-Type: multipart/mixed; boundary=\"-----\"; charset=a; charset=b\n\n-------\n\nx\n-------END\n---------\n";
    assert_eq!(found(ascii_armour), []);
}

#[test]
fn a_finding_is_reported_once_and_outermost() {
    let evil = "Content-Disposition: attachment; filename=evil.exe; filename=evil.exe\n\nx";
    assert_eq!(
        found(&with_entity(evil)),
        one("2", "name"),
        "the second look does not repeat it"
    );
    let forwarded = with_entity(&format!(
        "Content-Type: message/rfc822; name=mail.scr\n\n{}",
        with_entity(evil)
    ));
    assert_eq!(found(&forwarded)[0], ("2".to_owned(), "name"));
    assert_eq!(found(&forwarded).len(), 1);
}

/// The replaced part is gone, and every octet outside it is the same.
#[test]
fn replacing_leaves_every_other_octet() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus");
    for (name, path) in [("executable", "2"), ("nested-message", "2.1.2")] {
        let message = std::fs::read(format!("{folder}/{name}.eml")).unwrap();
        let structure = scan(&message);
        let part = structure.part(path).unwrap();
        let edits: Vec<Edit> = inspect(&message, &config())
            .into_iter()
            .map(|finding| Edit::PartReplace {
                path: finding.path,
                text: finding.cause.to_string(),
                name: String::new(),
            })
            .collect();
        let splices = apply(&structure, &message, &edits).unwrap();
        let result = Rope::identity(message.len() as u64)
            .splice_all(splices)
            .unwrap()
            .flatten(&message);
        let start = usize::try_from(part.header_start).unwrap();
        let tail = &message[usize::try_from(part.body_end).unwrap()..];
        assert_eq!(result[..start], message[..start], "{name}");
        assert!(result.ends_with(tail), "{name}");
        assert_eq!(inspect(&result, &config()), [], "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_panics(pieces in proptest::collection::vec(prop_oneof![
        Just("Content-Type: multipart/mixed; boundary=b\r\n"), Just("Content-Type: message/rfc822\r\n"), Just("\r\n"), Just("--b\r\n"),
        Just("--b--\r\n"), Just("--bx\r\n"), Just("Content-Transfer-Encoding: base64\r\n"), Just("TVqQAAMAAAA=\r\n"), Just("begin 644 "),
        Just("Content-Disposition: attachment; filename=a.exe\r\n"), Just("PK\x01\x02"), Just("\u{fc}"), Just("text"),
    ], 0..40), octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        inspect(pieces.concat().as_bytes(), &config());
        inspect(&octets, &config());
    }

    /// Wherever the parts end up, replacing what was found leaves a message in which nothing is found.
    #[test]
    fn replacing_all_findings_makes_a_clean_message(names in proptest::collection::vec("[ab]\\.(exe|txt)", 1..6)) {
        let entity = |name: &String| format!("--b\r\nContent-Disposition: attachment; filename={name}\r\n\r\nx\r\n");
        let entities = names.iter().map(entity).collect::<Vec<_>>().concat();
        let message = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{entities}--b--\r\n");
        let findings = inspect(message.as_bytes(), &config());
        prop_assert_eq!(findings.len(), names.iter().filter(|name| name.ends_with("exe")).count());
        let edits: Vec<Edit> = findings.into_iter()
            .map(|finding| Edit::PartReplace { path: finding.path, text: "gone".to_owned(), name: String::new() }).collect();
        let splices = apply(&scan(message.as_bytes()), message.as_bytes(), &edits).unwrap();
        let result = Rope::identity(message.len() as u64).splice_all(splices).unwrap().flatten(message.as_bytes());
        prop_assert_eq!(inspect(&result, &config()), []);
    }
}
