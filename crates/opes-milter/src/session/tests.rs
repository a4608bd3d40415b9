use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::command::ClientAddress;

const CONNECT: Command<'_> = Command::Connect {
    name: "a",
    address: ClientAddress::Unknown,
};
const MAIL: Command<'_> = Command::Mail {
    path: "<a@example.org>",
    parameters: &[],
};
const RCPT: Command<'_> = Command::Rcpt {
    path: "<b@example.com>",
    parameters: &[],
};
const HEADER: Command<'_> = Command::Header {
    name: b"Subject",
    value: b" x",
};
const WHOLE: [Command<'_>; 9] = [
    CONNECT,
    Command::Helo("a.example.org"),
    MAIL,
    RCPT,
    Command::Data,
    HEADER,
    Command::EndOfHeader,
    Command::Body(b"x"),
    Command::EndOfMessage,
];

fn frame(code: u8, data: &[u8]) -> Frame {
    Frame {
        code,
        data: Bytes::copy_from_slice(data),
    }
}

fn options(version: u32, actions: Actions, steps: Steps) -> Frame {
    let numbers = [version, actions.0, steps.0].map(u32::to_be_bytes);
    frame(b'O', &numbers.concat())
}

fn negotiated(version: u32, steps: Steps) -> Session {
    let mut session = Session::start(Actions::ALL, &mut BytesMut::new());
    let event = session
        .receive(options(version, Actions::ALL, steps))
        .unwrap();
    assert_eq!(event, Event::Negotiated);
    session
}

