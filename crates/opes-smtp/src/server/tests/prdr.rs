//! PRDR: the contract with the shell, and the block of replies for any replies.

use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;

use crate::reply::Reply;
use crate::server::{
    Action, Config, ConnectionInfo, ContentReply, Protocol, RespondError, Response, Session,
};

/// A session that owes the reply to the content of `recipients` recipients.
fn content_ended(recipients: usize, parameter: &str) -> Session {
    let config = Config {
        prdr: true,
        ..Config::new("mail.example.com", Protocol::Smtp)
    };
    let client = "192.0.2.1:49152".parse().unwrap();
    let mut session = Session::new(Arc::new(config), ConnectionInfo { client, tls: None });
    let mut input = BytesMut::new();
    assert!(matches!(session.poll(&mut input), Action::Check(_)));
    session.respond(Response::Proceed).unwrap();
    let envelope = format!("EHLO x\r\nMAIL FROM:<a@example.org>{parameter}\r\n");
    let to = "RCPT TO:<b@example.com>\r\n".repeat(recipients);
    input.extend_from_slice(format!("{envelope}{to}DATA\r\nx\r\n.\r\n").as_bytes());
    loop {
        match session.poll(&mut input) {
            Action::Check(_) => session.respond(Response::Proceed).unwrap(),
            Action::Content(_) => {}
            Action::ContentEnd => break,
            other => panic!("{other:?}"),
        }
    }
    session.output().clear();
    session
}

fn respond(session: &mut Session, replies: &[Reply]) -> Result<(), RespondError> {
    session.respond(Response::Content(ContentReply::PerRecipient(
        replies.to_vec(),
    )))
}

fn lines(session: &mut Session) -> Vec<String> {
    let output = String::from_utf8(session.output().split().to_vec()).unwrap();
    output.lines().map(str::to_owned).collect()
}

#[test]
fn the_shell_sees_what_the_client_asked_for() {
    for (parameter, prdr) in [(" PRDR", true), (" SIZE=3 prdr", true), ("", false)] {
        let session = content_ended(2, parameter);
        assert_eq!(session.transaction().unwrap().prdr, prdr, "{parameter}");
    }
}

#[test]
fn replies_are_counted() {
    let mut session = content_ended(2, " PRDR");
    let owed = |given| Err(RespondError::ReplyCount { given, owed: 2 });
    assert_eq!(respond(&mut session, &[]), owed(0));
    assert_eq!(respond(&mut session, &[Reply::QUEUED]), owed(1));
    let class = Err(RespondError::ReplyClass(Reply::START_MAIL_INPUT));
    assert_eq!(
        respond(&mut session, &[Reply::QUEUED, Reply::START_MAIL_INPUT]),
        class
    );
    assert_eq!(lines(&mut session), Vec::<String>::new());
    let mut session = content_ended(2, "");
    assert_eq!(
        respond(&mut session, &[Reply::QUEUED, Reply::QUEUED]),
        Err(RespondError::ReplyCount { given: 2, owed: 1 }),
        "the client did not ask for it"
    );
}

#[test]
fn one_reply_stands_for_all() {
    let mut session = content_ended(3, " PRDR");
    session
        .respond(Response::Content(ContentReply::One(Reply::QUEUED)))
        .unwrap();
    assert_eq!(
        lines(&mut session),
        ["250 2.6.0 Message queued for delivery"]
    );
}

#[test]
fn closing_is_for_the_connection() {
    let mut session = content_ended(2, " PRDR");
    respond(&mut session, &[Reply::QUEUED, Reply::SHUTTING_DOWN]).unwrap();
    let lines = lines(&mut session);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("421 4.3.2 "), "{lines:?}");
}

/// Replies as the engine may give them.
fn reply() -> impl Strategy<Value = Reply> {
    prop::sample::select(vec![
        Reply::QUEUED,
        Reply::OK,
        Reply::NO_SUCH_MAILBOX,
        Reply::REFUSED,
        Reply::INSUFFICIENT_STORAGE,
    ])
}

/// What a client makes of the answer: the reply code for each recipient (draft-hall-prdr-00 §4.5; Exim reads it so).
fn read_by_client(lines: &[String], recipients: usize) -> Option<Vec<u16>> {
    let codes: Option<Vec<u16>> = lines
        .iter()
        .map(|line| line.get(..3)?.parse().ok())
        .collect();
    let codes = codes?;
    let all_or_own = |own: &[u16], all: u16| {
        let upgraded = own
            .iter()
            .map(|code| if all < 300 { *code } else { all.max(*code) });
        upgraded.collect()
    };
    match codes.as_slice() {
        [353, own @ .., all] if own.len() == recipients => Some(all_or_own(own, *all)),
        [all] if *all != 353 => Some(vec![*all; recipients]),
        _ => None,
    }
}

proptest! {
    #[test]
    fn the_client_understands_what_the_engine_decided(replies in prop::collection::vec(reply(), 1..9)) {
        let mut session = content_ended(replies.len(), " PRDR");
        respond(&mut session, &replies).unwrap();
        let lines = lines(&mut session);
        let understood = read_by_client(&lines, replies.len());
        let class = |codes: Vec<u16>| codes.iter().map(|code| code / 100).collect::<Vec<_>>();
        let decided: Vec<u16> = replies.iter().map(Reply::code).collect();
        prop_assert_eq!(understood.map(class), Some(class(decided)), "{:?}", lines);
        prop_assert!(session.transaction().is_none());
        let same = replies.windows(2).all(|two| two[0] == two[1]);
        prop_assert_eq!(lines.len(), if same { 1 } else { replies.len() + 2 });
    }

    #[test]
    fn transient_refusals_are_never_made_permanent(replies in prop::collection::vec(reply(), 2..9)) {
        let mut session = content_ended(replies.len(), " PRDR");
        respond(&mut session, &replies).unwrap();
        let last = lines(&mut session).pop().unwrap();
        if replies.iter().any(|reply| !reply.is_permanent()) {
            prop_assert!(!last.starts_with('5') , "{last}");
        }
        prop_assert_eq!(last.starts_with('2'), replies.iter().any(Reply::is_positive));
    }
}
