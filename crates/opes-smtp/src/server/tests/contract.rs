//! What the shell may rely on.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::grammar::ReversePath;
use crate::limits::COMMAND_LINE_OCTETS_MAX;
use crate::reply::Reply;
use crate::server::{
    Action, Body, Check, Config, ConnectionInfo, ContentReply, Protocol, RespondError, Response,
    Session, TlsInfo,
};

struct Client {
    session: Session,
    input: BytesMut,
}

impl Client {
    fn new(config: Config) -> Self {
        let client = "192.0.2.1:49152".parse().unwrap();
        let session = Session::new(Arc::new(config), ConnectionInfo { client, tls: None });
        Self {
            session,
            input: BytesMut::new(),
        }
    }

    fn connected(config: Config) -> Self {
        let mut client = Self::new(config);
        assert!(matches!(client.poll(), Action::Check(Check::Connect)));
        client.session.respond(Response::Proceed).unwrap();
        client
    }

    fn poll(&mut self) -> Action {
        self.session.poll(&mut self.input)
    }

    fn write(&mut self, octets: &str) -> Action {
        self.input.extend_from_slice(octets.as_bytes());
        self.poll()
    }

    /// Answers everything with "proceed" until the client is needed.
    fn proceed(&mut self, octets: &str) {
        let mut action = self.write(octets);
        while !matches!(action, Action::NeedInput) {
            if matches!(action, Action::Check(_)) {
                self.session.respond(Response::Proceed).unwrap();
            }
            action = self.poll();
        }
        self.session.output().clear();
    }

    fn output(&mut self) -> String {
        String::from_utf8(self.session.output().split().to_vec()).unwrap()
    }
}

const ENVELOPE: &str = "EHLO client.example.org\r\nMAIL FROM:<a@example.org> SIZE=9 BODY=8BITMIME\r\n\
                        RCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\n";

fn smtp() -> Config {
    Config::new("mail.example.com", Protocol::Smtp)
}

fn lmtp() -> Config {
    Config::new("mail.example.com", Protocol::Lmtp)
}

#[test]
fn the_transaction_is_visible_while_it_lasts() {
    let mut client = Client::connected(smtp());
    client.proceed(ENVELOPE);
    assert_eq!(
        client.session.helo().map(|hello| hello.argument.as_str()),
        Some("client.example.org")
    );
    let transaction = client.session.transaction().unwrap();
    assert_eq!(transaction.reverse_path.as_str(), "a@example.org");
    assert_eq!(
        transaction.mail_params.as_slice(),
        ["SIZE=9", "BODY=8BITMIME"]
    );
    assert_eq!(
        (transaction.size_declared, transaction.body),
        (Some(9), Body::EightBitMime)
    );
    assert_eq!(transaction.recipients.len(), 2);
    client.proceed("DATA\r\n");
    assert!(matches!(client.write("x\r\n.\r\n"), Action::Content(octets) if octets == "x\r\n"));
    assert!(matches!(client.poll(), Action::ContentEnd));
    assert!(client.session.transaction().is_some());
    client
        .session
        .respond(Response::Content(ContentReply::One(Reply::QUEUED)))
        .unwrap();
    assert!(client.session.transaction().is_none());
    assert!(
        matches!(client.poll(), Action::NeedInput),
        "not aborted, but finished"
    );
}

#[test]
fn commands_wait_for_the_answer() {
    let mut client = Client::connected(smtp());
    assert!(matches!(
        client.write("EHLO x\r\nNOOP\r\n"),
        Action::Check(Check::Helo { .. })
    ));
    client.output();
    assert!(matches!(client.poll(), Action::NeedInput));
    assert_eq!(client.output(), "");
    client.session.respond(Response::Proceed).unwrap();
    assert!(matches!(client.poll(), Action::NeedInput));
    assert!(client.output().ends_with("SMTPUTF8\r\n250 2.0.0 Ok\r\n"));
}

