//! Mail data that is coming in, and the callouts that read it meanwhile.
//!
//! Octets go into `opes_content`; the plan's callouts run in the session's task and are polled while it waits for the client. If a rule
//! looks at size or header fields, the plan is made at the end of data instead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use opes_content::{Content, ContentError, View, Writer};
use opes_proto::smtp;
use opes_rules::{Plan, Point, RoutingTable, Rule};
use opes_smtp::reply::Reply;

use crate::acceptance::content_reply;
use crate::callout::{Deadline, Live};
use crate::dialog::{ContentFacts, Dialog, Path};
use crate::edge::Edge;
use crate::edits;
use crate::engine::{Annotations, Matter, Merged, Recipient, Run};
use crate::header::HeaderFields;
use crate::mail::Envelope;
use crate::outcome::Verdict;
use crate::routing::Routing;
use crate::trace::Tracer;

type Running = Pin<Box<dyn Future<Output = Merged> + Send>>;

/// One message on its way in.
pub(crate) struct Incoming {
    writer: Option<Writer>,
    content: Content,
    /// Our trace field, in front of what the client sends.
    first_octets: Bytes,
    has_first_octets: bool,
    tracer: Arc<Tracer>,
    pub(crate) dialog: Arc<Dialog>,
    /// What the services said of the envelope before the mail data came.
    envelope: Arc<Envelope>,
    run: Run,
    pub(crate) deadline: Deadline,
    stage: Stage,
}

enum Stage {
    /// No rule looks at content.
    Nothing,
    /// The plan needs the whole message, or may be changed by a bypass request in the header section.
    AtEnd,
    Running(Running),
    Done(Box<Merged>),
}

impl Stage {
    fn begin(run: &Run, dialog: &Arc<Dialog>, envelope: &Arc<Envelope>, content: &Content) -> Self {
        if !run.routing.table.has_rules(Point::Content) {
            return Self::Nothing;
        }
        let plan = dialog.with_facts(Point::Content, ContentFacts::default(), |facts| {
            run.routing.table.plan(facts)
        });
        if needs_all(&run.routing.table, &plan) {
            return Self::AtEnd;
        }
        if plan.is_empty() {
            run.metrics.count_skipped(&plan);
            return Self::Nothing;
        }
        let merged = start(dialog, envelope, View::original(content.clone()));
        let dialog = Arc::clone(dialog);
        Self::Running(Box::pin(callouts(run.clone(), plan, dialog, merged)))
    }
}

/// A rule cannot be judged before size and header section are known, or could not once its annotation is there.
fn needs_all(table: &RoutingTable, plan: &Plan) -> bool {
    let may_come = |rule: &Arc<Rule>| {
        rule.reads_annotations() && rule.reads_content() && rule.points.contains(&Point::Content)
    };
    plan.skipped
        .iter()
        .any(|skipped| skipped.rule.reads_content())
        || table.rules.iter().any(may_come)
}

impl Incoming {
    pub(crate) fn begin(
        edge: &Edge,
        routing: Arc<Routing>,
        dialog: Arc<Dialog>,
        envelope: Envelope,
    ) -> Self {
        let (writer, content) = opes_content::create(&edge.budget, &edge.content_limits);
        let deadline = Deadline::default();
        let first_octets = edge.tracer.first_octets(&dialog.id, &routing.table);
        let bypass = edge.tracer.granted(&dialog, &routing.agents);
        let dialog = Arc::new(Dialog {
            bypass,
            ..Arc::unwrap_or_clone(dialog)
        });
        let run = Live::run_of(routing, &edge.metrics, &deadline);
        let envelope = Arc::new(envelope);
        let stage = if waits_for_header(&run.routing.table, &edge.tracer, &dialog) {
            Stage::AtEnd
        } else {
            Stage::begin(&run, &dialog, &envelope, &content)
        };
        Self {
            writer: Some(writer),
            content,
            first_octets,
            has_first_octets: false,
            tracer: Arc::clone(&edge.tracer),
            dialog,
            envelope,
            run,
            deadline,
            stage,
        }
    }

    /// Takes octets. If they cannot be held: the reply that the client gets at the end of the data.
    pub(crate) async fn append(&mut self, octets: Bytes) -> Result<(), Reply> {
        self.write(octets).await.map_err(|error| {
            tracing::error!(%error, "mail data cannot be held");
            content_reply(&error)
        })
    }

