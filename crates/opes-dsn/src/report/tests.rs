//! Reports: what they say, and that nobody else can say anything in them.

use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::*;
use crate::mime::is_plain;

const MESSAGE: &[u8] =
    b"From: steve@example.org\r\nSubject: Hello\r\nMessage-ID: <1@example.org>\r\n\r\nbody\r\n";

fn author() -> Author<'static> {
    Author {
        hostname: "mail.example.com",
        system: "https://mail.example.com/opes",
        trace: "18f3a-2.1",
    }
}

fn report<'a>(params: &'a [String], recipients: &'a [Told<'a>], octets: &'a [u8]) -> Report<'a> {
    Report {
        author: author(),
        to: "steve@example.org",
        id: "0ABC.D",
        now: 951_782_400,
        arrived: 951_782_000,
        smtputf8: false,
        params,
        recipients,
        returned: Returned {
            octets,
            complete: true,
        },
    }
}

fn reply(text: &str) -> Reply {
    Reply::checked_for(550, Some("5.1.1".parse().unwrap()), &[text], true).unwrap()
}

fn failed<'a>(address: &'a str, params: &'a [String], reply: &'a Reply) -> Told<'a> {
    Told {
        address,
        params,
        action: Action::Failed,
        reply,
        expired: false,
        next_hop: Some("mx.example.net"),
    }
}

fn owned(params: &[&str]) -> Vec<String> {
    params.iter().map(|param| (*param).to_owned()).collect()
}

/// Text of a part, decoded, with its content type.
fn part(composed: &Composed, number: usize) -> (String, String) {
    let parsed = MessageParser::default().parse(&composed.octets).unwrap();
    let part = parsed.part(u32::try_from(number + 1).unwrap()).unwrap();
    let kind = part.content_type().unwrap();
    let kind = format!("{}/{}", kind.ctype(), kind.subtype().unwrap());
    let text = if let PartType::Text(text) = &part.body {
        text.to_string()
    } else {
        // The octets as they stand in the report.
        let octets = part.raw_body_offset() as usize..part.raw_end_offset() as usize;
        String::from_utf8_lossy(&composed.octets[octets]).into_owned()
    };
    (kind, text)
}

#[test]
fn a_report_in_full() {
    let reply = reply("No such user");
    let params = owned(&["ORCPT=rfc822;paul+2Bx@example.com", "NOTIFY=FAILURE"]);
    let told = [failed("paul@example.com", &params, &reply)];
    let mail = owned(&["ENVID=QQ314159", "RET=HDRS"]);
    let composed = report(&mail, &told, MESSAGE).compose();
    assert!(!composed.smtputf8 && !composed.body_8bit);
    let text = String::from_utf8(composed.octets).unwrap();
    assert_eq!(
        text.replace("\r\n", "\n"),
        include_str!("tests/report.expect")
    );
}

#[test]
fn status_fits_what_happened() {
    let (gone, later) = (Reply::new(550, None, "no"), Reply::TRY_LATER);
    let taken = Reply::OK;
    let told = |action, reply, expired| Told {
        address: "a@example.com",
        params: &[],
        action,
        reply,
        expired,
        next_hop: None,
    };
    let all = [
        told(Action::Failed, &gone, false),
        told(Action::Failed, &later, true),
        told(Action::Relayed, &taken, false),
        told(Action::Delivered, &taken, false),
    ];
    let (kind, text) = part(&report(&[], &all, MESSAGE).compose(), 1);
    assert_eq!(kind, "message/delivery-status");
    let lines = |name: &str| {
        let found = text.lines().filter_map(|line| line.strip_prefix(name));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines("Status: "), ["5.0.0", "4.4.7", "2.0.0", "2.0.0"]);
    assert_eq!(
        lines("Action: "),
        ["failed", "failed", "relayed", "delivered"]
    );
    assert!(lines("Remote-MTA: ").is_empty());
}

#[test]
fn the_whole_message_comes_back_only_if_asked_for_and_fit_for_it() {
    let reply = reply("no");
    let told = [failed("paul@example.com", &[], &reply)];
    let full = owned(&["RET=FULL"]);
    let (kind, text) = part(&report(&full, &told, MESSAGE).compose(), 2);
    assert_eq!(
        (kind.as_str(), text.as_bytes()),
        ("message/rfc822", MESSAGE)
    );
    let headers = &MESSAGE[..MESSAGE.len() - 8];
    let long = [headers, b"\r\n", &b"x\r\n".repeat(RETURNED_OCTETS_MAX)].concat();
    let bare = [headers, b"\r\na\nb\r\n"].concat();
    for (params, octets) in [(&[][..], MESSAGE), (&full, &long), (&full, &bare)] {
        let (kind, text) = part(&report(params, &told, octets).compose(), 2);
        assert_eq!(
            (kind.as_str(), text.as_bytes()),
            ("text/rfc822-headers", headers)
        );
    }
    let mut cut = report(&full, &told, MESSAGE);
    cut.returned.complete = false;
    assert_eq!(part(&cut.compose(), 2).0, "text/rfc822-headers");
    let eight_bit = [headers, "\r\nGrüße\r\n".as_bytes()].concat();
    let composed = report(&full, &told, &eight_bit).compose();
    assert!(composed.body_8bit);
    assert_eq!(part(&composed, 2).0, "message/rfc822");
}