#[test]
fn answers_that_do_not_fit_leave_the_question_open() {
    let mut client = Client::connected(smtp());
    assert_eq!(
        client.session.respond(Response::Proceed),
        Err(RespondError::NotAsked)
    );
    client.proceed("EHLO x\r\n");
    assert!(matches!(
        client.write("MAIL FROM:<a@example.org>\r\n"),
        Action::Check(Check::Mail { .. })
    ));
    let question = "MAIL";
    let wrong = RespondError::WrongKind { question };
    assert_eq!(client.session.respond(Response::AuthOk), Err(wrong.clone()));
    let content = Response::Content(ContentReply::One(Reply::OK));
    assert_eq!(client.session.respond(content), Err(wrong));
    let positive = client.session.respond(Response::Refuse(Reply::OK));
    assert_eq!(positive, Err(RespondError::ReplyClass(Reply::OK)));
    assert_eq!(client.output(), "");
    client
        .session
        .respond(Response::Refuse(Reply::REFUSED))
        .unwrap();
    assert_eq!(client.output(), "550 5.7.1 Refused by policy\r\n");
}

#[test]
fn replacements_are_commands_of_the_same_verb_within_the_same_limits() {
    let mut client = Client::connected(smtp());
    client.proceed("EHLO x\r\n");
    client.write("MAIL FROM:<a@example.org>\r\n");
    let mut with = |line: &'static str| {
        client
            .session
            .respond(Response::ProceedWith(Bytes::from(line)))
    };
    let replacement = |reply: Reply| Err(RespondError::Replacement(reply.into()));
    assert_eq!(with("MAIL FROM:<"), replacement(Reply::SENDER_SYNTAX));
    assert_eq!(
        with("MAIL FROM:<a@b>\r\nQUIT"),
        replacement(Reply::INVALID_CHARACTER)
    );
    assert_eq!(
        with("MAIL FROM:<a@b> X=1"),
        replacement(Reply::UNKNOWN_PARAMETER)
    );
    assert_eq!(
        with("MAIL FROM:<ä@b>"),
        replacement(Reply::NON_ASCII_ADDRESS)
    );
    assert_eq!(
        with("RCPT TO:<a@b>"),
        Err(RespondError::VerbChanged { question: "MAIL" })
    );
    assert_eq!(with("MAIL FROM:<new@example.org> SIZE=3"), Ok(()));
    let transaction = client.session.transaction().unwrap();
    assert_eq!(
        Some(&transaction.reverse_path),
        ReversePath::parse("new@example.org").as_ref()
    );
    assert_eq!(transaction.size_declared, Some(3));
}

#[test]
fn the_shell_is_told_of_transactions_that_end_without_a_message() {
    for (config, end) in [
        (smtp(), "RSET\r\n"),
        (smtp(), "BDAT 2 LAST\r\n\n\n"),
        (lmtp(), "RSET\r\n"),
    ] {
        let mut client = Client::connected(config.clone());
        let lmtp = config.protocol == Protocol::Lmtp;
        client.proceed(&if lmtp {
            ENVELOPE.replace("EHLO", "LHLO")
        } else {
            ENVELOPE.to_owned()
        });
        let mut action = client.write(end);
        if let Action::Check(_) = action {
            client.session.respond(Response::Proceed).unwrap();
            action = client.poll();
        }
        assert!(
            matches!(action, Action::TransactionAborted),
            "{end:?}: {action:?}"
        );
        assert!(client.session.transaction().is_none());
        assert!(matches!(client.poll(), Action::NeedInput));
    }
}

#[test]
fn content_that_the_shell_cannot_take_is_swallowed() {
    let mut client = Client::connected(smtp());
    client.proceed(ENVELOPE);
    client.proceed("DATA\r\n");
    assert!(matches!(client.write("first\r\n"), Action::Content(_)));
    client.session.fail_content(Reply::INSUFFICIENT_STORAGE);
    assert!(matches!(
        client.write("second\r\n.\r\nNOOP\r\n"),
        Action::NeedInput
    ));
    assert_eq!(
        client.output(),
        "452 4.3.1 Insufficient system storage\r\n250 2.0.0 Ok\r\n"
    );
}

#[test]
fn chunks_that_the_shell_cannot_take_are_swallowed() {
    let mut client = Client::connected(smtp());
    client.proceed(ENVELOPE);
    client.proceed("BDAT 3\r\na\r\n");
    client.session.fail_content(Reply::INSUFFICIENT_STORAGE);
    assert!(matches!(
        client.write("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"),
        Action::NeedInput
    ));
    assert_eq!(
        client.output(),
        "452 4.3.1 Insufficient system storage\r\n250 2.0.0 Ok\r\n"
    );
    assert!(client.session.transaction().is_none());
}

