//! Replies: wire form, validation, round trip with the parser.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn wire(reply: &Reply) -> String {
    let mut output = BytesMut::new();
    reply.write_to(&mut output);
    String::from_utf8(output.to_vec()).unwrap()
}

#[test]
fn every_line_carries_both_codes() {
    let reply = Reply::REFUSED.with_text("first\nsecond");
    assert_eq!(wire(&reply), "550-5.7.1 first\r\n550 5.7.1 second\r\n");
    assert_eq!(
        wire(&Reply::START_MAIL_INPUT),
        "354 Start mail input; end with <CRLF>.<CRLF>\r\n"
    );
    assert_eq!(
        wire(&Reply::ENCRYPTION_REQUIRED).split(' ').nth(1),
        Some("5.7.11")
    );
}

#[test]
fn own_text_cannot_inject_a_line() {
    let reply = Reply::REFUSED.with_text("no\r250 2.0.0 yes\0");
    assert_eq!(wire(&reply), "550 5.7.1 no 250 2.0.0 yes \r\n");
    let long = Reply::REFUSED.with_text("é".repeat(600));
    assert!(wire(&long).len() <= REPLY_LINE_OCTETS_MAX);
}

#[test]
fn service_replies_are_checked() {
    let refused = |code, enhanced: Option<&str>, line: &str| {
        Reply::checked(code, enhanced.map(|e| e.parse().unwrap()), &[line]).unwrap_err()
    };
    assert_eq!(refused(354, None, "go"), ReplyInvalid::Code(354));
    assert_eq!(refused(599, None, "go"), ReplyInvalid::Code(599));
    assert_eq!(refused(0, None, "go"), ReplyInvalid::Code(0));
    assert!(matches!(
        refused(550, Some("4.7.1"), "no"),
        ReplyInvalid::Enhanced { .. }
    ));
    assert_eq!(
        refused(550, None, "a\r\n250 ok"),
        ReplyInvalid::Character {
            line: 1,
            character: '\r'
        }
    );
    assert!(matches!(
        refused(550, None, "naïve"),
        ReplyInvalid::Character {
            character: 'ï', ..
        }
    ));
    assert!(matches!(
        refused(550, Some("5.7.1"), &"x".repeat(501)),
        ReplyInvalid::LineLength {
            line: 1,
            octets: 513
        }
    ));
    assert!(Reply::checked(550, Some(Enhanced(5, 7, 1)), &["x".repeat(500)]).is_ok());
    assert!(Reply::checked_for(550, None, &["naïve"], true).is_ok());
    assert!(Reply::checked(550, None, &vec![""; REPLY_LINES_MAX + 1]).is_err());
    assert_eq!(
        wire(&Reply::checked::<&str>(451, None, &[]).unwrap()),
        "451 4.0.0 Try again later\r\n"
    );
}

#[test]
fn enhanced_codes_are_read_strictly() {
    assert_eq!("5.7.11".parse(), Ok(Enhanced(5, 7, 11)));
    for wrong in [
        "", "5", "5.7", "3.0.0", "5.7.1234", "5.+7.1", "5.7.1.1", "5..1",
    ] {
        assert!(wrong.parse::<Enhanced>().is_err(), "{wrong}");
    }
}

#[test]
fn parser_reads_replies_in_pieces_and_leaves_the_rest() {
    let mut parser = ReplyParser::default();
    let mut input = BytesMut::from(&b"250-mail.example.com\r\n250-SI"[..]);
    assert_eq!(parser.parse(&mut input), Ok(None));
    input.extend_from_slice(b"ZE 1000\r\n250 HELP\r\n250 2.1.0 ok\r\n");
    let ehlo = parser.parse(&mut input).unwrap().unwrap();
    assert_eq!(
        ehlo.lines().collect::<Vec<_>>(),
        ["mail.example.com", "SIZE 1000", "HELP"]
    );
    let mail = parser.parse(&mut input).unwrap().unwrap();
    assert_eq!(
        (mail.code(), mail.enhanced()),
        (250, Some(Enhanced(2, 1, 0)))
    );
    assert!(input.is_empty());
}

#[test]
fn parser_refuses_what_is_no_reply() {
    let parse = |text: &str| ReplyParser::default().parse(&mut BytesMut::from(text.as_bytes()));
    assert!(matches!(
        parse("HTTP/1.1 400 Bad Request\r\n"),
        Err(ReplyParseError::Syntax(_))
    ));
    assert!(matches!(parse("25\r\n"), Err(ReplyParseError::Syntax(_))));
    assert!(matches!(parse("250x\r\n"), Err(ReplyParseError::Syntax(_))));
    assert_eq!(
        parse("250-a\r\n550 b\r\n"),
        Err(ReplyParseError::CodeChanged {
            first: 250,
            then: 550
        })
    );
    assert_eq!(parse(&"2".repeat(5000)), Err(ReplyParseError::LineLength));
    assert_eq!(parse(&"250-x\r\n".repeat(200)), Err(ReplyParseError::Lines));
    assert_eq!(parse("250\r\n").unwrap().unwrap().code(), 250);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn parser_never_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ReplyParser::default().parse(&mut BytesMut::from(&octets[..]));
    }

    #[test]
    fn written_replies_are_read_back(
        class in prop_oneof![Just(2_u16), Just(4), Just(5)],
        rest in 0_u16..60,
        detail in 0_u16..1000,
        lines in proptest::collection::vec("[a-z<@> ]{0,40}", 1..5),
    ) {
        let enhanced = Enhanced(u8::try_from(class).unwrap(), 7, detail);
        let reply = Reply::checked(class * 100 + rest, Some(enhanced), &lines).unwrap();
        let mut input = BytesMut::new();
        reply.write_to(&mut input);
        prop_assert_eq!(ReplyParser::default().parse(&mut input).unwrap(), Some(reply));
    }
}