#[test]
fn without_smtputf8_everything_is_ascii_on_the_wire() {
    let reply = reply("kein Empfänger");
    let told = [failed("jürgen@example.com", &[], &reply)];
    let message = "Subject: Grüße\r\n\r\nbody\r\n".as_bytes();
    let composed = report(&[], &told, message).compose();
    assert!(composed.octets.is_ascii() && !composed.smtputf8);
    let (kind, status) = part(&composed, 1);
    assert_eq!(kind, "message/delivery-status");
    assert!(
        status.contains("Final-Recipient: utf-8; j\\x{FC}rgen@example.com\r\n"),
        "{status}"
    );
    assert!(status.contains("kein Empf?nger"), "{status}");
    assert!(part(&composed, 0).1.contains("<jürgen@example.com>"));
    assert_eq!(part(&composed, 2).1, "Subject: Grüße\r\n");
}

#[test]
fn with_smtputf8_the_report_is_global() {
    let reply = reply("kein Empfänger");
    let told = [failed("jürgen@example.com", &[], &reply)];
    let message = "Subject: Grüße\r\n\r\nbody\r\n".as_bytes();
    let mut report = report(&[], &told, message);
    report.smtputf8 = true;
    report.to = "käthe@example.org";
    let composed = report.compose();
    assert!(composed.smtputf8);
    let text = String::from_utf8(composed.octets.clone()).unwrap();
    assert!(text.contains("To: <käthe@example.org>\r\n"));
    assert!(text.contains("Content-Type: message/global-delivery-status\r\n"));
    assert!(text.contains("Content-Type: message/global-headers\r\n"));
    assert!(text.contains("Final-Recipient: utf-8; j=C3=BCrgen@example.com\r\n"));
}

/// Anything: text with every kind of line end, and addresses.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,10}@example\\.(com|org)",
        "(\\PC|[\r\n\t\0<>:;=_+]){0,80}",
        "a\r\n(Bcc|Action|Content-Type): [a-z]{3}",
        "\\PC{900,1100}",
    ]
}

proptest! {
    #[test]
    fn nothing_that_strangers_say_becomes_a_field_or_a_part(
        to in hostile(),
        address in hostile(),
        original in hostile(),
        envid in hostile(),
        said in "[ -~]{0,400}",
        host in hostile(),
        trace in hostile(),
        smtputf8 in any::<bool>(),
        full in any::<bool>(),
        octets in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..600),
            "([A-Z][a-z]{1,5}: \\PC{0,30}\r\n){0,5}(\r\n)?(\\PC|\r\n|--=_0ABC.D_0000000[0-3]){0,100}".prop_map(String::into_bytes),
        ],
    ) {
        let reply = reply(&said);
        let rcpt = vec![format!("ORCPT=rfc822;{original}")];
        let mail = vec![format!("ENVID={envid}"), format!("RET={}", if full { "FULL" } else { "HDRS" })];
        let told = [failed(&address, &rcpt, &reply)];
        let mut report = report(&mail, &told, &octets);
        report.to = &to;
        report.smtputf8 = smtputf8;
        report.author.hostname = &host;
        report.author.trace = &trace;
        let composed = report.compose();
        prop_assert!(is_plain(&composed.octets));
        let parsed = MessageParser::default().parse(&composed.octets).unwrap();
        let names: Vec<_> = parsed.headers().iter().map(|header| header.name.as_str().to_owned()).collect();
        prop_assert_eq!(names, ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]);
        let root = parsed.part(0).unwrap();
        let PartType::Multipart(parts) = &root.body else { panic!("{root:?}") };
        prop_assert_eq!(parts.len(), 3);
        let fields = report.fields(smtputf8);
        let known = ["Original-Envelope-Id", "Reporting-MTA", "Arrival-Date", "X-OPES-System", "Original-Recipient", "Final-Recipient",
            "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date", ""];
        for line in fields.split("\r\n") {
            prop_assert!(known.contains(&line.split(": ").next().unwrap()), "{}", line);
        }
        prop_assert_eq!(fields.matches("\r\n\r\n").count(), 1);
        prop_assert_eq!(fields.matches("Action: failed").count(), 1);
    }
}
