//! The callouts of commands: between *check* and *proceed* of a verb, and nowhere else.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use opes_proto::smtp;
use opes_rules::Point;
use opes_smtp::command::{Command, parse_line};
use opes_smtp::reply::Reply;
use opes_smtp::server::{Check, Response};

use crate::answered::{self, Answered, fate};
use crate::callout::{Deadline, Live};
use crate::config::{ListenerProtocol, MixedVerdicts};
use crate::dialog::{ContentFacts, Dialog, Path};
use crate::engine::{Annotations, Matter, Merged, Recipient};
use crate::mail::{Envelope, Mail};
use crate::metrics::{ByOutcome, OutcomeLabel};
use crate::outcome::Verdict;
use crate::report::{MessageOutcome, MessageReport, StepReport};
use crate::routing::Routing;
use crate::session::Connection;
use crate::trace;

impl Connection {
    /// Answers the core's question about one command.
    pub(crate) async fn check(&mut self, check: Check) -> Response {
        match check {
            Check::Connect => self.ask(Point::Connect, Bytes::new(), None).await,
            Check::Helo { line, argument, .. } => {
                let hello = Some(Question::Hello(argument));
                self.ask(Point::Helo, line, hello).await
            }
            Check::StartTls { line } => self.ask(Point::StartTls, line, None).await,
            Check::Mail { line, path, params } => {
                if let Some(refusal) = self.edge.cannot_take_mail(&self.listener) {
                    return Response::Refuse(refusal);
                }
                if !trace::is_readable(params.as_slice()) {
                    return Response::Refuse(Reply::PARAMETER_SYNTAX);
                }
                self.mail = Mail {
                    started: Some(Instant::now()),
                    annotations: self.annotations.clone(),
                    envelope: Envelope {
                        calls: self.calls.clone(),
                        ..Envelope::default()
                    },
                    ..Mail::default()
                };
                self.transactions += 1;
                let sender = Path {
                    address: path.to_string(),
                    parameters: params.as_slice().to_vec(),
                };
                let response = self
                    .ask(Point::MailFrom, line, Some(Question::Sender(sender)))
                    .await;
                if !matches!(response, Response::Proceed | Response::ProceedWith(_)) {
                    // No transaction has begun that the core could end.
                    self.mail = Mail::default();
                }
                response
            }
            Check::Rcpt { line, path, params } => {
                let recipient = Path {
                    address: path.to_string(),
                    parameters: params.as_slice().to_vec(),
                };
                if !self.may_send_to(path.domain()) {
                    return Response::Refuse(Reply::RELAY_DENIED);
                }
                self.mail.envelope.forget(self.recipients().len());
                let response = self
                    .ask(
                        Point::RcptTo,
                        line,
                        Some(Question::Recipient(recipient.clone())),
                    )
                    .await;
                self.keep_to_one_plan(recipient, response)
            }
            Check::Data { line, .. } => self.ask(Point::Data, line, None).await,
        }
    }

    /// The password was right: may this identity come in this way?
    pub(crate) async fn ask_authenticated(&mut self, mechanism: &str, identity: &str) -> Response {
        let auth = smtp::Auth {
            mechanism: mechanism.to_owned(),
            identity: identity.to_owned(),
        };
        self.ask(Point::Auth, Bytes::new(), Some(Question::Identity(auth)))
            .await
    }

    /// The revision that this transaction, or a command outside one, runs under.
    pub(crate) fn routing(&mut self) -> Arc<Routing> {
        let current = || self.edge.routing.load_full();
        Arc::clone(self.mail.routing.get_or_insert_with(current))
    }

    /// Leads from a message or a refusal to the log.
    fn trace_id(&self) -> String {
        format!("{}.{}", self.id, self.transactions)
    }

    /// `reply`, which rules or services caused, with our identity.
    pub(crate) fn refusal(&self, reply: &Reply) -> Reply {
        self.edge.tracer.refusal(reply, &self.trace_id())
    }

    /// The dialog so far, for rules and services.
    pub(crate) fn dialog(&self) -> Dialog {
        Dialog {
            recipients: self.recipients().iter().map(path_of).collect(),
            ..self.envelope()
        }
    }

