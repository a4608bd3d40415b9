//! One mail transaction as the client sees it: the command lines to send, how many of them may be under way, and
//! what each recipient's fate is.
//!
//! Pipelining (RFC 2920) and step by step are one algorithm with two window sizes. All lines are rendered once;
//! a line is released when the window has room for it. A recipient is *undecided* until a reply, or a limit the
//! peer announced, decides it; accepted recipients stay undecided until the reply to the content.

use super::extensions::Extensions;
use super::local;
use crate::limits::BYPASS_KEYWORD;
use crate::reply::Reply;
use bytes::BytesMut;

/// Commands under way at once when the peer offers PIPELINING. Bounds the replies that can pile up while we are
/// still writing, so that neither side waits for the other with full socket buffers (RFC 2920 §3.1).
pub const PIPELINED_COMMANDS_MAX: usize = 100;

/// The envelope of one message, borrowed from wherever the caller keeps it.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// Reverse-path without angle brackets, verbatim; empty is the null reverse-path.
    pub reverse_path: &'a str,
    /// Parameters of the MAIL command as received; RET and ENVID go on if the peer offers DSN, OPESBYPASS if it offers that
    /// (R3897-20), the others are made anew.
    pub params: &'a [String],
    /// Octets of the content, if known already.
    pub size: Option<u64>,
    /// The content may have octets above 127 (RFC 6152).
    pub body_8bit: bool,
    /// The message needs SMTPUTF8 (RFC 6531 §3.3).
    pub smtputf8: bool,
    /// In the order in which the results will come back.
    pub recipients: &'a [MailRecipient<'a>],
    /// Send the content only if every recipient is accepted; otherwise all get the worst reply. For a client that can be given only one.
    pub all_or_none: bool,
}

/// One recipient of a [`Mail`].
#[derive(Debug, Clone, Copy)]
pub struct MailRecipient<'a> {
    /// Forward-path without angle brackets, verbatim.
    pub address: &'a str,
    /// Parameters of the RCPT command as received; NOTIFY and ORCPT go on if the peer offers DSN.
    pub params: &'a [String],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
}

#[derive(Debug)]
struct Line {
    step: Step,
    octets: usize,
}

/// What the dialog does next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// More replies are due.
    Await,
    /// 354 came and somebody will get the content.
    Content,
    /// 354 came though nobody was accepted: close the content at once (RFC 2920 §3.1).
    EmptyContent,
    /// Every recipient is decided.
    Finished,
    /// The reply makes no sense here.
    Confused(Reply),
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, not one state"
)]
pub(super) struct Transaction {
    /// The lines not released yet.
    lines: BytesMut,
    /// Octets of `lines` that belong to lines of the plan; only while rendering.
    planned: usize,
    plan: Vec<Line>,
    window: usize,
    all_or_none: bool,
    released: usize,
    answered: usize,
    mail_refused: bool,
    /// Recipients the peer said 250 to, in order.
    accepted: Vec<usize>,
    /// How many accepted recipients have their own reply to the content (LMTP).
    content_replies: usize,
    results: Vec<Option<Reply>>,
    open: bool,
    mail_answered: bool,
}

impl Transaction {
    /// Plans the commands. With `reset` an RSET goes first, to end what the transaction before left open.
    pub(super) fn plan(mail: &Mail<'_>, extensions: &Extensions, reset: bool) -> Self {
        let count = mail.recipients.len();
        let mut new = Self {
            lines: BytesMut::with_capacity(128 + 64 * count),
            planned: 0,
            plan: Vec::with_capacity(count + 3),
            window: if extensions.pipelining {
                PIPELINED_COMMANDS_MAX
            } else {
                1
            },
            // With one recipient it is no condition, and DATA need not wait.
            all_or_none: mail.all_or_none && count > 1,
            released: 0,
            answered: 0,
            mail_refused: false,
            accepted: Vec::with_capacity(count),
            content_replies: 0,
            results: vec![None; count],
            open: false,
            mail_answered: false,
        };
        match local::refuse_mail(mail, extensions) {
            Some(reply) => new.decide_rest(&reply),
            None => new.render(mail, extensions, reset),
        }
        new
    }

