use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Vec<Entry> {
    Entry::parse_list(text).unwrap()
}

#[test]
fn lists_as_rfc_4236_has_them() {
    let entries = parse(
        "https://mail.example.com/opes; id=\"18f3, 2\" ;Rules=ab,, urn:example:b;flag , https://c.example/",
    );
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].parameter("id"), Some("18f3, 2"));
    assert_eq!(entries[0].parameter("rules"), Some("ab"));
    assert_eq!(entries[1].parameters[0].value, None);
    assert_eq!(entries[2].uri.as_str(), "https://c.example/");
    assert!(parse("").is_empty() && parse(" , ").is_empty());
}

#[test]
fn what_is_no_list() {
    assert!(matches!(
        Entry::parse_list("https://a/, b"),
        Err(TraceSyntax::Uri { entry: 2, .. })
    ));
    for text in [
        "u:r;=x",
        "u:r; a b=c",
        "u:r;a=",
        "u:r;a=\"b",
        "u:r;a=\"b\"c",
        "u:r;",
        "u:r;a=\"\u{7}\"",
    ] {
        assert_eq!(
            Entry::parse_list(text),
            Err(TraceSyntax::Parameter { entry: 1 }),
            "{text}"
        );
    }
}

#[test]
fn hostile_sizes_are_refused() {
    let entries = "u:r,".repeat(ENTRIES_MAX + 1);
    let parameters = format!("u:r{}", ";a=b".repeat(PARAMETERS_MAX + 1));
    let value = format!("u:r;a={}", "b".repeat(VALUE_OCTETS_MAX + 1));
    for text in [entries, parameters, value] {
        assert_eq!(Entry::parse_list(&text), Err(TraceSyntax::TooMuch));
    }
}

#[test]
fn what_we_write_can_be_read() {
    let entry = Entry::new(AgentUri::parse("u:r").unwrap()).with("No Name", "ä\r\nBcc: \"x\"");
    let words: Vec<String> = entry.words().collect();
    assert_eq!(words, ["u:r", "no_name=\"___Bcc: \\\"x\\\"\""]);
    assert_eq!(parse(&words.join("; ")), [entry]);
}

proptest! {
    #[test]
    fn round_trip(values in prop::collection::vec("[ -~]{0,20}", 0..5)) {
        let uri = AgentUri::parse("https://mail.example.com/opes").unwrap();
        let entry = values.iter().fold(Entry::new(uri), |entry, value| entry.with("p", value));
        let words: Vec<String> = entry.words().collect();
        prop_assert_eq!(parse(&words.join(";")), vec![entry]);
    }

    #[test]
    fn never_panics(text in "\\PC{0,80}") {
        let _ = Entry::parse_list(&text);
    }

    #[test]
    fn nearly_lists_never_panic(text in "[u:,;=\"\\\\ a]{0,40}") {
        let _ = Entry::parse_list(&text);
    }
}