    /// The dialog without its recipients, which may be many.
    fn envelope(&self) -> Dialog {
        let transaction = self.core.transaction();
        Dialog {
            id: self.trace_id(),
            listener: Arc::clone(&self.listener.name),
            client: self.client,
            helo: self.core.helo().map(|hello| hello.argument.clone()),
            tls: self.core.tls().map(|tls| smtp::Tls {
                version: tls.version.clone(),
                cipher: tls.cipher.clone(),
                server_name: tls.server_name.clone().unwrap_or_default(),
            }),
            auth: self.core.authenticated().map(|auth| smtp::Auth {
                mechanism: auth.mechanism.as_str().to_owned(),
                identity: auth.identity.clone(),
            }),
            mail_from: transaction.map(|transaction| Path {
                address: transaction.reverse_path.to_string(),
                parameters: transaction.mail_params.as_slice().to_vec(),
            }),
            recipients: Vec::new(),
            annotations: self.annotations().clone(),
            bypass: None,
        }
    }

    /// Empty: the null reverse-path.
    fn reverse_path(&self) -> String {
        let transaction = self.core.transaction();
        transaction
            .map(|transaction| transaction.reverse_path.to_string())
            .unwrap_or_default()
    }

    /// Recipients accepted so far.
    fn recipients(&self) -> &[opes_smtp::server::Recipient] {
        self.core
            .transaction()
            .map_or(&[], |transaction| &transaction.recipients)
    }

    /// What services have said of the transaction or, outside one, of the session.
    fn annotations(&self) -> &Annotations {
        match self.mail.started {
            Some(_) => &self.mail.annotations,
            None => &self.annotations,
        }
    }

    /// Each recipient gets a reply of its own to the mail data.
    pub(crate) fn replies_per_recipient(&self) -> bool {
        let transaction = self.core.transaction();
        self.listener.config.protocol == ListenerProtocol::Lmtp
            || transaction.is_some_and(|transaction| transaction.prdr)
    }

    /// Not a relay for strangers.
    fn may_send_to(&self, domain: Option<&str>) -> bool {
        let authenticated = self.core.auth_identity().is_some();
        // `<postmaster>` without a domain is ours by definition (RFC 5321 §4.5.1).
        self.edge.may_relay(self.client.ip(), authenticated)
            || domain.is_none_or(|domain| self.edge.is_our_domain(domain))
    }

    /// A recipient whose content plan differs from that of the ones accepted needs a transaction of its own (ADR 0003), if there is but one
    /// reply for all and the listener wants it so. What counts is the address as the services left it.
    fn keep_to_one_plan(&mut self, offered: Path, response: Response) -> Response {
        let recipient = match &response {
            Response::Proceed => offered,
            Response::ProceedWith(line) => match parse_line(line) {
                Ok(Command::Rcpt { path, parameters }) => Path {
                    address: path.to_string(),
                    parameters: parameters.as_slice().to_vec(),
                },
                // The core refuses it.
                _ => return response,
            },
            _ => return response,
        };
        let wanted = self.listener.config.mixed_verdicts == MixedVerdicts::Split
            || !self.edge.config.spool_durable;
        let splits = wanted && !self.replies_per_recipient();
        if !splits || self.recipients().is_empty() || self.shares_plan(recipient) {
            response
        } else {
            Response::Refuse(self.refusal(&Reply::SEPARATE_TRANSACTION))
        }
    }

    /// Both are planned now, with what has been annotated by now: a signature kept from an earlier RCPT would compare yesterday's
    /// knowledge with today's.
    fn shares_plan(&mut self, recipient: Path) -> bool {
        if self.edge.splits.contains(&self.reverse_path()) {
            return false;
        }
        let routing = self.routing();
        if !routing.table.has_rules(Point::Content) {
            return true;
        }
        let Some(first) = self.recipients().first().map(path_of) else {
            return true;
        };
        let dialog = Dialog {
            recipients: vec![first, recipient],
            ..self.envelope()
        };
        dialog.with_facts(Point::Content, ContentFacts::default(), |facts| {
            routing.table.treats_alike(facts)
        })
    }