    async fn write(&mut self, octets: Bytes) -> Result<(), ContentError> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        if !self.has_first_octets {
            self.has_first_octets = true;
            writer.append(self.first_octets.clone()).await?;
        }
        writer.append(octets).await
    }

    /// Octets of mail data so far, without ours.
    pub(crate) fn octets(&self) -> u64 {
        let ours = self.first_octets.len() as u64;
        self.content.len_now().saturating_sub(ours)
    }

    /// What the trace of its copies is made from.
    pub(crate) fn traced(&self) -> (Arc<Routing>, Bytes) {
        (Arc::clone(&self.run.routing), self.first_octets.clone())
    }

    /// Runs the callouts on; pending when there is nothing to run.
    pub(crate) async fn drive(&mut self) {
        match &mut self.stage {
            Stage::Running(running) => {
                let merged = running.await;
                self.stage = Stage::Done(Box::new(merged));
            }
            Stage::Nothing | Stage::AtEnd | Stage::Done(_) => std::future::pending().await,
        }
    }

    /// The message is complete: what the rules make of it until `deadline`.
    pub(crate) async fn finish(
        mut self,
        deadline: tokio::time::Instant,
    ) -> Result<Merged, ContentError> {
        // Also a message without octets has a trace.
        self.write(Bytes::new()).await?;
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        self.deadline.set(deadline);
        let view = View::original(self.content.clone());
        self.read_request(&view).await?;
        let size = self.octets();
        let started = start(&self.dialog, &self.envelope, view.clone());
        let mut merged = match self.stage {
            Stage::Nothing => started,
            Stage::Done(merged) => *merged,
            Stage::Running(running) => running.await,
            Stage::AtEnd => {
                let mut merged = started;
                let original = Original { view: &view, size };
                at_end(
                    &self.run,
                    Point::Content,
                    &self.dialog,
                    original,
                    &mut merged,
                )
                .await?;
                merged
            }
        };
        let original = Original { view: &view, size };
        route(&self.run, &self.dialog, original, &mut merged).await?;
        Ok(merged)
    }

    /// A request in the header section counts as one in the dialog does.
    async fn read_request(&mut self, view: &View) -> Result<(), ContentError> {
        if waits_for_header(&self.run.routing.table, &self.tracer, &self.dialog) {
            let agents = &self.run.routing.agents;
            let tracer = &self.tracer;
            let bypass = tracer
                .granted_with_header(&self.dialog, agents, view)
                .await?;
            self.dialog = Arc::new(Dialog {
                bypass,
                ..Dialog::clone(&self.dialog)
            });
        }
        Ok(())
    }
}

/// The complete original.
#[derive(Clone, Copy)]
struct Original<'a> {
    view: &'a View,
    /// Octets that the client sent.
    size: u64,
}

/// Could a request in the header section have an effect? Only then is it waited for.
fn waits_for_header(table: &RoutingTable, tracer: &Tracer, dialog: &Dialog) -> bool {
    table.has_bypassable() && tracer.may_bypass_in(dialog)
}

/// One group, save for those whom a rule refused before the mail data came.
fn start(dialog: &Dialog, envelope: &Envelope, view: View) -> Merged {
    let said = dialog.annotations.clone();
    let mut merged = Merged::new(envelope.recipients(&dialog.recipients), Some(view), said);
    merged.calls = envelope.calls.clone();
    for (member, reply) in &envelope.refused {
        let verdict = Verdict::Refuse(reply.clone());
        let refuse = |fate: &mut crate::engine::Fate| fate.verdict = verdict.clone();
        merged.groups.change(&[*member], refuse);
    }
    merged
}

async fn callouts(run: Run, plan: Plan, dialog: Arc<Dialog>, mut merged: Merged) -> Merged {
    let again = |said: &Annotations| {
        let dialog = dialog.annotated(said);
        dialog.with_facts(Point::Content, ContentFacts::default(), |facts| {
            run.routing.table.plan(facts)
        })
    };
    let matter = matter(smtp::Point::Content, &dialog);
    run.plan(plan, &matter, &mut merged, &again).await;
    merged
}

/// The point `routing`: the message is to be accepted, and the rules choose who gets it where. They see the recipients as the services left
/// them.
async fn route(
    run: &Run,
    dialog: &Dialog,
    original: Original<'_>,
    merged: &mut Merged,
) -> Result<(), ContentError> {
    if !run.routing.table.has_rules(Point::Routing) || merged.groups.is_over() {
        return Ok(());
    }
    let dialog = Dialog {
        recipients: merged.groups.recipients.iter().map(path_of).collect(),
        ..dialog.clone()
    };
    at_end(run, Point::Routing, &dialog, original, merged).await
}

/// Plans with the size and the header section at hand, then runs.
async fn at_end(
    run: &Run,
    point: Point,
    dialog: &Dialog,
    original: Original<'_>,
    merged: &mut Merged,
) -> Result<(), ContentError> {
    let (structure, header) = edits::scan(original.view, true).await?;
    let again = |said: &Annotations| {
        let fields = HeaderFields::new(&structure, &header);
        let facts = ContentFacts {
            size: Some(original.size),
            headers: Some(&fields),
        };
        let dialog = dialog.annotated(said);
        dialog.with_facts(point, facts, |facts| run.routing.table.plan(facts))
    };
    let plan = again(&dialog.annotations);
    let matter = matter(crate::check::point_number(point), dialog);
    run.plan(plan, &matter, merged, &again).await;
    Ok(())
}

fn matter(point: smtp::Point, dialog: &Dialog) -> Matter {
    Matter {
        point,
        context: Arc::new(dialog.context()),
    }
}

fn path_of(recipient: &Recipient) -> Path {
    Path {
        address: recipient.address.clone(),
        parameters: recipient.parameters.clone(),
    }
}
