use mail_parser::{MessageParser, MessagePart, MimeHeaders as _, PartType};
use proptest::prelude::*;

use super::*;
use crate::structure::{DEPTH_MAX, Defect, HEADER_FIELDS_MAX, PARTS_MAX, Part};

fn paths(structure: &Structure) -> Vec<&str> {
    structure
        .parts
        .iter()
        .map(|part| part.path.as_str())
        .collect()
}

fn body<'m>(message: &'m [u8], structure: &Structure, path: &str) -> &'m str {
    std::str::from_utf8(structure.part(path).unwrap().body(message)).unwrap()
}

/// `message` with CRLF line ends, as a dialog would carry it.
fn crlf(message: &str) -> Vec<u8> {
    message.replace('\n', "\r\n").into_bytes()
}

#[test]
fn header_end_is_after_the_empty_line() {
    assert_eq!(header_end(b"A: b\r\n\r\nbody"), Some(8));
    assert_eq!(header_end(b"A: b\n\nbody"), Some(6));
    assert_eq!(header_end(b"\r\nbody"), Some(2));
    assert_eq!(header_end(b"A: b\r\n\r"), None);
    assert_eq!(header_end(b""), None);
}

#[test]
fn fields_have_exact_spans() {
    let message = b"Subject: a\r\n b\r\nX :y\r\nno field\r\nEmpty:\r\n\r\nbody";
    let structure = scan(message);
    let text = |span: &std::ops::Range<u64>| {
        crate::structure::slice(message, span)
            .escape_ascii()
            .to_string()
    };
    let fields: Vec<_> = structure
        .fields
        .iter()
        .map(|field| (text(&field.name), text(&field.value), text(&field.whole)))
        .collect();
    let expected = [
        ("Subject", " a\\r\\n b", "Subject: a\\r\\n b\\r\\n"),
        ("X", "y", "X :y\\r\\n"),
        ("Empty", "", "Empty:\\r\\n"),
    ];
    assert_eq!(
        fields,
        expected.map(|(n, v, w)| (n.to_owned(), v.to_owned(), w.to_owned()))
    );
    assert_eq!((structure.fields_end, structure.header_end), (40, 42));
    assert!(structure.defects.contains(Defect::NotAField));
}

#[test]
fn messages_without_a_part_of_themselves() {
    for (message, header_end) in [
        ("", 0),
        ("A: b", 4),
        ("A: b\r\n", 6),
        ("\r\n", 2),
        ("hello", 5),
    ] {
        let structure = scan(message.as_bytes());
        assert_eq!(structure.header_end, header_end, "{message:?}");
        assert_eq!(
            (structure.parts.len(), structure.len),
            (1, message.len() as u64)
        );
        assert_eq!(structure.parts[0].content_type, "text/plain");
        assert_eq!(structure.parts[0].body_start, structure.parts[0].body_end);
    }
}

#[test]
fn preamble_and_epilogue_belong_to_no_part() {
    let message = crlf(
        "Content-Type: multipart/mixed; boundary=\"b:1\"\n\npreamble\n--b:1\n\none\n\n--b:1  \nContent-Type: text/html\n\n\n--b:1--\nepilogue\n",
    );
    let structure = scan(&message);
    assert_eq!(paths(&structure), ["", "1", "2"]);
    assert_eq!(body(&message, &structure, "1"), "one\r\n");
    assert_eq!(body(&message, &structure, "2"), "");
    assert_eq!(structure.parts[0].body_end, message.len() as u64);
    assert!(structure.defects.is_empty());
}

#[test]
fn a_boundary_may_be_the_prefix_of_another() {
    for (outer, inner) in [("abc", "abcd"), ("abcd", "abc"), ("abc", "abc--x")] {
        let message = crlf(&format!(
            "Content-Type: multipart/mixed; boundary={outer}\n\n--{outer}\nContent-Type: multipart/mixed; boundary={inner}\n\n--{inner}\n\nin\n--{inner}--\n--{outer}\n\nout\n--{outer}--\n"
        ));
        let structure = scan(&message);
        assert_eq!(paths(&structure), ["", "1", "1.1", "2"], "{outer} {inner}");
        assert_eq!(body(&message, &structure, "1.1"), "in");
        assert_eq!(body(&message, &structure, "2"), "out");
    }
}

