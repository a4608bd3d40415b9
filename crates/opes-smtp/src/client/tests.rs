//! Dialogs in the notation of RFC 5321 appendix D. `C: [content]` stands for the stuffed content with its end,
//! `[tls]` for the handshake, `[closed]` for the end of the connection.

use super::{Action, Client, ClientConfig, DotStuffer, Mail, MailRecipient, TlsMode};
use crate::reply::Reply;
use bytes::BytesMut;
use proptest::prelude::*;

const CONTENT: &[u8] = b"Subject: test\r\n\r\n.dot\r\n";

struct Dialog {
    client: Client,
    input: BytesMut,
    sent: Vec<String>,
    messages: usize,
    recipients: Vec<&'static str>,
    mail: fn(&mut Mail<'_>),
    outcomes: Vec<super::Outcome>,
    closed: bool,
    reason: Option<Reply>,
}

impl Dialog {
    fn new(recipients: &[&'static str]) -> Self {
        let config = ClientConfig {
            hostname: "client.example.com".into(),
            lmtp: false,
            tls: TlsMode::Opportunistic,
        };
        Self {
            client: Client::new(config),
            input: BytesMut::new(),
            sent: Vec::new(),
            messages: 1,
            recipients: recipients.to_vec(),
            mail: |_| {},
            outcomes: Vec::new(),
            closed: false,
            reason: None,
        }
    }

    fn lmtp(mut self) -> Self {
        self.client.config.lmtp = true;
        self
    }

    fn tls(mut self, mode: TlsMode) -> Self {
        self.client.config.tls = mode;
        self
    }

    fn messages(mut self, count: usize) -> Self {
        self.messages = count;
        self
    }

    fn mail(mut self, change: fn(&mut Mail<'_>)) -> Self {
        self.mail = change;
        self
    }

    fn begin(&mut self) {
        let recipients: Vec<_> = self
            .recipients
            .iter()
            .map(|address| MailRecipient {
                address,
                params: &[],
            })
            .collect();
        let mut mail = Mail {
            reverse_path: "a@example.com",
            params: &[],
            size: Some(CONTENT.len() as u64),
            body_8bit: false,
            smtputf8: false,
            recipients: &recipients,
            all_or_none: false,
        };
        (self.mail)(&mut mail);
        self.client.begin(&mail).expect("ready");
        self.messages -= 1;
    }

    fn collect_output(&mut self) {
        let output = self.client.output().split();
        let text = String::from_utf8(output.to_vec()).expect("commands are text");
        self.sent
            .extend(text.split_terminator("\r\n").map(str::to_owned));
    }

    fn pump(&mut self) {
        while !self.closed {
            let action = self.client.poll(&mut self.input);
            self.collect_output();
            match action {
                Action::NeedInput => return,
                Action::StartTls => {
                    self.sent.push("[tls]".into());
                    self.client.tls_established();
                }
                Action::Ready if self.messages == 0 => return,
                Action::Ready => self.begin(),
                Action::SendContent => {
                    let mut stuffer = DotStuffer::new();
                    let mut wire = stuffer.stuff(CONTENT).collect::<Vec<_>>().concat();
                    wire.extend_from_slice(stuffer.finish());
                    assert_eq!(wire, b"Subject: test\r\n\r\n..dot\r\n.\r\n");
                    self.sent.push("[content]".into());
                    self.client.content_sent();
                }
                Action::Done(outcome) => self.outcomes.push(outcome),
                Action::Closed(reason) => (self.closed, self.reason) = (true, reason),
            }
        }
    }

    /// Plays the script; every command must be the next one that was sent, and no command may be left over.
    fn play(mut self, script: &str) -> Self {
        self.pump();
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            match line.split_at(2) {
                ("S:", reply) => {
                    self.input.extend_from_slice(reply.trim_start().as_bytes());
                    self.input.extend_from_slice(b"\r\n");
                    self.pump();
                }
                ("C:", command) => {
                    assert!(
                        !self.sent.is_empty(),
                        "nothing was sent where {line} is due"
                    );
                    assert_eq!(self.sent.remove(0), command.trim_start());
                }
                _ if line == "[closed]" => assert!(self.closed, "still open"),
                _ if line == "[lost]" => {
                    self.client.connection_lost("reset by peer");
                    self.pump();
                }
                _ if line == "[quit]" => {
                    self.client.quit();
                    self.pump();
                }
                _ => panic!("not a line of a dialog: {line}"),
            }
        }
        assert!(
            self.sent.is_empty(),
            "sent beyond the script: {:?}",
            self.sent
        );
        self
    }

    /// Codes of the replies of the first message.
    fn codes(&self) -> Vec<u16> {
        self.outcomes[0].replies.iter().map(Reply::code).collect()
    }
}

const PIPELINING: &str = "
    S: 220 mx.example.net ESMTP
    C: EHLO client.example.com
    S: 250-mx.example.net
    S: 250-SIZE 1000
    S: 250 PIPELINING
";

const PLAIN: &str = "
    S: 220 mx.example.net ESMTP
    C: EHLO client.example.com
    S: 250 mx.example.net
";

const LMTP: &str = "
    S: 220 mx.example.net LMTP
    C: LHLO client.example.com
    S: 250-mx.example.net
    S: 250 PIPELINING
";

fn script(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn envelope_goes_in_one_write_when_pipelining_is_offered() {
    // All three commands stand before the first reply.
    let dialog = Dialog::new(&["b@example.net"]).play(&script(&[
        PIPELINING,
        "C: MAIL FROM:<a@example.com> SIZE=23
         C: RCPT TO:<b@example.net>
         C: DATA
         S: 250 2.1.0 Ok
         S: 250 2.1.5 Ok
         S: 354 go ahead
         C: [content]
         S: 250 2.0.0 queued as 7
         [quit]
         C: QUIT
         S: 221 bye
         [closed]",
    ]));
    assert_eq!(dialog.codes(), [250]);
    assert!(dialog.closed && dialog.reason.is_none());
}

#[test]
fn commands_go_step_by_step_without_pipelining() {
    let dialog = Dialog::new(&["b@example.net", "c@example.net"]).play(&script(&[
        PLAIN,
        "C: MAIL FROM:<a@example.com>
         S: 250 Ok
         C: RCPT TO:<b@example.net>
         S: 550 5.1.1 no such user
         C: RCPT TO:<c@example.net>
         S: 250 Ok
         C: DATA
         S: 354 go ahead
         C: [content]
         S: 250 Ok",
    ]));
    assert_eq!(dialog.codes(), [550, 250]);
}

#[test]
fn data_is_not_asked_for_when_nobody_was_accepted_and_rset_comes_before_the_next_message() {
    let dialog = Dialog::new(&["b@example.net"]).messages(2).play(&script(&[
        PLAIN,
        "C: MAIL FROM:<a@example.com>
         S: 250 Ok
         C: RCPT TO:<b@example.net>
         S: 450 4.2.1 busy
         C: RSET
         S: 250 Ok
         C: MAIL FROM:<a@example.com>
         S: 550 5.7.1 not you",
    ]));
    assert_eq!(dialog.codes(), [450]);
    assert_eq!(dialog.outcomes[1].replies[0].code(), 550);
}

#[test]
fn lone_dot_ends_content_that_nobody_was_accepted_for() {
    // RFC 2920 §3.1
    let dialog = Dialog::new(&["b@example.net"]).messages(2).play(&script(&[
        PIPELINING,
        "C: MAIL FROM:<a@example.com> SIZE=23
         C: RCPT TO:<b@example.net>
         C: DATA
         S: 250 Ok
         S: 550 5.1.1 no such user
         S: 354 go ahead
         C: .
         S: 554 5.5.1 no valid recipients
         C: MAIL FROM:<a@example.com> SIZE=23
         C: RCPT TO:<b@example.net>
         C: DATA
         S: 250 Ok
         S: 250 Ok
         S: 354 go ahead
         C: [content]
         S: 250 Ok",
    ]));
    assert_eq!(dialog.codes(), [550]);
    assert_eq!(dialog.outcomes[1].replies[0].code(), 250);
}

#[test]
fn refused_sender_decides_all_recipients_and_the_pipelined_replies_are_read() {
    let dialog = Dialog::new(&["b@example.net", "c@example.net"])
        .messages(2)
        .play(&script(&[
            PIPELINING,
            "C: MAIL FROM:<a@example.com> SIZE=23
         C: RCPT TO:<b@example.net>
         C: RCPT TO:<c@example.net>
         C: DATA
         S: 451 4.7.1 greylisted
         S: 503 5.5.1 need MAIL
         S: 503 5.5.1 need MAIL
         S: 503 5.5.1 need RCPT
         C: MAIL FROM:<a@example.com> SIZE=23
         C: RCPT TO:<b@example.net>
         C: RCPT TO:<c@example.net>
         C: DATA",
        ]));
    assert_eq!(dialog.codes(), [451, 451]);
}

#[test]
fn lmtp_gives_each_accepted_recipient_its_own_reply() {
    let dialog = Dialog::new(&["b@example.net", "c@example.net", "d@example.net"])
        .lmtp()
        .play(&script(&[
            LMTP,
            "C: MAIL FROM:<a@example.com>
             C: RCPT TO:<b@example.net>
             C: RCPT TO:<c@example.net>
             C: RCPT TO:<d@example.net>
             C: DATA
             S: 250 Ok
             S: 250 Ok
             S: 550 5.1.1 no such user
             S: 250 Ok
             S: 354 go ahead
             C: [content]
             S: 250 2.0.0 stored
             S: 452 4.2.2 over quota",
        ]));
    assert_eq!(dialog.codes(), [250, 550, 452]);
}

#[test]
fn all_or_none_sends_no_content_when_one_recipient_is_refused() {
    let dialog = Dialog::new(&["b@example.net", "c@example.net", "d@example.net"])
        .mail(|mail| mail.all_or_none = true)
        .play(&script(&[
            PIPELINING,
            "C: MAIL FROM:<a@example.com> SIZE=23
             C: RCPT TO:<b@example.net>
             C: RCPT TO:<c@example.net>
             C: RCPT TO:<d@example.net>
             S: 250 Ok
             S: 250 Ok
             S: 450 4.2.0 greylisted
             S: 550 5.1.1 no such user",
        ]));
    assert_eq!(dialog.codes(), [450, 450, 450]);
}

#[test]
fn all_or_none_sends_the_content_when_all_are_accepted() {
    let dialog = Dialog::new(&["b@example.net", "c@example.net"])
        .mail(|mail| mail.all_or_none = true)
        .play(&script(&[
            PIPELINING,
            "C: MAIL FROM:<a@example.com> SIZE=23
             C: RCPT TO:<b@example.net>
             C: RCPT TO:<c@example.net>
             S: 250 Ok
             S: 250 Ok
             S: 250 Ok
             C: DATA
             S: 354 go ahead
             C: [content]
             S: 250 2.0.0 taken",
        ]));
    assert_eq!(dialog.codes(), [250, 250]);
}

#[test]
fn lmtp_421_between_the_final_replies_leaves_the_first_delivered() {
    let dialog = Dialog::new(&["b@example.net", "c@example.net"])
        .lmtp()
        .play(&script(&[
            LMTP,
            "C: MAIL FROM:<a@example.com>
         C: RCPT TO:<b@example.net>
         C: RCPT TO:<c@example.net>
         C: DATA
         S: 250 Ok
         S: 250 Ok
         S: 250 Ok
         S: 354 go ahead
         C: [content]
         S: 250 2.0.0 stored
         S: 421 4.3.2 shutting down
         [closed]",
        ]));
    assert_eq!(dialog.codes(), [250, 421]);
    assert!(!dialog.outcomes[0].untried);
}

#[test]
fn helo_is_tried_when_ehlo_is_refused() {
    let dialog = Dialog::new(&["b@example.net"]).play(
        "S: 220 old.example.net
         C: EHLO client.example.com
         S: 502 what?
         C: HELO client.example.com
         S: 250 old.example.net
         C: MAIL FROM:<a@example.com>
         S: 250 Ok
         C: RCPT TO:<b@example.net>
         S: 250 Ok
         C: DATA
         S: 354 go ahead
         C: [content]
         S: 250 Ok",
    );
    assert_eq!(dialog.codes(), [250]);
}

#[test]
fn sessions_that_do_not_come_about_are_transient() {
    for refusal in [
        "S: 554 no service here\n[closed]",
        "S: 421 too busy\n[closed]",
        "S: 220 mx\nC: EHLO client.example.com\nS: 451 not now\n[closed]",
        "S: 220 mx\nC: EHLO client.example.com\nS: 502 no\nC: HELO client.example.com\nS: 550 no\n[closed]",
        "S: HTTP/1.1 400 Bad Request\n[closed]",
        "S: 250 mx\n[closed]",
    ] {
        let dialog = Dialog::new(&["b@example.net"]).play(refusal);
        let reason = dialog.reason.expect("a reason");
        assert!(reason.is_transient(), "{reason}");
        assert!(dialog.outcomes.is_empty());
    }
}

#[test]
fn starttls_forgets_what_was_offered_in_clear_text() {
    let dialog = Dialog::new(&["b@example.net"]).play(
        "S: 220 mx.example.net ESMTP
         C: EHLO client.example.com
         S: 250-mx.example.net
         S: 250-PIPELINING
         S: 250 STARTTLS
         C: STARTTLS
         S: 220 go
         C: [tls]
         C: EHLO client.example.com
         S: 250-mx.example.net
         S: 250 STARTTLS
         C: MAIL FROM:<a@example.com>",
    );
    assert!(!dialog.client.extensions().pipelining);
}

#[test]
fn octets_behind_the_starttls_reply_are_refused() {
    // CVE-2011-0411
    let mut dialog = Dialog::new(&["b@example.net"]);
    dialog
        .input
        .extend_from_slice(b"220 mx\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n");
    dialog.pump();
    assert!(dialog.reason.is_some_and(|reason| reason.is_transient()));
}

#[test]
fn required_tls_is_never_done_without() {
    for refusal in [
        "S: 220 mx\nC: EHLO client.example.com\nS: 250 mx\n[closed]",
        "S: 220 mx\nC: EHLO client.example.com\nS: 502 no\n[closed]",
        "S: 220 mx\nC: EHLO client.example.com\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 no\n[closed]",
    ] {
        let dialog = Dialog::new(&["b@example.net"])
            .tls(TlsMode::Required)
            .play(refusal);
        assert!(dialog.reason.is_some_and(|reason| reason.is_transient()));
    }
    Dialog::new(&["b@example.net"]).play(
        "S: 220 mx
         C: EHLO client.example.com
         S: 250-mx
         S: 250 STARTTLS
         C: STARTTLS
         S: 454 not now
         C: MAIL FROM:<a@example.com>",
    );
}

#[test]
fn lost_connection_decides_the_undecided_only() {
    let dialog = Dialog::new(&["b@example.net", "c@example.net"]).play(&script(&[
        PIPELINING,
        "C: MAIL FROM:<a@example.com> SIZE=23
         C: RCPT TO:<b@example.net>
         C: RCPT TO:<c@example.net>
         C: DATA
         S: 250 Ok
         S: 550 5.1.1 no such user
         S: 250 Ok
         S: 354 go ahead
         C: [content]
         [lost]
         [closed]",
    ]));
    assert_eq!(dialog.codes(), [550, 451]);
    assert!(!dialog.outcomes[0].untried);
}

#[test]
fn connection_closed_before_mail_was_answered_is_untried() {
    for end in ["[lost]", "S: 421 4.3.2 idle too long"] {
        let dialog = Dialog::new(&["b@example.net"]).play(&script(&[
            PIPELINING,
            "C: MAIL FROM:<a@example.com> SIZE=23
             C: RCPT TO:<b@example.net>
             C: DATA\n",
            end,
        ]));
        assert!(dialog.outcomes[0].untried && dialog.outcomes[0].replies[0].is_transient());
    }
}

#[test]
fn parameters_follow_what_the_peer_offers() {
    let params = ["RET=HDRS", "SIZE=99", "opesbypass=*"].map(str::to_owned);
    let notify = ["NOTIFY=NEVER".to_owned()];
    let recipients = [MailRecipient {
        address: "b@example.net",
        params: &notify,
    }];
    let mail = Mail {
        reverse_path: "",
        params: &params,
        size: Some(7),
        body_8bit: true,
        smtputf8: false,
        recipients: &recipients,
        all_or_none: false,
    };
    for (offer, expected) in [
        ("250 mx\r\n", "MAIL FROM:<>\r\n"),
        (
            "250-mx\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-PIPELINING\r\n250 DSN\r\n",
            "MAIL FROM:<> SIZE=7 BODY=8BITMIME RET=HDRS\r\nRCPT TO:<b@example.net> NOTIFY=NEVER\r\nDATA\r\n",
        ),
        // R3897-20: a bypass request goes to the next hop that knows it.
        (
            "250-mx\r\n250 OPESBYPASS\r\n",
            "MAIL FROM:<> opesbypass=*\r\n",
        ),
    ] {
        let mut dialog = Dialog::new(&[]).messages(0);
        dialog
            .input
            .extend_from_slice(format!("220 mx\r\n{offer}").as_bytes());
        dialog.pump();
        dialog.client.begin(&mail).expect("ready");
        assert_eq!(dialog.client.output().as_ref(), expected.as_bytes());
    }
}

#[test]
fn messages_the_peer_cannot_take_are_refused_without_asking_it() {
    for (change, code) in [
        (
            (|mail: &mut Mail<'_>| mail.smtputf8 = true) as fn(&mut Mail<'_>),
            550,
        ),
        (|mail| mail.size = Some(1001), 552),
        (
            |mail| mail.reverse_path = "a@example.com> SIZE=1\r\nRCPT TO:<x@example.org",
            501,
        ),
        (|mail| mail.reverse_path = "ü@example.com", 553),
    ] {
        let dialog = Dialog::new(&["b@example.net"])
            .mail(change)
            .play(PIPELINING);
        assert_eq!(dialog.codes(), [code]);
    }
}

#[test]
fn addresses_cannot_end_their_command_line() {
    let dialog = Dialog::new(&[
        "x@example.net> NOTIFY=NEVER",
        "x\r\nQUIT",
        "",
        "\"a> b\"@example.net",
    ])
    .play(&script(&[
        PLAIN,
        "C: MAIL FROM:<a@example.com>
             S: 250 Ok
             C: RCPT TO:<\"a> b\"@example.net>
             S: 250 Ok
             C: DATA
             S: 451 4.3.0 disk trouble",
    ]));
    assert_eq!(dialog.codes(), [501, 501, 501, 451]);
}

#[test]
fn old_552_for_too_many_recipients_is_transient() {
    // RFC 5321 §4.5.3.1.10
    for (reply, code) in [
        ("552 too many", 452),
        ("552 5.5.3 too many", 452),
        ("552 5.2.2 full", 552),
    ] {
        let dialog = Dialog::new(&["b@example.net"]).play(&script(&[
            PLAIN,
            "C: MAIL FROM:<a@example.com>
             S: 250 Ok
             C: RCPT TO:<b@example.net>
             S: ",
            reply,
        ]));
        assert_eq!(dialog.codes(), [code]);
    }
}

#[test]
fn pipelined_commands_have_a_limit() {
    let recipients = vec!["b@example.net"; 250];
    let mut dialog = Dialog::new(&recipients);
    dialog
        .input
        .extend_from_slice(b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
    dialog.pump();
    dialog.sent.remove(0);
    assert_eq!(dialog.sent.len(), super::PIPELINED_COMMANDS_MAX);
    for _ in 0..251 {
        dialog.input.extend_from_slice(b"250 Ok\r\n");
        dialog.pump();
    }
    assert_eq!(dialog.sent.len(), 252);
    assert_eq!(dialog.sent.last().map(String::as_str), Some("DATA"));
}

#[test]
fn replies_without_a_command_end_the_session() {
    let dialog = Dialog::new(&[])
        .messages(0)
        .play(&script(&[PLAIN, "S: 250 surprise\n[closed]"]));
    assert!(dialog.reason.is_some_and(|reason| reason.is_transient()));
}

proptest! {
    #[test]
    fn arbitrary_replies_never_panic_and_every_recipient_gets_one_result(
        octets in prop::collection::vec(any::<u8>(), 0..400),
        lmtp: bool,
    ) {
        check_totality(&octets, lmtp)?;
    }

    #[test]
    fn arbitrary_reply_codes_never_panic_and_every_recipient_gets_one_result(
        codes in prop::collection::vec((2_u16..=5, 0_u16..6, 0_u16..5), 0..16),
        lmtp: bool,
        pipelining: bool,
    ) {
        let offer = if pipelining { "220 mx\r\n250-mx\r\n250 PIPELINING\r\n" } else { "220 mx\r\n250 mx\r\n" };
        let replies: String = codes
            .iter()
            .map(|(a, b, c)| match (a, b) {
                (3, _) => "354 go\r\n".to_owned(),
                (2, _) => "250 ok\r\n".to_owned(),
                _ => format!("{a}{b}{c} text\r\n"),
            })
            .collect();
        check_totality(format!("{offer}{replies}").as_bytes(), lmtp)?;
    }
}

fn check_totality(octets: &[u8], lmtp: bool) -> Result<(), TestCaseError> {
    let mut dialog = Dialog::new(&["b@example.net", "c@example.net"]).messages(3);
    dialog.client.config.lmtp = lmtp;
    for octet in octets {
        dialog.input.extend_from_slice(&[*octet]);
        dialog.pump();
    }
    dialog.client.connection_lost("end of input");
    dialog.pump();
    prop_assert!(dialog.closed);
    prop_assert_eq!(dialog.outcomes.len(), 3 - dialog.messages);
    prop_assert!(
        dialog
            .outcomes
            .iter()
            .all(|outcome| outcome.replies.len() == 2)
    );
    Ok(())
}
