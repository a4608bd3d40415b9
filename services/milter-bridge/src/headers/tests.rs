use opes_mime::{Edit, Rope};
use opes_proto::smtp::edit::Kind;
use proptest::prelude::*;

use super::*;

const MESSAGE: &str = "A: 1\r\nB: 2\r\nA: 3\r\n\r\nbody\r\n";

fn headers() -> Headers {
    let mut headers = Headers::default();
    for name in ["A", "B", "A"] {
        headers.push(name.as_bytes());
    }
    headers
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// What the edge makes of the edits.
fn applied(headers: &Headers) -> String {
    let edits = headers.edit(Answer::accept(), true).into_outcome().edits;
    let edits: Vec<_> = edits
        .into_iter()
        .filter_map(|edit| edit.kind)
        .map(convert)
        .collect();
    let splices = opes_mime::apply(
        &opes_mime::scan(MESSAGE.as_bytes()),
        MESSAGE.as_bytes(),
        &edits,
    )
    .unwrap();
    let rope = Rope::identity(MESSAGE.len() as u64)
        .splice_all(splices)
        .unwrap();
    let text = String::from_utf8(rope.flatten(MESSAGE.as_bytes())).unwrap();
    let fields = text.strip_suffix("\r\nbody\r\n").unwrap();
    fields.trim_end_matches("\r\n").replace("\r\n", "|")
}

fn convert(kind: Kind) -> Edit {
    match kind {
        Kind::HeaderAdd(add) => match add.above {
            Some(index) => Edit::HeaderInsert {
                name: add.name,
                index,
                value: add.value,
            },
            None => Edit::HeaderAdd {
                name: add.name,
                value: add.value,
                append: add.append,
            },
        },
        Kind::HeaderReplace(it) => Edit::HeaderReplace {
            name: it.name,
            index: it.index,
            value: it.value,
        },
        Kind::HeaderDelete(it) => Edit::HeaderDelete {
            name: it.name,
            index: Some(it.index),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn fields_go_where_the_milter_says() {
    for (index, expected) in [
        (0, "N: x|A: 1|B: 2|A: 3"),
        (1, "N: x|A: 1|B: 2|A: 3"),
        (2, "A: 1|N: x|B: 2|A: 3"),
        (3, "A: 1|B: 2|N: x|A: 3"),
        (4, "A: 1|B: 2|A: 3|N: x"),
        (u32::MAX, "A: 1|B: 2|A: 3|N: x"),
    ] {
        let mut headers = headers();
        headers.insert(index, bytes("N"), bytes("x"));
        assert_eq!(applied(&headers), expected, "{index}");
    }
    let mut headers = headers();
    headers.insert(1, bytes("N"), bytes("first said"));
    headers.insert(1, bytes("N"), bytes("second said"));
    headers.add(bytes("M"), bytes("third"));
    headers.add(bytes("M"), bytes("fourth"));
    assert_eq!(
        applied(&headers),
        "N: second said|N: first said|A: 1|B: 2|A: 3|M: third|M: fourth"
    );
}

#[test]
fn below_the_field_of_the_edge_is_the_top_too() {
    let spots = [0, 1, 2].map(|index| {
        let mut headers = Headers::default();
        headers.push(b"OPES-System");
        headers.push(b"A");
        headers.insert(index, bytes("N"), bytes("x"));
        let edits = headers.edit(Answer::accept(), true).into_outcome().edits;
        match edits.into_iter().next().and_then(|edit| edit.kind) {
            Some(Kind::HeaderAdd(add)) => (add.append, add.above),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(spots, [(false, None), (false, Some(1)), (true, None)]);
}

#[test]
fn indices_count_what_the_milter_did_before() {
    let mut headers = headers();
    headers.change(1, bytes("a"), bytes(""));
    // The first one is gone, so the second one is the first now.
    headers.change(1, bytes("a"), bytes("three"));
    assert_eq!(applied(&headers), "B: 2|A: three");
    headers.insert(0, bytes("A"), bytes("new"));
    headers.change(2, bytes("A"), bytes(""));
    assert_eq!(applied(&headers), "A: new|B: 2");
    headers.change(1, bytes("A"), bytes("newer"));
    headers.change(7, bytes("A"), bytes("added"));
    headers.change(7, bytes("A"), bytes(""));
    headers.change(0, bytes("B"), bytes("two"));
    assert_eq!(applied(&headers), "A: newer|B: two|A: added");
    headers.change(1, bytes("A"), bytes(""));
    assert_eq!(applied(&headers), "B: two|A: added");
}

#[test]
fn lines_of_a_value_are_folded_as_they_must_be() {
    for (value, expected) in [
        ("v=1; a\n\tb=c", "v=1; a\r\n\tb=c"),
        ("a\r\n b\r\n", "a\r\n b"),
        ("a\nX-Forged: b", "a\r\n\tX-Forged: b"),
        ("a\n\n \nb", "a\r\n\tb"),
        (" a", " a"),
        ("\n", ""),
    ] {
        assert_eq!(lines(value.as_bytes()), expected.as_bytes(), "{value:?}");
    }
}

proptest! {
    /// Against the obvious model: a list of lines.
    #[test]
    fn whatever_the_milter_does_the_edge_comes_to_the_same(
        steps in proptest::collection::vec((0_u8..3, 0_u32..5, prop_oneof![Just("A"), Just("B"), Just("C")], prop_oneof![Just(String::new()), "[a-z]{1,3}"]), 0..12),
    ) {
        let mut headers = headers();
        let mut model: Vec<(String, String)> = [("A", "1"), ("B", "2"), ("A", "3")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for (step, index, name, value) in steps {
            let field = (name.to_owned(), value.clone());
            match step {
                0 => {
                    headers.add(bytes(name), bytes(&value));
                    model.push(field);
                }
                1 => {
                    headers.insert(index, bytes(name), bytes(&value));
                    let at = (index.saturating_sub(1) as usize).min(model.len());
                    model.insert(at, field);
                }
                _ => {
                    headers.change(index, bytes(name), bytes(&value));
                    let nth = index.saturating_sub(1) as usize;
                    let at = model.iter().enumerate().filter(|(_, (known, _))| known == name).nth(nth).map(|(at, _)| at);
                    match at {
                        Some(at) if value.is_empty() => drop(model.remove(at)),
                        Some(at) => model[at].1 = value,
                        None if value.is_empty() => {}
                        None => model.push(field),
                    }
                }
            }
        }
        let line = |(name, value): &(String, String)| format!("{name}: {value}").trim_end().to_owned();
        let expected: Vec<String> = model.iter().map(line).collect();
        let applied = applied(&headers);
        let found: Vec<&str> = applied.split('|').map(str::trim_end).filter(|line| !line.is_empty()).collect();
        prop_assert_eq!(found, expected);
    }
}
