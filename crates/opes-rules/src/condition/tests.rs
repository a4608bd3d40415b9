use super::*;
use crate::facts::{Headers, Recipient, Sender};
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;

struct OneField(&'static str, &'static str);

impl Headers for OneField {
    fn first(&self, name: &str) -> Option<Cow<'_, str>> {
        name.eq_ignore_ascii_case(self.0)
            .then_some(Cow::Borrowed(self.1))
    }
}

/// Evaluates an expression against one rich set of facts.
fn evaluate(source: &str) -> Result<bool, Unevaluable> {
    let parameters = ["BODY=8BITMIME".to_owned(), "SIZE=5000".to_owned()];
    let notify = ["NOTIFY=NEVER".to_owned()];
    let recipients = [
        Recipient {
            address: "Ann@Example.com",
            parameters: &notify,
        },
        Recipient {
            address: "bob@example.org",
            parameters: &[],
        },
    ];
    let annotations = BTreeMap::from([
        ("spam.score".to_owned(), "7.5".to_owned()),
        ("spam.flag".to_owned(), "true".to_owned()),
        ("word".to_owned(), "fish".to_owned()),
    ]);
    let facts = Facts {
        listener: "mx",
        client_ip: Some("::ffff:192.0.2.7".parse().unwrap()),
        client_port: Some(40_000),
        helo: Some("mail.example.net"),
        tls: Some("TLSv1.3"),
        mail_from: Some(Sender {
            address: "bounce@news.example.net",
            parameters: &parameters,
        }),
        recipients: &recipients,
        size: Some(5_000),
        headers: Some(&OneField("Subject", "Hello, world")),
        annotations: Some(&annotations),
        ..Facts::at(Point::Content)
    };
    let condition = Condition::compile(source).unwrap_or_else(|e| panic!("{source}: {e:?}"));
    condition.evaluate(&facts, Some(0))
}