#[test]
fn missing_delimiters_end_with_the_message_or_the_outer_multipart() {
    let message = crlf(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nin\n--o\nA: header only\n--o\n\nlast",
    );
    let structure = scan(&message);
    assert_eq!(paths(&structure), ["", "1", "1.1", "2", "3"]);
    assert_eq!(body(&message, &structure, "1.1"), "in");
    assert_eq!(body(&message, &structure, "2"), "");
    assert_eq!(body(&message, &structure, "3"), "last");
    assert!(structure.defects.contains(Defect::MissingClose));
}

#[test]
fn enclosed_messages_have_paths_of_their_own() {
    let message = crlf(
        "Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: one\n\nfirst\n--d\nContent-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=i\n\n--i\n\nin\n--i--\n--d--\n",
    );
    let structure = scan(&message);
    assert_eq!(paths(&structure), ["", "1", "1.1", "2", "2.1", "2.1.1"]);
    assert_eq!(structure.part("1").unwrap().content_type, "message/rfc822");
    assert_eq!(body(&message, &structure, "1.1"), "first");
    assert_eq!(body(&message, &structure, "2.1.1"), "in");
    assert_eq!(
        structure.fields.len(),
        1,
        "only fields of the message itself"
    );
}

#[test]
fn what_readers_disagree_about_is_a_defect() {
    let mixed = "Content-Type: multipart/mixed; boundary=b\n";
    for (message, defect) in [
        (
            format!("{mixed}\n--b\n\nx\n--bogus\n--b--\n"),
            Defect::DelimiterPrefix,
        ),
        (
            format!("{mixed}\n--b\n\nx\n--b--\n--b\n\nhidden\n"),
            Defect::DelimiterAfterClose,
        ),
        (
            format!("{mixed}Content-Type: text/plain\n\n--b\n\nx\n--b--\n"),
            Defect::RepeatedField,
        ),
        (
            format!("{mixed}\n--b\n{mixed}\n--b\n\nx\n--b--\n"),
            Defect::RepeatedBoundary,
        ),
        (
            format!("{mixed}Content-Transfer-Encoding: base64\n\n--b\n\nx\n--b--\n"),
            Defect::EncodedContainer,
        ),
        (
            "Content-Type: multipart/mixed\n\nx".to_owned(),
            Defect::MissingBoundary,
        ),
        (
            "Content-Type: text/plain; a=b; a=c\n\nx".to_owned(),
            Defect::Parameters,
        ),
        (
            "Content-Transfer-Encoding: x-uuencode\n\nx".to_owned(),
            Defect::UnknownEncoding,
        ),
        ("A: b\n \n\nx".to_owned(), Defect::BlankFold),
    ] {
        let found = scan(&crlf(&message)).defects;
        assert!(
            found.contains(defect),
            "{message:?} gives {:?}",
            found.iter().collect::<Vec<_>>()
        );
    }
}

#[test]
fn limits_are_reported_and_kept() {
    let many = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n{}",
        "--b\n\nx\n".repeat(PARTS_MAX + 5)
    );
    let structure = scan(&crlf(&many));
    assert_eq!(
        (structure.parts.len(), structure.truncated),
        (PARTS_MAX, Some(Limit::Parts))
    );

    let deep = "Content-Type: message/rfc822\n\n".repeat(DEPTH_MAX + 5);
    let structure = scan(&crlf(&deep));
    assert_eq!(
        (structure.parts.len(), structure.truncated),
        (DEPTH_MAX + 1, Some(Limit::Depth))
    );

    let structure = scan(&crlf(&format!(
        "{}\nbody",
        "A: b\n".repeat(HEADER_FIELDS_MAX + 1)
    )));
    assert_eq!(
        (structure.fields.len(), structure.truncated),
        (HEADER_FIELDS_MAX, Some(Limit::HeaderFields))
    );
    assert_eq!(structure.header_end, structure.len - 4);

    for line in ["A: b\r\n", " folded without end"] {
        let message = format!(
            "A: b\r\n{}",
            line.repeat(HEADER_OCTETS_MAX / line.len() + 1)
        );
        let structure = scan(message.as_bytes());
        assert!(matches!(
            structure.truncated,
            Some(Limit::HeaderOctets | Limit::HeaderFields)
        ));
        assert!(structure.header_end <= HEADER_OCTETS_MAX as u64);
        assert_eq!(structure.header_end, structure.fields_end);
    }

    let boundary = "b".repeat(DELIMITER_OCTETS_MAX);
    let structure =
        scan(format!("Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n").as_bytes());
    assert_eq!(structure.truncated, Some(Limit::Boundary));
}