    fn render(&mut self, mail: &Mail<'_>, extensions: &Extensions, reset: bool) {
        if reset {
            self.line(Step::Reset, &["RSET"]);
        }
        self.render_mail(mail, extensions);
        for (index, recipient) in mail.recipients.iter().enumerate() {
            match local::refuse_recipient(recipient, mail.smtputf8) {
                Some(reply) => self.decide(index, reply),
                None => self.render_recipient(index, recipient, extensions),
            }
        }
        if self.decided() {
            self.plan.clear();
        } else {
            self.line(Step::Data, &["DATA"]);
        }
    }

    fn render_mail(&mut self, mail: &Mail<'_>, extensions: &Extensions) {
        self.words(&["MAIL FROM:<", mail.reverse_path, ">"]);
        if let (Some(_), Some(size)) = (extensions.size_max, mail.size) {
            self.words(&[" SIZE=", &size.to_string()]);
        }
        if mail.body_8bit && extensions.eight_bit_mime {
            self.words(&[" BODY=8BITMIME"]);
        }
        if mail.smtputf8 {
            self.words(&[" SMTPUTF8"]);
        }
        self.passed_on(mail.params, &["RET", "ENVID"], extensions.dsn);
        self.passed_on(mail.params, &[BYPASS_KEYWORD], extensions.opes_bypass);
        self.line(Step::Mail, &[]);
    }

    fn render_recipient(&mut self, index: usize, to: &MailRecipient<'_>, extensions: &Extensions) {
        self.words(&["RCPT TO:<", to.address, ">"]);
        self.passed_on(to.params, &["NOTIFY", "ORCPT"], extensions.dsn);
        self.line(Step::Rcpt(index), &[]);
    }

    /// Parameters of these keywords, unchanged, if the peer takes them.
    fn passed_on(&mut self, params: &[String], keywords: &[&str], offered: bool) {
        if !offered {
            return;
        }
        for param in params
            .iter()
            .filter(|param| local::is_parameter_of(param, keywords))
        {
            self.words(&[" ", param]);
        }
    }

    fn words(&mut self, words: &[&str]) {
        for word in words {
            self.lines.extend_from_slice(word.as_bytes());
        }
    }

    fn line(&mut self, step: Step, words: &[&str]) {
        self.words(words);
        self.words(&["\r\n"]);
        self.plan.push(Line {
            step,
            octets: self.lines.len().saturating_sub(self.planned),
        });
        self.planned = self.lines.len();
    }

    /// Moves the lines that may go now to `output`.
    pub(super) fn release(&mut self, output: &mut BytesMut) {
        let mut octets = 0;
        while let Some(line) = self.plan.get(self.released) {
            if self.under_way() >= self.window || !self.wanted(line.step) {
                break;
            }
            octets += line.octets;
            self.released += 1;
        }
        output.extend_from_slice(&self.lines.split_to(octets.min(self.lines.len())));
    }

    fn under_way(&self) -> usize {
        self.released.saturating_sub(self.answered)
    }

    /// Whether a line still serves a purpose, given the replies so far.
    fn wanted(&self, step: Step) -> bool {
        match step {
            Step::Reset | Step::Mail => true,
            Step::Rcpt(_) => !self.mail_refused,
            Step::Data if self.all_or_none => self.accepted.len() == self.results.len(),
            Step::Data => !self.decided(),
        }
    }

    /// All or none, and not all: nobody gets the content. A reply that lets the client come again counts more than one that does not.
    fn give_up_unless_all(&mut self) {
        let waits = self.plan.get(self.released).map(|line| line.step) == Some(Step::Data);
        if !self.all_or_none || !waits || self.under_way() > 0 {
            return;
        }
        let refusals = self.results.iter().flatten();
        if let Some(worst) = refusals.max_by_key(|reply| reply.is_transient()).cloned() {
            self.results.fill(Some(worst));
        }
    }