#[test]
fn lmtp_replies_are_counted() {
    let mut client = Client::connected(lmtp());
    client.proceed(&ENVELOPE.replace("EHLO", "LHLO"));
    client.proceed("DATA\r\n");
    assert!(matches!(client.write(".\r\n"), Action::ContentEnd));
    let mut reply = |replies: Vec<Reply>| {
        client
            .session
            .respond(Response::Content(ContentReply::PerRecipient(replies)))
    };
    assert_eq!(
        reply(vec![Reply::QUEUED]),
        Err(RespondError::ReplyCount { given: 1, owed: 2 })
    );
    let class = Err(RespondError::ReplyClass(Reply::START_MAIL_INPUT));
    assert_eq!(reply(vec![Reply::QUEUED, Reply::START_MAIL_INPUT]), class);
    assert_eq!(reply(vec![Reply::QUEUED, Reply::NO_SUCH_MAILBOX]), Ok(()));
    assert_eq!(
        client.output(),
        "250 2.6.0 Message queued for delivery\r\n550 5.1.1 No such mailbox here\r\n"
    );
}

#[test]
fn octets_behind_starttls_are_refused_also_when_they_come_during_the_check() {
    let mut client = Client::connected(Config {
        tls_available: true,
        ..smtp()
    });
    client.proceed("EHLO x\r\n");
    assert!(matches!(
        client.write("STARTTLS\r\n"),
        Action::Check(Check::StartTls { .. })
    ));
    client.session.respond(Response::Proceed).unwrap();
    assert!(matches!(client.write("RSET\r\n"), Action::Close));
    assert!(
        client
            .output()
            .starts_with("503 5.5.1 Input after STARTTLS")
    );
}

#[test]
fn tls_forgets_the_transaction() {
    let mut client = Client::connected(Config {
        tls_available: true,
        ..smtp()
    });
    client.proceed(ENVELOPE);
    client.write("STARTTLS\r\n");
    client.session.respond(Response::Proceed).unwrap();
    assert!(matches!(client.poll(), Action::StartTls));
    assert_eq!(client.output(), "220 2.0.0 Ready to start TLS\r\n");
    let tls = TlsInfo {
        version: "TLSv1.3".to_owned(),
        ..TlsInfo::default()
    };
    client.session.tls_established(tls.clone());
    assert!(matches!(client.poll(), Action::TransactionAborted));
    assert_eq!(
        (client.session.tls(), client.session.helo()),
        (Some(&tls), None)
    );
}

#[test]
fn early_talkers_are_refused() {
    let mut client = Client::new(smtp());
    assert!(matches!(client.write("GET / HTTP/1.1\r\n"), Action::Close));
    assert!(client.output().starts_with("554 Synchronization error"));
}

#[test]
fn shutdown_closes_with_421_once() {
    let mut client = Client::connected(smtp());
    client.proceed(ENVELOPE);
    client.session.abort(Reply::SHUTTING_DOWN);
    client.session.abort(Reply::TIMEOUT);
    assert!(matches!(client.write("NOOP\r\n"), Action::Close));
    assert_eq!(
        client.output(),
        "421 4.3.2 mail.example.com Service shutting down; closing connection\r\n"
    );
}

#[test]
fn endless_lines_take_no_memory() {
    let mut client = Client::connected(smtp());
    client.output();
    for _ in 0..100 {
        assert!(matches!(client.write(&"x".repeat(1000)), Action::NeedInput));
        assert!(client.input.len() <= COMMAND_LINE_OCTETS_MAX);
    }
    client.write("\r\nNOOP\r\n");
    assert_eq!(
        client.output(),
        "500 5.5.6 Command line too long\r\n250 2.0.0 Ok\r\n"
    );
}

#[test]
fn replies_are_ascii_unless_the_transaction_is_smtputf8() {
    for (parameter, expected) in [
        ("", "550 5.7.1 naive? ?\r\n"),
        (" SMTPUTF8", "550 5.7.1 naive? é\r\n"),
    ] {
        let mut client = Client::connected(smtp());
        client.proceed(&format!(
            "EHLO x\r\nMAIL FROM:<a@example.org>{parameter}\r\n"
        ));
        client.write("RCPT TO:<b@example.com>\r\n");
        let reply = Reply::checked_for(550, "5.7.1".parse().ok(), &["naive? é"], true).unwrap();
        client.session.respond(Response::Refuse(reply)).unwrap();
        assert_eq!(client.output(), expected);
    }
}
