//! Command lines.

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

fn refused(line: &str) -> Reply {
    parse_line(line.as_bytes()).expect_err(line).reply
}

#[test]
fn verbs_have_no_case_and_trailing_space_is_tolerated() {
    assert!(matches!(parse_line(b"rSeT \t "), Ok(Command::Rset)));
    assert!(matches!(parse_line(b"noop what ever"), Ok(Command::Noop)));
    assert!(matches!(parse_line(b"STARTTLS"), Ok(Command::StartTls)));
    assert!(matches!(parse_line(b"Help MAIL"), Ok(Command::Help)));
    assert!(matches!(parse_line(b"vrfy joe"), Ok(Command::Vrfy)));
    assert!(matches!(parse_line(b""), Ok(Command::Unknown)));
    assert!(matches!(
        parse_line(b"MAILFROM:<a@b>"),
        Ok(Command::Unknown)
    ));
}

#[test]
fn mail_and_rcpt_carry_path_and_parameters() {
    let Ok(Command::Mail { path, parameters }) = parse_line(b"mail from: <> size=5") else {
        panic!("MAIL");
    };
    assert_eq!(
        (path.as_str(), parameters.get("SIZE")),
        ("", Some(Some("5")))
    );
    let Ok(Command::Rcpt { path, .. }) = parse_line(b"RCPT TO:<a@[IPv6:::1]>") else {
        panic!("RCPT");
    };
    assert_eq!(path.as_str(), "a@[IPv6:::1]");
}

#[test]
fn each_mistake_has_its_reply() {
    assert_eq!(refused("MAIL"), Reply::MAIL_SYNTAX);
    assert_eq!(refused("MAIL TO:<a@b>"), Reply::MAIL_SYNTAX);
    assert_eq!(refused("MAIL FROM:a@b"), Reply::MAIL_SYNTAX);
    assert_eq!(refused("MAIL FROM:<a@b>SIZE=1"), Reply::MAIL_SYNTAX);
    assert_eq!(refused("MAIL FROM:<a@>"), Reply::SENDER_SYNTAX);
    assert_eq!(refused("MAIL FROM:<a@b> SIZE="), Reply::PARAMETER_SYNTAX);
    assert_eq!(
        refused(&format!("MAIL FROM:<{}@b>", "a".repeat(300))),
        Reply::SENDER_TOO_LONG
    );
    assert_eq!(refused("RCPT TO:<>"), Reply::RECIPIENT_SYNTAX);
    assert_eq!(refused("RCPT TO:"), Reply::RCPT_SYNTAX);
    assert_eq!(refused("DATA now"), Reply::NO_ARGUMENT);
    assert_eq!(refused("QUIT now"), Reply::NO_ARGUMENT);
    assert_eq!(refused("VRFY"), Reply::ARGUMENT_MISSING);
    assert_eq!(refused("AUTH"), Reply::ARGUMENT_MISSING);
    assert_eq!(refused("EHLO"), Reply::HELO_SYNTAX);
    assert_eq!(refused("EHLO a b"), Reply::HELO_SYNTAX);
    assert_eq!(refused("NOOP \u{1}"), Reply::INVALID_CHARACTER);
    assert_eq!(
        refused(&format!("NOOP {}", "a".repeat(2050))),
        Reply::LINE_TOO_LONG
    );
    assert_eq!(
        parse_line(b"NOOP \xff").unwrap_err().reply,
        Reply::INVALID_CHARACTER
    );
}

#[test]
fn bdat_without_a_size_loses_the_framing() {
    assert!(matches!(
        parse_line(b"BDAT 86 last"),
        Ok(Command::Bdat {
            octets: 86,
            last: true
        })
    ));
    assert!(matches!(
        parse_line(b"BDAT 0"),
        Ok(Command::Bdat {
            octets: 0,
            last: false
        })
    ));
    for line in [
        "BDAT",
        "BDAT x",
        "BDAT -1",
        "BDAT +1",
        "BDAT 1 2",
        "BDAT 1 LAST LAST",
    ] {
        assert!(
            parse_line(line.as_bytes()).unwrap_err().framing_lost,
            "{line}"
        );
    }
    assert!(
        parse_line(b"BDAT 99999999999999999999")
            .unwrap_err()
            .framing_lost
    );
}

#[test]
fn initial_response_is_a_secret() {
    let Ok(command) = parse_line(b"AUTH plain AGEAYg==") else {
        panic!("AUTH")
    };
    assert!(!format!("{command:?}").contains("AGEAYg"));
    let Command::Auth {
        mechanism,
        initial: Some(initial),
    } = command
    else {
        panic!("initial")
    };
    assert_eq!(
        (mechanism.as_str(), initial.expose_secret()),
        ("plain", "AGEAYg==")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn lines_never_panic(
        verb in prop_oneof![
            Just("MAIL FROM:<"), Just("RCPT TO:<"), Just("BDAT "), Just("AUTH "), Just("EHLO "), Just("")
        ],
        rest in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = parse_line(&[verb.as_bytes(), &rest].concat());
    }
}
