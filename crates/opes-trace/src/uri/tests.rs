use proptest::prelude::*;

use super::*;

fn uri(text: &str) -> AgentUri {
    AgentUri::parse(text).unwrap()
}

#[test]
fn what_names_an_agent() {
    for text in [
        "https://mail.example.com/opes",
        "HTTPS://[2001:db8::1]:8443/a%20b?c=d",
        "urn:example:opes",
        "mailto:postmaster@mail.example.com",
    ] {
        assert_eq!(uri(text).as_str(), text);
    }
}

#[test]
fn what_names_none() {
    for text in [
        "",
        "*",
        "mail.example.com/opes",
        "://x",
        "https:",
        "1http://a",
    ] {
        assert_eq!(AgentUri::parse(text), Err(UriError::NotAbsolute), "{text}");
    }
    for (text, character) in [
        ("https://a/b c", ' '),
        ("https://a/b;c", ';'),
        ("https://a/b,c", ','),
        ("https://a/#b", '#'),
        ("https://a/%2", '%'),
        ("https://a/\r\nBcc: b", '\r'),
        ("https://a/ä", 'ä'),
    ] {
        assert_eq!(
            AgentUri::parse(text),
            Err(UriError::Character(character)),
            "{text}"
        );
    }
}

#[test]
fn a_system_is_short_enough_for_a_reply() {
    let long = format!("https://mail.example.com/{}", "x".repeat(SYSTEM_OCTETS_MAX));
    assert!(matches!(
        AgentUri::system(&long),
        Err(UriError::TooLong { .. })
    ));
    assert!(AgentUri::parse(&long).is_ok());
}

#[test]
fn equal_is_what_rfc_3986_calls_equal() {
    let ours = uri("https://mail.example.com/opes");
    assert_eq!(uri("HTTPS://MAIL.example.com/%6fpes"), ours);
    assert_ne!(uri("https://mail.example.com/OPES"), ours);
    assert_ne!(uri("https://mail.example.com/opes2"), ours);
}

#[test]
fn below_means_a_path_below() {
    let ours = uri("https://mail.example.com/opes");
    let scan = ours
        .child(&["service", "default", "scan and more"])
        .unwrap();
    assert_eq!(
        scan.as_str(),
        "https://mail.example.com/opes/service/default/scan%20and%20more"
    );
    assert!(scan.is_within(&ours) && ours.is_within(&ours));
    assert!(!uri("https://mail.example.com/opes2").is_within(&ours));
    assert!(!ours.is_within(&scan));
}

proptest! {
    #[test]
    fn never_panics_and_keeps_the_text(text in ".{0,60}") {
        if let Ok(uri) = AgentUri::parse(&text) {
            prop_assert_eq!(uri.as_str(), &text);
            prop_assert!(uri.is_within(&uri));
            prop_assert_eq!(&AgentUri::parse(&uri.normal).unwrap(), &uri);
        }
    }

    #[test]
    fn nearly_uris_never_panic(text in "h:[/a%2f@?]{0,12}") {
        if let Ok(uri) = AgentUri::parse(&text) {
            prop_assert_eq!(&AgentUri::parse(&uri.normal).unwrap(), &uri);
        }
    }
}
