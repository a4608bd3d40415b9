//! The state × command table in `docs/reference/smtp-states.md`, printed from the code. `OPES_UPDATE=1` writes it anew.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::command::{HelloVerb, Verb};
use crate::grammar::{ForwardPath, Parameters, ReversePath};
use crate::server::transaction::MailOptions;
use crate::server::{
    AuthMode, Config, ConnectionInfo, Hello, Protocol, Recipient, Session, TlsInfo, Transaction,
};

const HEAD: &str = "# SMTP: which command may come when

Printed from the code by a test of `opes-smtp` (`server/tests/table.rs`; `OPES_UPDATE=1` writes it anew). `yes` means that the
command goes on to its syntax, the local limits and the callout; anything else is the reply. The listener speaks SMTP, offers STARTTLS, and
AUTH over TLS.

";

const TAIL: &str = "
## What answers the content
After the end of DATA and after the last BDAT. Content that was refused on the way has one reply, with LMTP one for each accepted recipient.

| transaction | replies |
| --- | --- |
| SMTP, submission | one |
| LMTP (RFC 2033 §4.2) | one for each accepted recipient, in the order of RCPT |
| PRDR (draft-hall-prdr-00), all recipients with the same reply | that reply, once |
| PRDR, otherwise | `353`, one for each accepted recipient in the order of RCPT, one for all |

PRDR is a parameter of MAIL without a value, offered after EHLO where the listener is set to it; after HELO and with LMTP it is unknown (`555`). The
reply for all is `250` as soon as one recipient was accepted, else `451` if one may be tried again, else `550`: clients (Exim) take a refusal
there for every recipient. A `421` for one recipient closes the connection and is then the only reply.
";

type State = (&'static str, fn(&mut Session));

const STATES: [State; 9] = [
    ("greeting refused", |session| session.refused = true),
    ("greeted", |_| {}),
    ("HELO", hello),
    ("HELO over TLS", |session| {
        hello(session);
        session.tls = Some(TlsInfo::default());
    }),
    ("MAIL", mail),
    ("RCPT refused", |session| {
        mail(session);
        session.mark_rcpt_refused();
    }),
    ("RCPT", rcpt),
    ("RCPT over TLS", |session| {
        rcpt(session);
        session.tls = Some(TlsInfo::default());
    }),
    ("BDAT", |session| {
        rcpt(session);
        session.proceed_bdat(0, false);
    }),
];

fn hello(session: &mut Session) {
    session.hello = Some(Hello {
        verb: HelloVerb::Ehlo,
        argument: "x".to_owned(),
    });
}

fn mail(session: &mut Session) {
    hello(session);
    let options = MailOptions::default();
    session.transaction = Some(Transaction::new(
        ReversePath::Null,
        Parameters::default(),
        &options,
    ));
}

fn rcpt(session: &mut Session) {
    mail(session);
    let address = ForwardPath::parse("b@example.com").unwrap();
    session.proceed_rcpt(Recipient {
        address,
        params: Parameters::default(),
    });
}

fn session() -> Session {
    let mut config = Config::new("mail.example.com", Protocol::Smtp);
    config.tls_available = true;
    config.auth = AuthMode::TlsOnly;
    let client = "192.0.2.1:49152".parse().unwrap();
    Session::new(Arc::new(config), ConnectionInfo { client, tls: None })
}

fn cell(prepare: fn(&mut Session), verb: Verb) -> String {
    let mut session = session();
    prepare(&mut session);
    match session.check_sequence(verb) {
        Ok(()) => "yes".to_owned(),
        Err(reply) => match reply.enhanced() {
            Some(enhanced) => format!("{} {enhanced}", reply.code()),
            None => reply.code().to_string(),
        },
    }
}

fn table() -> String {
    let mut text = HEAD.to_owned();
    let names: Vec<&str> = STATES.iter().map(|(name, _)| *name).collect();
    writeln!(text, "| | {} |", names.join(" | ")).unwrap();
    writeln!(text, "|{}", " --- |".repeat(names.len() + 1)).unwrap();
    for (name, verb) in Verb::TABLE.into_iter().chain([("other", Verb::Unknown)]) {
        let cells: Vec<String> = STATES
            .iter()
            .map(|(_, prepare)| cell(*prepare, verb))
            .collect();
        writeln!(text, "| {name} | {} |", cells.join(" | ")).unwrap();
    }
    text + TAIL
}

#[test]
fn the_table_in_the_documents_is_the_one_in_the_code() {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/smtp-states.md");
    if std::env::var_os("OPES_UPDATE").is_some() {
        std::fs::write(&path, table()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written, table(), "run the test with OPES_UPDATE=1");
}