/// Codes of the frames that are sent for `commands`; all replies are `continue`.
fn codes(session: &mut Session, commands: &[Command<'_>], macros: &Macros) -> String {
    let mut out = BytesMut::new();
    for command in commands {
        if session.send(command, macros, &mut out).unwrap() == Sent::Awaits {
            session.receive(frame(b'c', b"")).unwrap();
        }
    }
    let mut codes = String::new();
    while let Some(frame) = Frame::decode(&mut out).unwrap() {
        codes.push(char::from(frame.code));
        if frame.code == b'D' {
            codes.push(char::from(frame.data[0]));
        }
    }
    codes
}

/// Sends `commands`, all answered `continue` but the last one.
fn after(commands: &[Command<'_>]) -> Session {
    let mut session = negotiated(6, Steps::default());
    let (last, before) = commands.split_last().unwrap();
    codes(&mut session, before, &Macros::default());
    let sent = session.send(last, &Macros::default(), &mut BytesMut::new());
    assert_eq!(sent, Ok(Sent::Awaits));
    session
}

#[test]
fn a_whole_session() {
    let macros = Macros::default()
        .with("j", "mail.example.com")
        .with("i", "1");
    let none = Steps::default();
    assert_eq!(
        codes(&mut negotiated(6, none), &WHOLE, &macros),
        "DCCHDMMDRRDTTLDNNBDEE"
    );
    // SMFIC_DATA is of version 4.
    assert_eq!(
        codes(&mut negotiated(2, none), &WHOLE, &Macros::default()),
        "CHMRLNBE"
    );
    let left_out = Steps(0x7f) | Steps::NODATA;
    assert_eq!(codes(&mut negotiated(6, left_out), &WHOLE, &macros), "DEE");
}

#[test]
fn what_has_no_reply_is_not_waited_for() {
    let silent = Steps(0xf_f000) | Steps::NR_HDR;
    let mut session = negotiated(6, silent);
    for command in WHOLE {
        let sent = session.send(&command, &Macros::default(), &mut BytesMut::new());
        let expected = if command == Command::EndOfMessage {
            Sent::Awaits
        } else {
            Sent::Silent
        };
        assert_eq!(sent, Ok(expected), "{command:?}");
    }
    let mut silent = negotiated(6, silent);
    let unasked = silent.receive(frame(b'c', b""));
    assert!(matches!(unasked, Err(ProtocolError::Unasked { .. })));
}

#[test]
fn what_is_skipped_is_skipped_for_this_message() {
    let mut session = after(&WHOLE[..6]);
    let skipped = session.receive(frame(b's', b"")).unwrap();
    assert_eq!(skipped, Event::Verdict(Verdict::Continue));
    assert_eq!(
        codes(
            &mut session,
            &[HEADER, HEADER, Command::EndOfHeader],
            &Macros::default()
        ),
        "N"
    );
    codes(&mut session, &[Command::Abort], &Macros::default());
    assert_eq!(
        codes(&mut session, &WHOLE[2..], &Macros::default()),
        "MRTLNBE"
    );
}

#[test]
fn macros_are_those_that_were_asked_for() {
    let mut session = Session::start(Actions::ALL, &mut BytesMut::new());
    let mut asking = options(6, Actions::SETSYMLIST, Steps::default())
        .data
        .to_vec();
    asking.extend_from_slice(b"\0\0\0\x02{client_addr} unknown\0");
    session.receive(frame(b'O', &asking)).unwrap();
    let macros = Macros::default()
        .with("client_addr", "192.0.2.1")
        .with("i", "7")
        .with("mail_addr", "a");
    let mut out = BytesMut::new();
    codes(&mut session, &WHOLE[..2], &Macros::default());
    session.send(&MAIL, &macros, &mut out).unwrap();
    assert_eq!(
        Frame::decode(&mut out).unwrap().unwrap(),
        frame(b'D', b"M{client_addr}\x00192.0.2.1\0")
    );
    session.receive(frame(b'c', b"")).unwrap();
    out.clear();
    session.send(&RCPT, &macros, &mut out).unwrap();
    assert_eq!(
        Frame::decode(&mut out).unwrap().unwrap(),
        frame(b'D', b"Ri\x007\0")
    );
}

#[test]
fn negotiations_that_fail() {
    let refused = |frame: Frame| {
        Session::start(Actions::ADDHDRS, &mut BytesMut::new())
            .receive(frame)
            .unwrap_err()
    };
    for version in [0, 1, 7] {
        let error = refused(options(version, Actions::ADDHDRS, Steps::default()));
        assert_eq!(error, ProtocolError::Version(version));
    }
    let error = refused(options(6, Actions::ALL, Steps::RCPT_REJ));
    assert_eq!(
        error.to_string(),
        "the milter asks for actions 0x1fe and protocol flags 0x800, more than was offered"
    );
    assert!(matches!(
        refused(frame(b'c', b"")),
        ProtocolError::Unfitting { .. }
    ));
    assert_eq!(
        refused(frame(b'z', b"")),
        ProtocolError::Reply(ReplyError::Unknown(b'z'))
    );
}

#[test]
fn each_reply_in_each_state() {
    // Fits: connect, helo, mail, rcpt, data, header, end of header, body, end of message.
    for (code, data, fits) in [
        (b'c', &b""[..], "yyyyyyyyy"),
        (b'a', b"", "yyyyyyyyy"),
        (b'r', b"", "yyyyyyyyy"),
        (b't', b"", "yyyyyyyyy"),
        (b'4', b"", "yyyyyyyyy"),
        (b'y', b"550 no\0", "yyyyyyyyy"),
        (b'p', b"", "yyyyyyyyy"),
        (b'd', b"", "nnyyyyyyy"),
        (b's', b"", "nnnynynyn"),
        (b'h', b"A\0b\0", "nnnnnnnny"),
        (b'i', b"\0\0\0\0A\0b\0", "nnnnnnnny"),
        (b'm', b"\0\0\0\0A\0b\0", "nnnnnnnny"),
        (b'b', b"body", "nnnnnnnny"),
        (b'+', b"a\0", "nnnnnnnny"),
        (b'2', b"a\0NOTIFY=NEVER\0", "nnnnnnnny"),
        (b'-', b"a\0", "nnnnnnnny"),
        (b'e', b"a\0", "nnnnnnnny"),
        (b'q', b"a\0", "nnnnnnnny"),
        (b'f', b"", "nnnnnnnnn"),
        (b'O', b"\0\0\0\x06\0\0\0\0\0\0\0\0", "nnnnnnnnn"),
        (b'z', b"", "nnnnnnnnn"),
    ] {
        let found = (1..=WHOLE.len()).map(|until| {
            let mut session = after(&WHOLE[..until]);
            if session.receive(frame(code, data)).is_ok() {
                'y'
            } else {
                'n'
            }
        });
        assert_eq!(found.collect::<String>(), fits, "{}", char::from(code));
    }
}

#[test]
fn changes_need_their_flag_and_have_a_limit() {
    let mut session = Session::start(Actions::ALL, &mut BytesMut::new());
    session
        .receive(options(6, Actions::ADDHDRS, Steps::default()))
        .unwrap();
    codes(&mut session, &WHOLE[..8], &Macros::default());
    session
        .send(
            &Command::EndOfMessage,
            &Macros::default(),
            &mut BytesMut::new(),
        )
        .unwrap();
    assert_eq!(
        session.clone().receive(frame(b'q', b"why\0")),
        Err(ProtocolError::NotNegotiated {
            reply: "SMFIR_QUARANTINE"
        })
    );
    for _ in 0..MODIFICATIONS_MAX {
        session.receive(frame(b'h', b"A\0b\0")).unwrap();
    }
    assert_eq!(
        session.receive(frame(b'h', b"A\0b\0")),
        Err(ProtocolError::TooManyModifications)
    );
    let mut endless = after(&WHOLE);
    for _ in 0..PROGRESS_MAX {
        assert_eq!(endless.receive(frame(b'p', b"")), Ok(Event::Progress));
    }
    assert_eq!(
        endless.receive(frame(b'p', b"")),
        Err(ProtocolError::TooMuchProgress)
    );
}

#[test]
fn commands_have_an_order() {
    let none = Macros::default();
    let mut session = negotiated(6, Steps::default());
    for command in &WHOLE[1..] {
        let sent = session.send(command, &none, &mut BytesMut::new());
        assert!(
            matches!(sent, Err(OrderError::Sequence { .. })),
            "{command:?}"
        );
    }
    let mut awaiting = after(&WHOLE[..1]);
    let sent = awaiting.send(&WHOLE[1], &none, &mut BytesMut::new());
    assert_eq!(sent, Err(OrderError::Awaiting));
    assert_eq!(
        awaiting.send(&Command::Quit, &none, &mut BytesMut::new()),
        Ok(Sent::Silent)
    );
    let octets = vec![b'x'; crate::BODY_OCTETS_MAX + 1];
    let mut body = negotiated(6, Steps::default());
    codes(&mut body, &WHOLE[..8], &none);
    let sent = body.send(&Command::Body(&octets), &none, &mut BytesMut::new());
    assert_eq!(sent, Err(OrderError::Chunk(65_536)));
}

proptest! {
    #[test]
    fn a_milter_can_say_anything(
        replies in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..40),
        mild in any::<bool>(),
    ) {
        let mut session = if mild { negotiated(6, Steps::default()) } else { Session::start(Actions::ALL, &mut BytesMut::new()) };
        let mut commands = WHOLE.iter();
        for (code, data) in replies {
            if !session.awaits() {
                let Some(command) = commands.next() else { break };
                session.send(command, &Macros::default(), &mut BytesMut::new()).unwrap();
            }
            let code = if mild { b"ctrasp"[usize::from(code) % 6] } else { code };
            let data = if mild { Vec::new() } else { data };
            if session.receive(Frame { code, data: data.into() }).is_err() {
                break;
            }
        }
    }
}
