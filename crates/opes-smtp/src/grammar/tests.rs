//! Paths: the examples of the RFCs, what is refused, and an independent parser on the common subset.

use proptest::prelude::*;

use super::*;
use crate::command::{Command, parse_line};

fn forward(text: &str) -> Result<(ForwardPath, &str), PathError> {
    ForwardPath::parse_prefix(text)
}

#[test]
fn addresses_are_kept_verbatim() {
    for address in [
        "paul@example.com",
        "Paul.O'Neil+tag@Example.COM",
        r#""quoted \"pair\" > @ part"@example.com"#,
        r#"""@example.com"#,
        "a@[192.0.2.1]",
        "a@[IPv6:::1]",
        "a@[ipv6:2001:db8::1]",
        "root@my_container",
        "user@xn--bcher-kva.example",
        "bücher@bücher.example",
    ] {
        let path = format!("<{address}>");
        let (parsed, rest) = forward(&path).unwrap_or_else(|e| panic!("{address}: {e:?}"));
        assert_eq!((parsed.as_str(), rest), (address, ""));
        assert_eq!(Mailbox::parse(address).unwrap().as_str(), address);
    }
}

#[test]
fn local_part_and_domain_are_split_at_the_right_at_sign() {
    let mailbox = Mailbox::parse(r#""a@b"@example.com"#).unwrap();
    assert_eq!(
        (mailbox.local_part(), mailbox.domain()),
        (r#""a@b""#, "example.com")
    );
}

#[test]
fn null_path_only_for_senders() {
    assert_eq!(
        ReversePath::parse_prefix("<> SIZE=1"),
        Ok((ReversePath::Null, " SIZE=1"))
    );
    assert_eq!(forward("<>"), Err(PathError::Mailbox));
}

#[test]
fn postmaster_needs_no_domain() {
    let (path, rest) = forward("<PostMaster> NOTIFY=NEVER").unwrap();
    assert!(matches!(&path, ForwardPath::Postmaster(text) if &**text == "PostMaster"));
    assert_eq!((path.domain(), rest), (None, " NOTIFY=NEVER"));
    assert!(matches!(
        forward("<postmaster@example.com>"),
        Ok((ForwardPath::Mailbox(_), ""))
    ));
}

#[test]
fn source_routes_are_ignored() {
    let (path, _) = forward("<@a.example,@b.example:joe@example.com>").unwrap();
    assert_eq!(path.as_str(), "joe@example.com");
    assert_eq!(
        forward("<@a.example joe@example.com>"),
        Err(PathError::Mailbox)
    );
    assert_eq!(forward("<@-:joe@example.com>"), Err(PathError::Mailbox));
}

#[test]
fn malformed_paths_are_refused() {
    for path in [
        "<a>",
        "<a@>",
        "<@b>",
        "<a@b",
        "<a@b..c>",
        "<.a@b>",
        "<a.@b>",
        "<a..b@c>",
        "<a b@c>",
        "<a@-b>",
        "<a@b->",
        "<a@b@c>",
        "<a@[300.0.0.1]>",
        "<a@[IPv6:x]>",
        "<a@[X:y]>",
        "<\"a@b>",
        "<\"a\"b@c>",
        "<\"a\\é\"@c>",
        "<a@b.>",
        "<<a@b>>",
        "<a@b c>",
    ] {
        assert!(forward(path).is_err(), "{path}");
    }
    assert_eq!(forward("a@b"), Err(PathError::Framing));
}

#[test]
fn over_long_paths_are_told_apart() {
    let local = |octets: usize| format!("<{}@example.com>", "a".repeat(octets));
    assert!(forward(&local(PATH_OCTETS_MAX - 2 - "@example.com".len())).is_ok());
    assert_eq!(forward(&local(PATH_OCTETS_MAX)), Err(PathError::TooLong));
    assert_eq!(
        forward(&format!("<a@{}>", "a".repeat(64))),
        Err(PathError::Mailbox)
    );
}

#[test]
fn parameters_are_found_without_case() {
    let parameters =
        Parameters::parse("  size=10 BODY=8BITMIME  SMTPUTF8 ORCPT=rfc822;a=b").unwrap();
    assert_eq!(parameters.get("SIZE"), Some(Some("10")));
    assert_eq!(parameters.get("smtputf8"), Some(None));
    assert_eq!(parameters.get("ORCPT"), Some(Some("rfc822;a=b")));
    assert_eq!(
        parameters.as_slice().first().map(String::as_str),
        Some("size=10")
    );
    for wrong in ["SIZE=1 size=2", "=1", "SIZE=", "-A", "A_B=1"] {
        assert_eq!(Parameters::parse(wrong), None, "{wrong}");
    }
    let many: Vec<String> = (0..=PARAMETERS_MAX).map(|n| format!("P{n}")).collect();
    assert_eq!(Parameters::parse(&many.join(" ")), None);
}

/// The same line through `smtp-proto`: address and SIZE of MAIL, address of RCPT.
fn independent(line: &str) -> Option<(String, usize)> {
    use smtp_proto::Request;
    let line = format!("{line}\r\n");
    match Request::parse(&mut line.as_bytes().iter()).ok()? {
        Request::Mail { from } => Some((from.address.into_owned(), from.size)),
        Request::Rcpt { to } => Some((to.address.into_owned(), 0)),
        _ => None,
    }
}

fn ours(line: &str) -> Option<(String, usize)> {
    match parse_line(line.as_bytes()).ok()? {
        Command::Mail { path, parameters } => {
            let size = parameters
                .get("SIZE")
                .flatten()
                .map_or(0, |size| size.parse().unwrap());
            Some((path.as_str().to_owned(), size))
        }
        Command::Rcpt { path, .. } => Some((path.as_str().to_owned(), 0)),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn paths_never_panic(text in "[<>\"\\\\@:,.\\[\\]a-zé \\-]{0,24}") {
        let _ = forward(&text);
        let _ = ReversePath::parse_prefix(&text);
        let _ = Parameters::parse(&text);
    }

    #[test]
    fn well_formed_addresses_round_trip(
        local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\\.[a-z0-9]{1,8}){0,2}|\"([a-z >@]|\\\\[ -~]){0,10}\"",
        domain in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]{2,8}){0,3}",
    ) {
        let address = format!("{local}@{domain}");
        let path = format!("<{address}> X");
        let (parsed, rest) = forward(&path).unwrap();
        prop_assert_eq!(parsed.as_str(), &address);
        prop_assert_eq!(rest, " X");
        let ForwardPath::Mailbox(mailbox) = parsed else { unreachable!() };
        prop_assert_eq!(mailbox.local_part(), &local);
        prop_assert_eq!(mailbox.domain(), &domain);
    }

    #[test]
    fn agrees_with_an_independent_parser(
        verb in prop_oneof![Just("MAIL FROM"), Just("RCPT TO"), Just("mail from"), Just("Rcpt To")],
        local in "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\\.[a-z0-9]{1,8}){0,2}",
        domain in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]{2,8}){1,3}",
        size in proptest::option::of(0_usize..1_000_000_000),
        body in prop_oneof![Just(""), Just(" BODY=8BITMIME"), Just(" BODY=7BIT SMTPUTF8")],
    ) {
        let mail = verb.eq_ignore_ascii_case("MAIL FROM");
        let size = size.filter(|_| mail).map(|size| format!(" SIZE={size}")).unwrap_or_default();
        let body = if mail { body } else { "" };
        let line = format!("{verb}:<{local}@{domain}>{size}{body}");
        prop_assert_eq!(ours(&line), independent(&line), "{}", line);
    }
}