    async fn ask(&mut self, point: Point, line: Bytes, question: Option<Question>) -> Response {
        let routing = match self.mail.started {
            Some(_) => self.routing(),
            None => self.edge.routing.load_full(),
        };
        if !routing.table.has_rules(point) {
            return Response::Proceed;
        }
        let started = Instant::now();
        let mut dialog = self.dialog();
        match question {
            Some(Question::Hello(argument)) => dialog.helo = Some(argument),
            Some(Question::Sender(sender)) => dialog.mail_from = Some(sender),
            Some(Question::Recipient(recipient)) => dialog.recipients.push(recipient),
            Some(Question::Identity(auth)) => dialog.auth = Some(auth),
            None => {}
        }
        dialog.bypass = self.edge.tracer.granted(&dialog, &routing.agents);
        let plan = dialog.with_facts(point, ContentFacts::default(), |facts| {
            routing.table.plan(facts)
        });
        if plan.is_empty() {
            self.edge.metrics.count_skipped(&plan);
            return Response::Proceed;
        }
        let mut merged = Merged::new(
            self.concerned(point, &dialog),
            None,
            dialog.annotations.clone(),
        );
        merged.command_line(&line);
        let matter = Matter {
            point: point_number(point),
            context: Arc::new(dialog.context()),
        };
        let deadline = tokio::time::Instant::now() + self.edge.config.decision_timeout;
        let run = Live::run_of(routing, &self.edge.metrics, &Deadline::at(deadline));
        let again = |said: &Annotations| {
            let dialog = dialog.annotated(said);
            dialog.with_facts(point, ContentFacts::default(), |facts| {
                run.routing.table.plan(facts)
            })
        };
        run.plan(plan, &matter, &mut merged, &again).await;
        self.answer(point, &line, &dialog, merged, started).await
    }

    /// Whom a plan at `point` is about.
    fn concerned(&self, point: Point, dialog: &Dialog) -> Vec<Recipient> {
        match (point, dialog.recipients.last()) {
            (Point::RcptTo, Some(offered)) => vec![Recipient {
                address: offered.address.clone(),
                parameters: offered.parameters.clone(),
                ..Recipient::default()
            }],
            (Point::Data, _) => self.mail.envelope.recipients(&dialog.recipients),
            _ => Vec::new(),
        }
    }

    async fn answer(
        &mut self,
        point: Point,
        line: &Bytes,
        dialog: &Dialog,
        mut merged: Merged,
        started: Instant,
    ) -> Response {
        let steps = std::mem::take(&mut merged.steps);
        let advice = std::mem::take(&mut merged.advice);
        let refused = merged.groups.is_over();
        self.edge.advise(dialog, None, refused, advice).await;
        let said = merged.groups.said_of_all();
        match self.mail.started {
            Some(_) => self.mail.annotations = said,
            None => self.annotations = said,
        }
        let calls = std::mem::take(&mut merged.calls);
        match self.mail.started {
            Some(_) => self.mail.envelope.calls.add(calls, offered(point, dialog)),
            None => self.calls.add(calls, None),
        }
        let fate = merged.single();
        if let (true, Verdict::Refuse(reply)) = (merged.groups.is_over(), &fate.verdict) {
            let reply = self.edge.tracer.refusal(reply, &dialog.id);
            self.report_refusal(point, dialog, &reply, steps, started);
            return if reply.closes() {
                Response::Disconnect(reply)
            } else {
                Response::Refuse(reply)
            };
        }
        self.mail.steps.extend(steps);
        let rewritten = fate.command_line.filter(|now| now != line);
        let rewritten = match point {
            Point::MailFrom => rewritten.or_else(|| new_sender(dialog, &fate.sender?)),
            Point::RcptTo => rewritten.or(self.keep_recipients(dialog, merged)),
            Point::Data => {
                self.keep_refusals(merged);
                rewritten
            }
            _ => rewritten,
        };
        rewritten.map_or(Response::Proceed, Response::ProceedWith)
    }

    /// What services made of the recipient on offer. Its new address comes back as a command line.
    fn keep_recipients(&mut self, dialog: &Dialog, merged: Merged) -> Option<Bytes> {
        let index = dialog.recipients.len().saturating_sub(1);
        let offered = dialog.recipients.last()?;
        let envelope = &mut self.mail.envelope;
        let mut recipients = merged.groups.recipients.into_iter();
        let now = recipients.next()?;
        if let Some(hop) = now.next_hop {
            envelope.next_hops.insert(index, hop);
        }
        if now.removed {
            envelope.removed.insert(index);
        }
        recipients.for_each(|recipient| envelope.add(index, recipient));
        (now.address != offered.address)
            .then(|| command_line("RCPT TO", &now.address, &offered.parameters))
    }

    /// DATA has one reply: those whom a rule refused are told with the reply to the mail data.
    fn keep_refusals(&mut self, merged: Merged) {
        for group in merged.groups.groups {
            if let Verdict::Refuse(reply) = group.fate.verdict {
                let refused = group.members.iter().map(|member| (*member, reply.clone()));
                self.mail.envelope.refused.extend(refused);
            }
        }
    }

