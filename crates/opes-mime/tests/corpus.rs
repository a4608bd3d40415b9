//! Golden messages: `tests/corpus/*.eml` with what the scanner says of them beside in `*.expect`.
//! `OPES_UPDATE_CORPUS=1 cargo test -p opes-mime` writes the expectations anew; review them like code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mail_parser::{MessageParser, MimeHeaders as _, PartType};
use opes_mime::{Structure, scan};

/// Messages that mail-parser 0.11.9 reads in another way, and why ours stays. (A further one is not here: a message directly
/// inside a message inside a multipart fails a debug assertion of mail-parser's.)
const DIFFERENCES: [(&str, &str); 3] = [
    (
        "empty",
        "mail-parser has no message without a header field; ours is an empty text",
    ),
    (
        "missing-close",
        "mail-parser runs on over the outer delimiter if the inner one does not come again; RFC 2046 §5.1.2 does not",
    ),
    (
        "rfc2231-names",
        "blanks: between encoded words in a parameter, and in names without quotes, which ours keeps whole",
    ),
];

fn corpus() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let messages =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "eml"));
    let mut named: Vec<_> = messages
        .map(|path| {
            (
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                path,
            )
        })
        .collect();
    named.sort();
    named
}

fn dump(message: &[u8], structure: &Structure) -> String {
    let span = |range: &std::ops::Range<u64>| {
        message[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
            .escape_ascii()
            .to_string()
    };
    let mut text = format!(
        "len {} header_end {} fields_end {}\n",
        structure.len, structure.header_end, structure.fields_end
    );
    for field in &structure.fields {
        writeln!(
            text,
            "field {}..{} {} |{}|",
            field.whole.start,
            field.whole.end,
            span(&field.name),
            span(&field.value)
        )
        .unwrap();
    }
    for part in &structure.parts {
        let (header, start, end, next) = (
            part.header_start,
            part.body_start,
            part.body_end,
            part.entity_end,
        );
        write!(
            text,
            "part {:?} {} {:?} {header} {start}..{end} {next}",
            part.path, part.content_type, part.encoding
        )
        .unwrap();
        writeln!(
            text,
            " {:?} {:?}",
            part.disposition,
            part.names().collect::<Vec<_>>()
        )
        .unwrap();
    }
    writeln!(text, "truncated {:?}", structure.truncated).unwrap();
    writeln!(
        text,
        "defects {:?}",
        structure.defects.iter().collect::<Vec<_>>()
    )
    .unwrap();
    text
}

#[test]
fn structures_are_as_expected() {
    let update = std::env::var_os("OPES_UPDATE_CORPUS").is_some();
    let messages = corpus();
    assert!(messages.len() >= 14, "the corpus is not where it should be");
    for (name, path) in messages {
        let message = std::fs::read(&path).unwrap();
        let found = dump(&message, &scan(&message));
        let expect = path.with_extension("expect");
        if update {
            std::fs::write(&expect, &found).unwrap();
        }
        assert_eq!(
            found,
            std::fs::read_to_string(&expect).unwrap_or_default(),
            "{name}"
        );
    }
}

/// Path-free view of the leaves: body offsets and name.
fn our_leaves(structure: &Structure) -> Vec<(u64, u64, String)> {
    let leaves = structure.parts.iter().filter(|part| !part.is_container());
    leaves
        .map(|part| (part.body_start, part.body_end, part.name.clone()))
        .collect()
}

fn their_leaves(parts: &[mail_parser::MessagePart<'_>], leaves: &mut Vec<(u64, u64, String)>) {
    for part in parts {
        match &part.body {
            PartType::Message(message) => their_leaves(&message.parts, leaves),
            PartType::Multipart(_) => {}
            _ => {
                let name = part.attachment_name().unwrap_or_default().to_owned();
                leaves.push((
                    u64::from(part.offset_body),
                    u64::from(part.offset_end),
                    name,
                ));
            }
        }
    }
}

#[test]
fn mail_parser_agrees_but_for_named_differences() {
    for (name, path) in corpus() {
        let message = std::fs::read(&path).unwrap();
        let mut theirs = Vec::new();
        if let Some(parsed) = MessageParser::default().parse(&message) {
            their_leaves(&parsed.parts, &mut theirs);
        }
        let differs = DIFFERENCES.iter().find(|(known, _)| *known == name);
        let ours = our_leaves(&scan(&message));
        match differs {
            None => assert_eq!(ours, theirs, "{name}"),
            Some((_, why)) => assert_ne!(
                ours, theirs,
                "{name} is the same now, strike it from the list: {why}"
            ),
        }
    }
}
