use std::time::Duration;

use opes_proto::smtp::Address as Envelope;
use proptest::prelude::*;

use super::*;

/// 24 Nov 2026, 05:05:30 UTC.
const NOW: u64 = 1_795_496_730;

fn findings(header: &str) -> Vec<&'static str> {
    let octets = format!("{header}\r\n").into_bytes();
    let visible = Visible::read(&octets, &opes_mime::scan(&octets));
    let address = |address: &str| Envelope {
        address: address.into(),
        parameters: Vec::new(),
    };
    let context = Context {
        helo: "client.example.org".into(),
        mail_from: Some(address("ann@news.example.org")),
        recipients: vec![address("Bob@example.com"), address("carl@example.com")],
        ..Context::default()
    };
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let found = visible.findings(&context, now, true);
    found.into_iter().map(Symbol::name).collect()
}

const REST: &str = "Date: Tue, 24 Nov 2026 05:05:30 +0000\r\nMessage-ID: <1@example.org>\r\n";
const FROM: &str = "From: Ann <ann@example.org>\r\n";
const TO: &str = "To: \"Bob\" <bob@example.com>\r\n";

#[test]
fn what_is_usual_is_not_found() {
    assert_eq!(findings(&format!("{FROM}{TO}{REST}")), [""; 0]);
    let group = "To: us: a@example.net, BOB@example.com;\r\n";
    assert_eq!(findings(&format!("{FROM}{group}{REST}")), [""; 0]);
    let two = "From: a@example.org, b@example.org\r\nSender: a@example.org\r\n";
    assert_eq!(findings(&format!("{two}{TO}{REST}")), [""; 0]);
    let own =
        "From: \"ann@example.org\" <ann@mail.example.org>\r\nReply-To: x@lists.example.org\r\n";
    assert_eq!(findings(&format!("{own}{TO}{REST}")), [""; 0]);
}

#[test]
fn what_is_odd_has_a_name() {
    for (from, to, rest, expected) in [
        ("", TO, REST, "FROM_MISSING"),
        ("From: nobody\r\n", TO, REST, "FROM_MISSING"),
        (
            "From: a@example.org\r\nFrom: b@example.org\r\n",
            TO,
            REST,
            "FROM_MULTIPLE",
        ),
        (
            "From: a@example.org, b@example.org\r\n",
            TO,
            REST,
            "FROM_MULTIPLE",
        ),
        (
            "From: \"service@bank.example.net\" <a@example.org>\r\n",
            TO,
            REST,
            "FROM_NAME_ADDRESS",
        ),
        (
            "From: =?utf-8?q?Bank_=3Cservice=40bank=2Eexample=2Enet=3E?= <a@example.org>\r\n",
            TO,
            REST,
            "FROM_NAME_ADDRESS",
        ),
        (
            "From: a@example.org\r\nReply-To: b@example.net\r\n",
            TO,
            REST,
            "REPLY_TO_DIFFERS",
        ),
        (
            FROM,
            "To: undisclosed-recipients:;\r\n",
            REST,
            "RECIPIENT_NOT_NAMED",
        ),
        (FROM, TO, "Message-ID: <1@example.org>\r\n", "DATE_MISSING"),
        (
            FROM,
            TO,
            "Date: yesterday\r\nMessage-ID: <1@example.org>\r\n",
            "DATE_MISSING",
        ),
        (
            FROM,
            TO,
            "Date: Tue, 24 Nov 2030 05:05:30 +0000\r\nMessage-ID: <1@example.org>\r\n",
            "DATE_FAR",
        ),
        (
            FROM,
            TO,
            "Date: Sun, 1 Nov 2026 05:05:30 +0000\r\nMessage-ID: <1@example.org>\r\n",
            "DATE_FAR",
        ),
        (
            FROM,
            TO,
            "Date: Tue, 24 Nov 2026 05:05:30 +0000\r\n",
            "MESSAGE_ID_MISSING",
        ),
    ] {
        assert_eq!(findings(&format!("{from}{to}{rest}")), [expected]);
    }
    let many = "X: y\r\n".repeat(1001);
    assert_eq!(
        findings(&format!("{FROM}{TO}{REST}{many}")),
        ["HEADER_TOO_LARGE"]
    );
}

#[test]
fn organisations_are_what_can_be_registered() {
    assert_eq!(organisation("mail.example.co.uk"), "example.co.uk");
    assert_eq!(organisation("co.uk"), "co.uk");
    assert_eq!(organisation(""), "");
    let from = "From: a@example.net\r\n";
    assert_eq!(
        findings(&format!("{from}{TO}{REST}")),
        ["ENVELOPE_FROM_DIFFERS"]
    );
}

proptest! {
    #[test]
    fn hostile_headers_cannot_panic(octets in proptest::collection::vec(any::<u8>(), 0..600), name in "(From|Reply-To|To|Date|Sender)") {
        let mut message = format!("{name}: ").into_bytes();
        message.extend_from_slice(&octets);
        let visible = Visible::read(&message, &opes_mime::scan(&message));
        prop_assert!(visible.from.len() <= ADDRESSES_MAX);
        let _found = visible.findings(&Context::default(), SystemTime::now(), true);
        let _two = visible.has_two_domains();
    }
}
