use proptest::prelude::*;

use super::*;

fn parse(code: u8, data: &'static [u8]) -> Result<Reply, ReplyError> {
    let data = Bytes::from_static(data);
    Reply::parse(Frame { code, data })
}

fn refusal(text: &'static [u8]) -> Option<(u16, String, Vec<String>)> {
    match parse(b'y', text) {
        Ok(Reply::Refuse(refusal)) => Some((refusal.code, refusal.enhanced, refusal.lines)),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

#[test]
fn replies_of_a_milter_are_smtp_replies() {
    for (text, code, enhanced, lines) in [
        (
            &b"550 5.7.1 100%% spam\0"[..],
            550,
            "5.7.1",
            &["100% spam"][..],
        ),
        (b"450 later\0", 450, "", &["later"]),
        (b"554\0", 554, "", &[""]),
        // Of another class: it is text.
        (b"550 4.7.1 x\0", 550, "", &["4.7.1 x"]),
        (
            b"451-4.7.1 one\r\n451-4.7.1 two\r\n451 4.7.1 three\0",
            451,
            "4.7.1",
            &["one", "two", "three"],
        ),
        (b"550 5.7.1 caf\xc3\xa9\x07\0", 550, "5.7.1", &["caf??"]),
    ] {
        let (is_code, is_enhanced, is_lines) = refusal(text).unwrap();
        assert_eq!((is_code, is_enhanced.as_str()), (code, enhanced));
        assert_eq!(is_lines, lines);
    }
    for text in [
        &b"250 fine\0"[..],
        b"350 go on\0",
        b"no\0",
        b"\0",
        b"5507 text\0",
        b"550-5.7.1 a\r\n450 b\0",
        b"\xff\xff\xff 550\0",
    ] {
        assert_eq!(refusal(text), None, "{text:?}");
    }
}

#[test]
fn options_with_lists_of_macros() {
    let data =
        b"\0\0\0\x06\0\0\0\x01\0\x10\0\x00\0\0\0\0{client_addr} j\0\0\0\0\x05i, {mail_addr}\0";
    let Ok(Reply::Options(options)) = parse(b'O', data) else {
        panic!("no options");
    };
    assert_eq!((options.version, options.actions), (6, Actions::ADDHDRS));
    assert_eq!(options.steps, Steps::HDR_LEADSPC);
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        options.macros,
        [
            (Stage::Connect, of(&["client_addr", "j"])),
            (Stage::EndOfMessage, of(&["i", "mail_addr"]))
        ]
    );
    assert!(parse(b'O', b"\0\0\0\x06").is_err());
    assert!(parse(b'O', b"\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\x07j\0").is_err());
}

#[test]
fn what_is_not_quite_a_reply_is_an_error() {
    for (code, data) in [
        (b'z', &b""[..]),
        (b'c', b"x"),
        (b'h', b"X-A\0"),
        (b'h', b"X-A\0value"),
        (b'h', b"X-A\0value\0more"),
        (b'm', b"\0\0\0X"),
        (b'+', b"<a@example.org>"),
        (b'+', b"\xff\0"),
        (b'q', b""),
    ] {
        assert!(parse(code, data).is_err(), "{code} {data:?}");
    }
    let ok = parse(b'e', b"<>\0RET=HDRS ENVID=1\0").unwrap();
    let Reply::Modify(change) = ok else { panic!() };
    assert!(change.is_allowed_by(Actions::CHGFROM) && !change.is_allowed_by(Actions::ADDRCPT));
}

proptest! {
    #[test]
    fn any_frame_is_a_reply_or_an_error(code in any::<u8>(), data in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _either = Reply::parse(Frame { code, data: data.into() });
    }

    #[test]
    fn known_codes_with_any_data_too(
        code in proptest::sample::select(b"Ocadrt4yfsphimb+2-eq".to_vec()),
        data in proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'5'), any::<u8>()], 0..100),
    ) {
        if let Ok(Reply::Refuse(refusal)) = Reply::parse(Frame { code, data: data.into() }) {
            prop_assert!((400..600).contains(&refusal.code));
            prop_assert!(!refusal.lines.is_empty());
            prop_assert!(refusal.lines.iter().flat_map(|line| line.bytes()).all(|octet| (b' '..=b'~').contains(&octet)));
        }
    }
}