/// What a message is generated from.
#[derive(Debug, Clone)]
enum Node {
    Leaf {
        name: Option<String>,
        lines: Vec<String>,
    },
    Multipart {
        digest: bool,
        preamble: bool,
        children: Vec<Node>,
    },
    Message(Box<Node>),
}

/// Offsets the generator knows: path, header_start, body_start, body_end.
type Known = (String, u64, u64, u64);

fn nodes() -> impl Strategy<Value = Node> {
    let line =
        "[ a-zA-Z0-9.,=-]{0,30}".prop_map(|line: String| line.trim_start_matches('-').to_owned());
    let name = proptest::option::of("[a-zA-Zäöü€ .]{0,30}[a-z]");
    let leaf = (name, proptest::collection::vec(line, 0..4))
        .prop_map(|(name, lines)| Node::Leaf { name, lines });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let several = proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            (any::<bool>(), any::<bool>(), several).prop_map(|(digest, preamble, children)| {
                Node::Multipart {
                    digest,
                    preamble,
                    children,
                }
            }),
            inner.prop_map(enclosed),
        ]
    })
}

/// Not a message directly inside a message: mail-parser 0.11.9 loses count of those (a debug assertion of its own fails).
fn enclosed(node: Node) -> Node {
    match node {
        Node::Message(_) => node,
        node => Node::Message(Box::new(node)),
    }
}

/// The root needs a field of its own, else a message may start with its empty line.
fn render_message(root: &Node) -> (Vec<u8>, Vec<Known>) {
    let mut out = b"Subject: generated\r\n".to_vec();
    let mut known = Vec::new();
    render(root, "", 0, &mut out, &mut known);
    (out, known)
}

