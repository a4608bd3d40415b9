//! The callouts of commands: between *check* and *proceed* of a verb, and nowhere else.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use opes_proto::smtp;
use opes_rules::Point;
use opes_smtp::command::{Command, parse_line};
use opes_smtp::reply::Reply;
use opes_smtp::server::{Check, Response};

use crate::acceptance::next_hop;
use crate::callout::Subject;
use crate::dialog::{ContentFacts, Dialog, Path};
use crate::mail::Mail;
use crate::metrics::{ByOutcome, OutcomeLabel};
use crate::outcome::Verdict;
use crate::report::{MessageOutcome, MessageReport};
use crate::routing::Routing;
use crate::session::Connection;
use crate::stages::{Annotations, Merged, Run};

impl Connection {
    /// Answers the core's question about one command.
    pub(crate) async fn check(&mut self, check: Check) -> Response {
        match check {
            Check::Connect => self.ask(Point::Connect, Bytes::new(), None).await,
            Check::Helo { line, .. } => self.ask(Point::Helo, line, None).await,
            Check::StartTls { line } => self.ask(Point::StartTls, line, None).await,
            Check::Mail { line, path, params } => {
                if let Some(refusal) = self.edge.cannot_take_mail(&self.listener) {
                    return Response::Refuse(refusal);
                }
                self.mail = Mail {
                    started: Some(Instant::now()),
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
                // One that was refused must not leave its next hop to whoever takes its place.
                self.mail.next_hops.remove(&self.recipients().len());
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
            id: format!("{}.{}", self.id, self.transactions),
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
            annotations: self.mail.annotations.clone(),
            bypass: None,
        }
    }

    /// Recipients accepted so far.
    fn recipients(&self) -> &[opes_smtp::server::Recipient] {
        self.core
            .transaction()
            .map_or(&[], |transaction| &transaction.recipients)
    }

    /// Not a relay for strangers.
    fn may_send_to(&self, domain: Option<&str>) -> bool {
        let authenticated = self.core.auth_identity().is_some();
        // `<postmaster>` without a domain is ours by definition (RFC 5321 §4.5.1).
        self.edge.may_relay(self.client.ip(), authenticated)
            || domain.is_none_or(|domain| self.edge.is_our_domain(domain))
    }

    /// A recipient whose content plan differs from that of the ones accepted needs a transaction of its own (ADR 0003). What counts is
    /// the address as the services left it.
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
        if self.shares_plan(recipient) {
            response
        } else {
            Response::Refuse(Reply::SEPARATE_TRANSACTION)
        }
    }

    /// Both are planned now, with what has been annotated by now: a signature kept from an earlier RCPT would compare yesterday's
    /// knowledge with today's.
    fn shares_plan(&mut self, recipient: Path) -> bool {
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
            Some(Question::Sender(sender)) => dialog.mail_from = Some(sender),
            Some(Question::Recipient(recipient)) => dialog.recipients.push(recipient),
            Some(Question::Identity(auth)) => dialog.auth = Some(auth),
            None => {}
        }
        let plan = dialog.with_facts(point, ContentFacts::default(), |facts| {
            routing.table.plan(facts)
        });
        if plan.is_empty() {
            self.edge.metrics.count_skipped(&plan);
            return Response::Proceed;
        }
        let subject = Subject {
            point: point_number(point),
            command_line: Some(line),
            context: Arc::new(dialog.context()),
            view: None,
        };
        let run = Run {
            routing,
            metrics: Arc::clone(&self.edge.metrics),
        };
        let again = |annotations: &Annotations| {
            let dialog = dialog.annotated(annotations);
            dialog.with_facts(point, ContentFacts::default(), |facts| {
                run.routing.table.plan(facts)
            })
        };
        let merged = run.plan(plan, subject, &again).await;
        self.answer(point, &dialog, merged, started)
    }

    fn answer(
        &mut self,
        point: Point,
        dialog: &Dialog,
        mut merged: Merged,
        started: Instant,
    ) -> Response {
        self.mail.annotations.extend(merged.annotations.drain());
        let steps = std::mem::take(&mut merged.steps);
        match merged.verdict {
            Verdict::Refuse(reply) => {
                self.report_refusal(dialog, &reply, steps, started);
                if reply.closes() {
                    Response::Disconnect(reply)
                } else {
                    Response::Refuse(reply)
                }
            }
            Verdict::Accept | Verdict::Discard => {
                self.mail.steps.extend(steps);
                if point == Point::RcptTo {
                    let index = dialog.recipients.len().saturating_sub(1);
                    let hops = merged
                        .recipients
                        .iter()
                        .filter_map(|change| change.next_hop.as_ref());
                    if let Some(hop) = hops.filter_map(next_hop).next_back() {
                        self.mail.next_hops.insert(index, hop);
                    }
                }
                match merged.command_line {
                    Some(line) => Response::ProceedWith(line),
                    None => Response::Proceed,
                }
            }
        }
    }

    fn report_refusal(
        &self,
        dialog: &Dialog,
        reply: &Reply,
        steps: Vec<crate::report::StepReport>,
        started: Instant,
    ) {
        self.edge
            .metrics
            .messages
            .get_or_create(&ByOutcome {
                outcome: OutcomeLabel::Refused,
            })
            .inc();
        let address = |path: &Path| path.address.clone();
        self.edge.report(&MessageReport {
            session: dialog.id.clone(),
            listener: Arc::clone(&dialog.listener),
            client: dialog.client.ip(),
            from: dialog.mail_from.as_ref().map(address).unwrap_or_default(),
            to: dialog.recipients.iter().map(address).collect(),
            octets: 0,
            steps,
            outcome: MessageOutcome::Refused,
            reply: reply.to_string(),
            elapsed: started.elapsed(),
        });
    }
}

fn path_of(recipient: &opes_smtp::server::Recipient) -> Path {
    Path {
        address: recipient.address.to_string(),
        parameters: recipient.params.as_slice().to_vec(),
    }
}

/// What a command adds to the dialog if it is accepted.
enum Question {
    Sender(Path),
    Recipient(Path),
    Identity(smtp::Auth),
}

/// The rules' word for a processing point in the profile's.
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
        Point::Delivered => smtp::Point::Delivered,
        Point::Deferred => smtp::Point::Deferred,
        Point::Bounced => smtp::Point::Bounced,
    }
}