    fn report_refusal(
        &self,
        point: Point,
        dialog: &Dialog,
        reply: &Reply,
        steps: Vec<StepReport>,
        started: Instant,
    ) {
        self.edge
            .metrics
            .messages
            .get_or_create(&ByOutcome {
                outcome: OutcomeLabel::Refused,
            })
            .inc();
        self.tell_refusal(point, dialog, reply, &steps, started);
        let address = |path: &Path| path.address.clone();
        self.edge.report(&MessageReport {
            session: dialog.id.clone(),
            listener: Arc::clone(&dialog.listener),
            client: dialog.client.ip(),
            from: dialog.mail_from.as_ref().map(address).unwrap_or_default(),
            to: dialog.recipients.iter().map(address).collect(),
            octets: 0,
            steps,
            outcomes: vec![MessageOutcome::Refused],
            reply: reply.to_string(),
            elapsed: started.elapsed(),
        });
    }

    fn tell_refusal(
        &self,
        point: Point,
        dialog: &Dialog,
        reply: &Reply,
        steps: &[StepReport],
        started: Instant,
    ) {
        let dialog = Dialog {
            recipients: refused_recipients(point, dialog),
            ..dialog.clone()
        };
        let routing = self.mail.routing.clone();
        let routing = routing.unwrap_or_else(|| self.edge.routing.load_full());
        let concerned = dialog.recipients.len();
        let answered = Answered {
            at: point_number(point),
            octets: None,
            fates: vec![fate(&MessageOutcome::Refused, concerned, reply)],
            steps,
            elapsed: started.elapsed(),
        };
        answered::tell(&self.edge, routing, &dialog, answered);
    }
}

/// The recipients whom the refusal of a command is about.
fn refused_recipients(point: Point, dialog: &Dialog) -> Vec<Path> {
    match point {
        Point::RcptTo => dialog.recipients.last().cloned().into_iter().collect(),
        _ => dialog.recipients.clone(),
    }
}

/// The recipient that a command is about, if it is about one.
fn offered(point: Point, dialog: &Dialog) -> Option<usize> {
    match point {
        Point::RcptTo => dialog.recipients.len().checked_sub(1),
        _ => None,
    }
}

fn new_sender(dialog: &Dialog, sender: &str) -> Option<Bytes> {
    let given = dialog.mail_from.as_ref()?;
    (given.address != sender).then(|| command_line("MAIL FROM", sender, &given.parameters))
}

/// The core parses it as if the client had sent it.
fn command_line(verb: &str, address: &str, parameters: &[String]) -> Bytes {
    let mut line = format!("{verb}:<{address}>");
    for parameter in parameters {
        line.push(' ');
        line.push_str(parameter);
    }
    Bytes::from(line)
}

fn path_of(recipient: &opes_smtp::server::Recipient) -> Path {
    Path {
        address: recipient.address.to_string(),
        parameters: recipient.params.as_slice().to_vec(),
    }
}

/// What a command adds to the dialog if it is accepted.
enum Question {
    /// The argument of HELO, EHLO or LHLO.
    Hello(String),
    Sender(Path),
    Recipient(Path),
    Identity(smtp::Auth),
}

/// The rules' word for a processing point in the profile's.
/// The rule language's name of a point; `None` for a number that is no point.
pub(crate) fn rule_point(number: smtp::Point) -> Option<Point> {
    let mut all = Point::ALL.into_iter();
    all.find(|point| point_number(*point) == number)
}

pub(crate) fn point_number(point: Point) -> smtp::Point {
    match point {
        Point::Connect => smtp::Point::Connect,
        Point::Helo => smtp::Point::Helo,
        Point::StartTls => smtp::Point::StartTls,
        Point::Auth => smtp::Point::Auth,
        Point::MailFrom => smtp::Point::MailFrom,
        Point::RcptTo => smtp::Point::RcptTo,
        Point::Data => smtp::Point::Data,
        Point::Content => smtp::Point::Content,
        Point::Routing => smtp::Point::Routing,
        Point::Answered => smtp::Point::Answered,
        Point::Delivered => smtp::Point::Delivered,
        Point::Deferred => smtp::Point::Deferred,
        Point::Bounced => smtp::Point::Bounced,
    }
}
