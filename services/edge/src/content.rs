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
use crate::callout::Subject;
use crate::dialog::{ContentFacts, Dialog};
use crate::edge::Edge;
use crate::edits;
use crate::header::HeaderFields;
use crate::routing::Routing;
use crate::stages::{Annotations, Merged, Run};

type Running = Pin<Box<dyn Future<Output = Merged> + Send>>;

/// One message on its way in.
pub(crate) struct Incoming {
    writer: Option<Writer>,
    content: Content,
    pub(crate) dialog: Arc<Dialog>,
    run: Run,
    stage: Stage,
}

enum Stage {
    /// No rule looks at content.
    Nothing,
    /// The plan needs the whole message.
    AtEnd,
    Running(Running),
    Done(Box<Merged>),
}

impl Stage {
    fn begin(run: &Run, dialog: &Arc<Dialog>, content: &Content) -> Self {
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
        let view = View::original(content.clone());
        Self::Running(Box::pin(callouts(
            run.clone(),
            plan,
            Arc::clone(dialog),
            view,
        )))
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
    pub(crate) fn begin(edge: &Edge, routing: Arc<Routing>, dialog: Arc<Dialog>) -> Self {
        let (writer, content) = opes_content::create(&edge.budget, &edge.content_limits);
        let run = Run {
            routing,
            metrics: Arc::clone(&edge.metrics),
        };
        let stage = Stage::begin(&run, &dialog, &content);
        Self {
            writer: Some(writer),
            content,
            dialog,
            run,
            stage,
        }
    }

    /// Takes octets. If they cannot be held: the reply that the client gets at the end of the data.
    pub(crate) async fn append(&mut self, octets: Bytes) -> Result<(), Reply> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        writer.append(octets).await.map_err(|error| {
            tracing::error!(%error, "mail data cannot be held");
            content_reply(&error)
        })
    }

    /// Octets of mail data so far.
    pub(crate) fn octets(&self) -> u64 {
        self.content.len_now()
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

    /// The message is complete: what the rules made of it.
    pub(crate) async fn finish(mut self) -> Result<Merged, ContentError> {
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        let view = View::original(self.content.clone());
        match self.stage {
            Stage::Nothing => Ok(Merged::new(Some(view))),
            Stage::Done(merged) => Ok(*merged),
            Stage::Running(running) => Ok(running.await),
            Stage::AtEnd => at_end(self.run, self.dialog, view).await,
        }
    }
}

async fn callouts(run: Run, plan: Plan, dialog: Arc<Dialog>, view: View) -> Merged {
    let again = |annotations: &Annotations| {
        let dialog = dialog.annotated(annotations);
        dialog.with_facts(Point::Content, ContentFacts::default(), |facts| {
            run.routing.table.plan(facts)
        })
    };
    let subject = subject(Arc::new(dialog.context()), view);
    run.plan(plan, subject, &again).await
}

/// Plans with the size and the header section at hand, then runs.
async fn at_end(run: Run, dialog: Arc<Dialog>, view: View) -> Result<Merged, ContentError> {
    let (structure, header) = edits::scan(&view, true).await?;
    let size = Some(view.len_now());
    let again = |annotations: &Annotations| {
        let fields = HeaderFields::new(&structure, &header);
        let facts = ContentFacts {
            size,
            headers: Some(&fields),
        };
        let dialog = dialog.annotated(annotations);
        dialog.with_facts(Point::Content, facts, |facts| run.routing.table.plan(facts))
    };
    let plan = again(&Annotations::new());
    let subject = subject(Arc::new(dialog.context()), view);
    Ok(run.plan(plan, subject, &again).await)
}

fn subject(context: Arc<smtp::Context>, view: View) -> Subject {
    Subject {
        point: smtp::Point::Content,
        command_line: None,
        context,
        view: Some(view),
    }
}