fn refusal(source: &str) -> String {
    let errors = Condition::compile(source).expect_err(source);
    errors
        .iter()
        .map(|e| format!("{} | {}", e.message, e.remedy))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn what_holds_and_what_does_not() {
    for (source, expected) in [
        // The documented example.
        (
            r#"!(client.ip in cidr("10.0.0.0/8")) && mail.parameters.exists(p, p == "BODY=8BITMIME")"#,
            true,
        ),
        (r#"client.ip in cidr("192.0.2.0/24")"#, true),
        (
            r#"client.ip in cidr("198.51.100.0/24", "2001:db8::/32")"#,
            false,
        ),
        (
            r#"client.ip in cidr(["198.51.100.0/24", "192.0.2.7"])"#,
            true,
        ),
        (r#"client.ip in ["192.0.2.0/28"]"#, true),
        (r#"client.ip == "192.0.2.7""#, true),
        (r#""192.0.2.8" == client.ip"#, false),
        ("client.port == 40000", true),
        (r#"listener in ["mx", "backup"]"#, true),
        (r#"point == "content""#, true),
        (r#"helo.endsWith(".example.net")"#, true),
        (r#"tls.version == "TLSv1.3" && auth.identity == """#, true),
        (
            "has(tls.version) && !has(auth.identity) && has(mail.from)",
            true,
        ),
        (r#"mail.from.startsWith("bounce@")"#, true),
        (r#"domain(mail.from) == "news.example.net""#, true),
        (r#"domain(rcpt) == "example.com""#, true),
        (r#"rcpt == "Ann@Example.com""#, true),
        (r#"rcpt.lowerAscii() == "ann@example.com""#, true),
        (r#"rcpt.parameters.exists(p, p == "NOTIFY=NEVER")"#, true),
        (r#""bob@example.org" in recipients"#, true),
        (r#""eve@example.org" in recipients"#, false),
        ("recipients.size() == 2 && size(recipients) == 2", true),
        (r#"recipients.all(r, r.contains("@"))"#, true),
        (r#"recipients.exists_one(r, r.endsWith(".org"))"#, true),
        ("size > 4999 && size <= 5000", true),
        (
            "size / 1000 * 2 + 1 == 11 && size % 7 == 2 && -size < 0",
            true,
        ),
        ("size * 1.5 > 7000.0", true),
        (r#"header("subject") == "Hello, world""#, true),
        (r#"header("X-Absent") == """#, true),
        (r#"hasHeader("Subject") && !hasHeader("X-Absent")"#, true),
        (r#"header("Subject").matches("(?i)^hello\\b")"#, true),
        (r#"header("Subject").matches(r"wor\w{2}$")"#, true),
        (r#"header("Subject").size() == 12"#, true),
        (r#"annotation("spam.score") > 5"#, true),
        (r#"5 >= annotation("spam.score")"#, false),
        (
            r#"annotation("spam.flag") == true && annotation("spam.flag")"#,
            true,
        ),
        (r#"annotation("word") == "fish""#, true),
        (r#"annotation("word") in ["fish", "fowl"]"#, true),
        (r#"hasAnnotation("word") && !hasAnnotation("absent")"#, true),
        (r#"int("12") + 1 == 13 && double("0.5") < 1.0"#, true),
        (r#"(size > 10 ? "big" : "small") == "big""#, true),
        ("size in [1, 5000]", true),
        ("[1, 2, 3].exists(n, n * 2500 == size)", true),
        (r#""it's \"q\" // not a comment" != '' // a comment"#, true),
    ] {
        assert_eq!(evaluate(source), Ok(expected), "{source}");
    }
}

#[test]
fn what_is_missing_has_no_answer_unless_the_other_side_decides() {
    let missing = Err(Unevaluable::Missing(Variable::Annotation));
    assert_eq!(evaluate(r#"annotation("absent") > 5"#), missing);
    assert_eq!(
        evaluate(r#"annotation("absent") > 5 || size > 10"#),
        Ok(true)
    );
    assert_eq!(
        evaluate(r#"size > 10 || annotation("absent") > 5"#),
        Ok(true)
    );
    assert_eq!(
        evaluate(r#"annotation("absent") > 5 && size < 10"#),
        Ok(false)
    );
    assert_eq!(
        evaluate(r#"annotation("absent") > 5 && size > 10"#),
        missing
    );
    assert_eq!(evaluate(r#"!(annotation("absent") > 5)"#), missing);
    assert_eq!(
        evaluate(r#"annotation("word") > 5"#),
        Err(Unevaluable::NotA("a number"))
    );
    assert_eq!(
        evaluate("1 / (size - 5000) == 1"),
        Err(Unevaluable::Arithmetic)
    );
    assert_eq!(
        evaluate("9223372036854775807 + size > 0"),
        Err(Unevaluable::Arithmetic)
    );
    let nothing = Facts::at(Point::Connect);
    let helo = Condition::compile(r#"helo == "x""#).unwrap();
    assert_eq!(
        helo.evaluate(&nothing, None),
        Err(Unevaluable::Missing(Variable::Helo))
    );
}

#[test]
fn what_is_not_understood_is_refused_with_a_remedy() {
    for (source, said) in [
        ("size", "expected a truth value, found an integer"),
        (
            "mail.form == \"x\"",
            "unknown name `mail.form` | did you mean `mail.from`?",
        ),
        ("now() > 1", "unknown function `now`"),
        ("rcpt.startWith(\"a\")", "did you mean `startsWith`?"),
        (
            "rcpt.matches(helo)",
            "the pattern of .matches() is not a written text",
        ),
        ("rcpt.matches(\"(\")", "not a usable regular expression"),
        (
            "rcpt.matches(\"(a{1000}){1000}\")",
            "not a usable regular expression",
        ),
        ("client.ip.startsWith(\"10.\")", "client.ip in cidr"),
        ("client.ip in cidr(\"10.0.0.1/8\")", "write 10.0.0.0/8"),
        (
            "rcpt in cidr(\"10.0.0.0/8\")",
            "only an address can be in cidr",
        ),
        (
            "cidr(\"10.0.0.0/8\") == client.ip",
            "can only stand after `in`",
        ),
        ("rcpt == 5", "a text cannot be compared with an integer"),
        ("size + \"a\" > 1", "expected a number, found a text"),
        ("recipients == [\"a\"]", "a list can only stand after"),
        ("recipients.map(r, r) == recipients", "makes a list"),
        ("recipients[0] == \"a\"", "lists cannot be indexed"),
        ("{\"a\": 1}.a == 1", "a field of a computed value"),
        ("header(rcpt) == \"a\"", "not a written text"),
        ("header(\"Sub ject\") == \"a\"", "not a header field name"),
        ("size > 1 &&", "not a CEL expression"),
        ("b\"a\" == b\"a\"", "octet strings are not supported"),
        (
            "recipients.all(r, recipients.exists(q, q == r))",
            "more than one .exists()",
        ),
        (
            "recipients.all(r, true) && recipients.exists(r, true)",
            "more than one .exists()",
        ),
        ("size in []", "a list has 1 to 100 elements"),
        ("", "the expression is empty"),
    ] {
        let refused = refusal(source);
        assert!(refused.contains(said), "{source}: {refused}");
    }
}

#[test]
fn every_mistake_is_found() {
    let errors = Condition::compile("foo == 1 && bar == 2 && size").unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
}

// What would overflow the parser's stack is refused before it is parsed, on a small stack too.
#[test]
fn hostile_sources_are_refused_on_a_small_stack() {
    let run = || {
        for (source, said) in [
            (vec!["true"; 20_000].join(" || "), "octets, more than 4096"),
            (
                "(".repeat(2_000) + "true" + &")".repeat(2_000),
                "nests too deeply",
            ),
            ("[".repeat(4_000), "nests too deeply"),
            (
                "!".repeat(4_000) + "true",
                "more than 8 `!` or `-` in a row",
            ),
            (
                "- ".repeat(2_000) + "1 == 1",
                "more than 8 `!` or `-` in a row",
            ),
            ("true?true:".repeat(400) + "true", "more than 16 `?`"),
            ("a".to_owned() + &".a".repeat(2_000), "nests too deeply"),
            (vec!["size"; 600].join("+") + " > 1", "nests too deeply"),
            (vec!["true"; 300].join("||"), "more than 200 operations"),
            ("\"".to_owned() + &"(".repeat(3_000), "is not closed"),
            (
                "\"\\q".to_owned() + &"(".repeat(3_000) + "\"",
                "unknown escape",
            ),
            ("'\n'".to_owned() + &"(".repeat(3_000), "is not closed"),
        ] {
            let refused = refusal(&source);
            assert!(
                refused.contains(said),
                "{}…: {refused}",
                source.get(..20).unwrap_or(&source)
            );
        }
        // The deepest thing that passes the scan must not overflow either.
        for level in [
            "!(",
            "(true||",
            "size([",
            "{1:",
            "[1 + (2 * (",
            "true?true:(",
            "has(",
        ] {
            let brackets = level.matches(['(', '[', '{']).count();
            let open = level.repeat(16 / brackets);
            assert!(Condition::compile(&open).is_err());
            let close: String = open.chars().rev().filter_map(closing).collect();
            let _ = Condition::compile(&format!("{open}true{close}"));
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(run)
        .unwrap();
    thread.join().unwrap();
}

fn closing(open: char) -> Option<char> {
    match open {
        '(' => Some(')'),
        '[' => Some(']'),
        '{' => Some('}'),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_panics_on_text(source in ".{0,80}") {
        drop(Condition::compile(&source));
    }

    #[test]
    fn never_panics_on_tokens(tokens in proptest::collection::vec(proptest::sample::select(vec![
        "(", ")", "[", "]", "{", "}", "!", "-", "&&", "||", "==", "<", "+", "/", "%", "?", ":", ",",
        ".", "in", "size", "rcpt", "client.ip", "header(\"A\")", "annotation(\"b\")", "cidr(\"::/0\")",
        "\"x\"", "r'\\'", "'''", "\"", "\\", "1", "1.5", "true", "recipients", ".exists(", "p",
        ".all(p,", ".matches(\"a\")", "has(", "//", "\n", "é",
    ]), 0..30)) {
        let source = tokens.join(" ");
        if let Ok(condition) = Condition::compile(&source) {
            let recipients = [Recipient { address: "a@example.com", parameters: &[] }];
            let facts = Facts { recipients: &recipients, ..Facts::at(Point::Content) };
            let _ = condition.evaluate(&facts, Some(0));
        }
    }
}