    /// Takes the reply to the oldest command under way.
    pub(super) fn on_reply(&mut self, reply: Reply) -> Next {
        let Some(line) = self
            .plan
            .get(self.answered)
            .filter(|_| self.under_way() > 0)
        else {
            return Next::Confused(reply);
        };
        let step = line.step;
        self.answered += 1;
        match step {
            Step::Reset if reply.is_positive() => self.next(),
            Step::Mail if !reply.is_intermediate() => self.on_mail(&reply),
            Step::Rcpt(index) if !reply.is_intermediate() => self.on_recipient(index, reply),
            Step::Data => self.on_data(reply),
            Step::Reset | Step::Mail | Step::Rcpt(_) => Next::Confused(reply),
        }
    }

    fn on_mail(&mut self, reply: &Reply) -> Next {
        self.mail_answered = true;
        self.open = reply.is_positive();
        if !self.open {
            self.mail_refused = true;
            self.decide_rest(reply);
        }
        self.next()
    }

    fn on_recipient(&mut self, index: usize, reply: Reply) -> Next {
        if reply.is_refusal() {
            self.decide(index, local::too_many_recipients_is_transient(reply));
        } else if self.mail_refused {
            return Next::Confused(reply);
        } else {
            self.accepted.push(index);
        }
        self.next()
    }

    fn on_data(&mut self, reply: Reply) -> Next {
        if reply.is_refusal() {
            self.decide_rest(&reply);
            Next::Finished
        } else if reply.code() != Reply::START_MAIL_INPUT.code() {
            Next::Confused(reply)
        } else if self.accepted.is_empty() {
            Next::EmptyContent
        } else {
            Next::Content
        }
    }

    /// The reply after the final dot; with LMTP there is one for every accepted recipient (RFC 2033 §4.2).
    pub(super) fn on_content_reply(&mut self, reply: Reply, lmtp: bool) -> Next {
        self.open = false;
        if reply.is_intermediate() {
            return Next::Confused(reply);
        }
        if !lmtp {
            self.decide_rest(&reply);
            return Next::Finished;
        }
        if let Some(index) = self.accepted.get(self.content_replies).copied() {
            self.decide(index, reply);
        }
        self.content_replies += 1;
        if self.content_replies < self.accepted.len() {
            Next::Await
        } else {
            Next::Finished
        }
    }

    fn next(&mut self) -> Next {
        self.give_up_unless_all();
        if self.idle() {
            Next::Finished
        } else {
            Next::Await
        }
    }

    /// Every recipient is decided and no reply is due any more.
    pub(super) fn idle(&self) -> bool {
        self.under_way() == 0 && self.decided()
    }

    /// The reply that comes next is the one to DATA.
    pub(super) fn waits_for_data(&self) -> bool {
        self.plan
            .get(self.answered)
            .is_some_and(|line| line.step == Step::Data)
    }

    fn decided(&self) -> bool {
        self.results.iter().all(Option::is_some)
    }

    /// The peer still has this transaction open: the next one has to begin with RSET.
    pub(super) fn open(&self) -> bool {
        self.open
    }

    /// Whether the peer has answered our MAIL command.
    pub(super) fn mail_answered(&self) -> bool {
        self.mail_answered
    }

    /// One reply per recipient; those still undecided get `rest`.
    pub(super) fn into_results(self, rest: &Reply) -> Vec<Reply> {
        self.results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| rest.clone()))
            .collect()
    }

    fn decide(&mut self, index: usize, reply: Reply) {
        if let Some(result) = self.results.get_mut(index) {
            result.get_or_insert(reply);
        }
    }

    fn decide_rest(&mut self, reply: &Reply) {
        for result in self.results.iter_mut().filter(|result| result.is_none()) {
            *result = Some(reply.clone());
        }
    }
}