fn render(node: &Node, path: &str, header_start: u64, out: &mut Vec<u8>, known: &mut Vec<Known>) {
    let index = known.len();
    let child = |number: usize| {
        if path.is_empty() {
            number.to_string()
        } else {
            format!("{path}.{number}")
        }
    };
    let boundary = format!("=_{index}{}", "x".repeat(index % 3));
    let header = match node {
        Node::Leaf { name: None, .. } => "Content-Type: text/plain\r\n\r\n".to_owned(),
        Node::Leaf {
            name: Some(name), ..
        } => {
            format!(
                "Content-Type: application/x;\r\n {}\r\n\r\n",
                encoded_name(name)
            )
        }
        Node::Multipart { digest, .. } => {
            let subtype = if *digest { "digest" } else { "mixed" };
            format!("Content-Type: multipart/{subtype};\r\n\tboundary=\"{boundary}\"\r\n\r\n")
        }
        Node::Message(_) => "Content-Type: message/rfc822\r\n\r\n".to_owned(),
    };
    out.extend_from_slice(header.as_bytes());
    let body_start = out.len() as u64;
    known.push((path.to_owned(), header_start, body_start, 0));
    match node {
        Node::Leaf { lines, .. } => out.extend_from_slice(lines.join("\r\n").as_bytes()),
        Node::Message(inner) => {
            let start = out.len() as u64;
            out.extend_from_slice(b"Subject: inner\r\n");
            render(inner, &child(1), start, out, known);
        }
        Node::Multipart {
            preamble, children, ..
        } => {
            out.extend_from_slice(if *preamble { b"preamble\r\n" } else { b"" });
            for (number, inner) in children.iter().enumerate() {
                out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
                let start = out.len() as u64;
                render(inner, &child(number + 1), start, out, known);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(format!("--{boundary}--").as_bytes());
        }
    }
    known[index].3 = out.len() as u64;
}

/// RFC 2231, in two sections if it is long.
fn encoded_name(name: &str) -> String {
    let encode = |text: &str| {
        let octets = text.bytes().map(|octet| format!("%{octet:02X}"));
        octets.collect::<Vec<_>>().concat()
    };
    let (head, tail) = name.split_at(name.floor_char_boundary(12));
    match tail {
        "" => format!("name*=utf-8''{}", encode(head)),
        tail => format!(
            "name*0*=utf-8''{};\r\n name*1*={}",
            encode(head),
            encode(tail)
        ),
    }
}

/// The entities as mail-parser sees them, in our order.
fn foreign<'p>(parts: &'p [MessagePart<'p>], all: &mut Vec<&'p MessagePart<'p>>) {
    for part in parts {
        all.push(part);
        if let PartType::Message(message) = &part.body {
            foreign(&message.parts, all);
        }
    }
}

fn is_leaf(part: &Part) -> bool {
    !part.is_container()
}

/// Pieces that make structures likely.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("--b"),
        Just("--b\r\n"),
        Just("--b--\r\n"),
        Just("--bb\r\n"),
        Just("--"),
        Just("Content-Type: multipart/mixed; boundary=b\r\n"),
        Just("Content-Type: multipart/digest; boundary=\"bb\"\r\n"),
        Just("Content-Type: message/rfc822\r\n"),
        Just("Content-Type:"),
        Just("Subject: x\r\n"),
        Just(" "),
        Just("\t"),
        Just("Content-Disposition: attachment; filename=\"a.exe"),
        Just("\""),
        Just(";"),
        Just("text"),
        Just("\r\n\r\n"),
        Just("Content-Transfer-Encoding: base64\r\n"),
        Just("\u{e4}"),
        Just("\0"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

fn assert_consistent(structure: &Structure) {
    for part in &structure.parts {
        assert!(part.header_start <= part.body_start && part.body_start <= part.body_end);
        assert!(part.body_end <= part.entity_end && part.entity_end <= structure.len);
        if let Some(parent) = part.parent {
            let parent = &structure.parts[parent];
            assert!(parent.body_start <= part.header_start && part.entity_end <= parent.entity_end);
        }
    }
    let mut done = 0;
    for field in &structure.fields {
        assert!(done <= field.whole.start && field.whole.start == field.name.start);
        assert!(field.name.end < field.value.start && field.value.end <= field.whole.end);
        done = field.whole.end;
    }
    assert!(done <= structure.fields_end && structure.fields_end <= structure.header_end);
    assert!(structure.header_end <= structure.len);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn generated_mime_is_found_octet_for_octet(root in nodes()) {
        let (message, known) = render_message(&root);
        let structure = scan(&message);
        let found: Vec<Known> = structure.parts.iter()
            .map(|part| (part.path.clone(), part.header_start, part.body_start, part.body_end)).collect();
        prop_assert_eq!(found, known);
        prop_assert!(structure.truncated.is_none());
        prop_assert!(structure.defects.is_empty(), "{:?}", structure.defects.iter().collect::<Vec<_>>());
        assert_consistent(&structure);
    }

    #[test]
    fn mail_parser_agrees(root in nodes()) {
        let (message, _) = render_message(&root);
        let structure = scan(&message);
        let parsed = MessageParser::default().parse(&message).unwrap();
        let mut all = Vec::new();
        foreign(&parsed.parts, &mut all);
        prop_assert_eq!(all.len(), structure.parts.len());
        for (theirs, ours) in all.iter().zip(&structure.parts) {
            prop_assert_eq!(u64::from(theirs.offset_header), ours.header_start);
            prop_assert_eq!(u64::from(theirs.offset_body), ours.body_start);
            if is_leaf(ours) {
                prop_assert_eq!(u64::from(theirs.offset_end), ours.body_end);
                prop_assert_eq!(theirs.attachment_name().unwrap_or_default(), ours.name.as_str());
            }
        }
    }

    #[test]
    fn chunks_do_not_matter(message in soup(), cuts in proptest::collection::vec(1usize..20, 1..20)) {
        let whole = scan(&message);
        let mut scanner = Scanner::new();
        let mut rest = message.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
            scanner.push(chunk);
            if scanner.header_complete() {
                prop_assert_eq!(scanner.so_far().header_end, whole.header_end);
            }
            rest = tail;
        }
        prop_assert_eq!(&scanner.finish(), &whole);
        assert_consistent(&whole);
        if let Some(end) = header_end(&message) {
            prop_assert_eq!(end, whole.header_end);
        }
    }

    #[test]
    fn arbitrary_octets_never_panic(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        assert_consistent(&scan(&message));
    }
}

#[test]
fn overlong_lines_do_not_depend_on_chunks() {
    let long = format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--b{}\r\n--{}\r\n--b{}\r\n\r\nx\r\n--b--",
        "z".repeat(2000),
        "-".repeat(994),
        " ".repeat(993),
    );
    let whole = scan(long.as_bytes());
    assert_eq!(paths(&whole), ["", "1", "2"]);
    for size in [1, 7, 997, 998, 999] {
        let mut scanner = Scanner::new();
        long.as_bytes()
            .chunks(size)
            .for_each(|chunk| scanner.push(chunk));
        assert_eq!(scanner.finish(), whole, "{size}");
    }
}
