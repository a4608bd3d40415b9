//! Runs a plan: observers ‖ analysers → adapters → signers, and merges what they say, recipient by recipient.
//!
//! The merge does not depend on who answers first: what counts is the order of stages, and within a stage that of the rules. The first
//! refusal in that order ends the plan for the recipients it is about; callouts that can change nothing any more are dropped, which ends
//! their transactions. Adapters see what the ones before them changed. `docs/rules.md` has the precedence in one table.

mod actions;
mod groups;
mod observers;
mod parallel;
mod replan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use opes_content::View;
use opes_proto::smtp;
use opes_rules::{Plan, Rule, Step};

use crate::callout::{Part, StepResult, Subject, Who};
use crate::edits;
use crate::metrics::{CalloutLabel, Metrics};
use crate::outcome::{Permitted, Verdict};
use crate::report::StepReport;
use crate::routing::Routing;
use crate::trace::Calls;
use replan::Begun;

pub(crate) use groups::{ADDED_MAX, Annotations, Audience, Fate, Group, Groups, Hold, Recipient};

/// Makes one callout. Never fails: a failure becomes what the rule's policy says.
pub(crate) trait Callouts: Send + Sync {
    /// For the rule of `step`.
    fn call<'a>(&'a self, rule: &'a Arc<Rule>, subject: Subject) -> BoxFuture<'a, StepResult>;
}

/// What every plan of a transaction shares.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) routing: Arc<Routing>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) callouts: Arc<dyn Callouts>,
}

/// What a plan is about; each callout is shown its part of it.
pub(crate) struct Matter {
    pub(crate) point: smtp::Point,
    /// With all recipients.
    pub(crate) context: Arc<smtp::Context>,
}

/// Makes the plan again for a message of which this has been said.
pub(crate) type Again<'a> = &'a (dyn Fn(&Annotations) -> Plan + Sync);

/// Something to tell people, and whom it is about.
#[derive(Debug, Clone)]
pub(crate) struct Advice {
    pub(crate) rule: String,
    pub(crate) service: String,
    /// Addresses.
    pub(crate) recipients: Vec<String>,
    pub(crate) notifications: Vec<smtp::Notification>,
    /// JSON; empty = none.
    pub(crate) incident: String,
}

/// What all rules that ran so far made of a message or command.
pub(crate) struct Merged {
    pub(crate) groups: Groups,
    pub(crate) steps: Vec<StepReport>,
    pub(crate) advice: Vec<Advice>,
    pub(crate) calls: Calls,
}

impl Run {
    /// Runs `plan` over what `merged` has come to. Rules that wait for annotations are looked at again with `again` when the analysers have
    /// answered, and when the adapters have.
    pub(crate) async fn plan(
        &self,
        mut plan: Plan,
        matter: &Matter,
        merged: &mut Merged,
        again: Again<'_>,
    ) {
        let mut begun = Begun::default();
        self.begin(&plan, matter, merged, &mut begun);
        // Round after round, as each may bring annotations for which further analysers have waited.
        loop {
            let analysers = begun.take_new(&plan.analysers, merged.total());
            if merged.groups.is_over() || analysers.is_empty() {
                break;
            }
            self.analyse(&analysers, matter, merged).await;
            plan = self.again(plan, matter, merged, again, &mut begun);
        }
        for _ in 0..2 {
            let adapters = begun.take_new(&plan.adapters, merged.total());
            self.one_by_one(&adapters, matter, merged).await;
            plan = self.again(plan, matter, merged, again, &mut begun);
        }
        merged.late_actions(&plan).await;
        self.one_by_one(&plan.signers, matter, merged).await;
        self.metrics.count_skipped(&plan);
    }

    fn begin(&self, plan: &Plan, matter: &Matter, merged: &mut Merged, begun: &mut Begun) {
        merged.refusals(plan);
        let bypassed = begun.take_new(&plan.bypassed, merged.total());
        self.metrics.trace.count_bypassed(&bypassed);
        merged.bypasses(&bypassed);
        let observers = begun.take_new(&plan.observers, merged.total());
        self.observe(&observers, matter, merged);
        self.shadow_actions(
            &begun.take_new(&plan.shadow_actions, merged.total()),
            matter,
        );
    }

    /// The plan with what has been annotated by now; the same if no rule looks at that.
    fn again(
        &self,
        plan: Plan,
        matter: &Matter,
        merged: &mut Merged,
        again: Again<'_>,
        begun: &mut Begun,
    ) -> Plan {
        let mut rules = self.routing.table.rules.iter();
        let parts = merged.groups.by_annotations();
        if !rules.any(|rule| rule.reads_annotations())
            || parts.iter().all(|(said, _)| said.is_empty())
        {
            return plan;
        }
        let plan = match parts.as_slice() {
            [(said, members)] if members.len() == merged.total() => again(said),
            _ => {
                let part = |(said, members): (Arc<Annotations>, _)| (again(&said), members);
                replan::join(parts.into_iter().map(part).collect(), merged.total())
            }
        };
        self.begin(&plan, matter, merged, begun);
        plan
    }

    /// One after another; each sees what the ones before it changed and said. Recipients that see different messages are asked for at once.
    async fn one_by_one(&self, steps: &[Step], matter: &Matter, merged: &mut Merged) {
        for step in steps {
            let audiences = merged.groups.audiences(&step.recipients);
            let mut calls = Vec::with_capacity(audiences.len());
            for audience in &audiences {
                let subject = merged.subject(matter, audience);
                calls.push(self.callouts.call(&step.rule, subject));
                merged.calls.ran(&step.rule, &audience.members);
            }
            let results = join_all(calls).await;
            for (audience, result) in audiences.iter().zip(results) {
                merged.take(audience, result).await;
            }
        }
    }
}

impl Merged {
    pub(crate) fn new(recipients: Vec<Recipient>, view: Option<View>, said: Annotations) -> Self {
        let fate = Fate {
            version: view.map(|view| groups::Version { number: 0, view }),
            annotations: Arc::new(said),
            ..Fate::default()
        };
        Self {
            groups: Groups::new(recipients, fate),
            steps: Vec::new(),
            advice: Vec::new(),
            calls: Calls::default(),
        }
    }

    /// The line that the services are asked about.
    pub(crate) fn command_line(&mut self, line: &bytes::Bytes) {
        for group in &mut self.groups.groups {
            group.fate.command_line = Some(line.clone());
        }
    }

    /// Recipients there are by now; 1 where there are none, for the dialog itself.
    fn total(&self) -> usize {
        self.groups.recipients.len().max(1)
    }

    /// What a callout for `audience` is shown.
    fn subject(&self, matter: &Matter, audience: &Audience) -> Subject {
        Subject {
            point: matter.point,
            command_line: audience.fate.command_line.clone(),
            context: self.context(matter, audience),
            view: audience
                .fate
                .version
                .as_ref()
                .map(|version| version.view.clone()),
        }
    }

    /// The context with the audience's recipients only, as the services before left them; a service has no business with the others.
    fn context(&self, matter: &Matter, audience: &Audience) -> Arc<smtp::Context> {
        let fate = &audience.fate;
        let given = matter.context.recipients.len();
        let recipients: Vec<smtp::Address> = audience
            .members
            .iter()
            .filter_map(|member| self.groups.recipients.get(*member))
            .filter(|recipient| !recipient.removed)
            .map(|recipient| smtp::Address {
                address: recipient.address.clone(),
                parameters: recipient.parameters.clone(),
            })
            .collect();
        // At rcptTo the context names all accepted so far, and the one in question last.
        let concerned = match matter.point {
            smtp::Point::RcptTo => given.saturating_sub(1),
            _ => 0,
        };
        let same = fate.sender.is_none()
            && fate.annotations.len() == matter.context.annotations.len()
            && matter.context.recipients.get(concerned..) == Some(recipients.as_slice());
        if same {
            return Arc::clone(&matter.context);
        }
        let mut context = smtp::Context::clone(&matter.context);
        context.recipients.truncate(concerned);
        context.recipients.extend(recipients);
        context.annotations = fate.annotations.as_ref().clone().into_iter().collect();
        if let (Some(sender), Some(from)) = (&fate.sender, &mut context.mail_from) {
            from.address.clone_from(sender);
        }
        Arc::new(context)
    }

    /// Merges one result: all of its parts or, if one of them does not fit the message, none.
    async fn take(&mut self, audience: &Audience, result: StepResult) {
        let StepResult {
            parts,
            mut report,
            failure,
        } = result;
        let parts = match self.versions(audience, &parts).await {
            Ok(views) => parts.into_iter().zip(views).collect(),
            Err(error) => {
                tracing::error!(
                    rule = report.rule,
                    service = report.service,
                    error,
                    "outcome cannot be applied"
                );
                report.verdict = format!("{} (not applicable: {error})", report.verdict);
                report.gravity = Some(failure.gravest());
                report.failure = Some(CalloutLabel::Protocol);
                vec![(Part::for_all(failure), None)]
            }
        };
        // Who is meant, before the parts change addresses.
        let mut named = Vec::new();
        let mut members: Vec<Option<Vec<usize>>> = Vec::new();
        for (part, _) in &parts {
            let meant = self.named(audience, &part.who);
            named.extend(meant.iter().flatten());
            members.push(meant);
        }
        let rest = audience.members.iter().copied();
        let rest: Vec<usize> = rest.filter(|member| !named.contains(member)).collect();
        for ((part, view), members) in parts.into_iter().zip(members) {
            let members = self.groups.open(members.as_ref().unwrap_or(&rest));
            self.take_part(&members, &part.permitted, view, &report);
        }
        self.steps.push(report);
    }

    /// None: those whom no part names.
    fn named(&self, audience: &Audience, who: &Who) -> Option<Vec<usize>> {
        let Who::Only(addresses) = who else {
            return None;
        };
        let is_named = |member: &usize| {
            self.groups
                .recipients
                .get(*member)
                .is_some_and(|recipient| {
                    let mut addresses = addresses.iter();
                    addresses.any(|address| recipient.address.eq_ignore_ascii_case(address))
                })
        };
        Some(audience.members.iter().copied().filter(is_named).collect())
    }

    /// The view that each part makes of what the audience was shown; none where a part leaves it as it is.
    async fn versions(
        &self,
        audience: &Audience,
        parts: &[Part],
    ) -> Result<Vec<Option<View>>, String> {
        let mut views = Vec::with_capacity(parts.len());
        for part in parts {
            let view = match &audience.fate.version {
                Some(version) => adapted(&version.view, &part.permitted).await?,
                None => None,
            };
            views.push(view);
        }
        Ok(views)
    }

    fn take_part(
        &mut self,
        members: &[usize],
        permitted: &Permitted,
        view: Option<View>,
        report: &StepReport,
    ) {
        if members.is_empty() {
            return;
        }
        self.advise(members, permitted, report);
        let version = view.map(|view| self.groups.version(view));
        let hold = permitted.quarantine.as_ref().map(|advice| Hold {
            reason: advice.reason.clone(),
            queue: advice.queue.clone(),
            rule: report.rule.clone(),
            service: report.service.clone(),
        });
        self.groups.change(members, |fate| {
            if permitted.verdict != Verdict::Accept {
                fate.verdict = permitted.verdict.clone();
            }
            if let Some(version) = &version {
                fate.version = Some(version.clone());
            }
            fate.command_line = permitted.command_line.clone().or(fate.command_line.take());
            fate.sender = permitted.sender.clone().or(fate.sender.take());
            fate.hold = fate.hold.take().or_else(|| hold.clone());
            if !permitted.annotations.is_empty() {
                let said = permitted.annotations.clone();
                Arc::make_mut(&mut fate.annotations).extend(said);
            }
        });
        // After all else: who is added gets the message as this very answer leaves it.
        for change in &permitted.recipients {
            self.groups.change_recipient(members, change);
        }
    }

    fn advise(&mut self, members: &[usize], permitted: &Permitted, report: &StepReport) {
        if permitted.notifications.is_empty() && permitted.incident.is_empty() {
            return;
        }
        let recipients = members
            .iter()
            .filter_map(|member| self.groups.recipients.get(*member))
            .map(|recipient| recipient.address.clone())
            .collect();
        self.advice.push(Advice {
            rule: report.rule.clone(),
            service: report.service.clone(),
            recipients,
            notifications: permitted.notifications.clone(),
            incident: permitted.incident.clone(),
        });
    }

    /// The message as the client sent it.
    pub(crate) fn original(&self) -> Option<View> {
        let version = self.single().version?;
        Some(View::original(version.view.content().clone()))
    }

    /// The verdict, line and envelope where all recipients have one fate, as at the points of commands.
    pub(crate) fn single(&self) -> Fate {
        let first = self.groups.groups.first();
        first.map(|group| group.fate.clone()).unwrap_or_default()
    }
}

/// The adapted flow first, then the edits, both over the view that the service saw.
async fn adapted(view: &View, permitted: &Permitted) -> Result<Option<View>, String> {
    if permitted.adapted.is_none() && permitted.edits.is_empty() {
        return Ok(None);
    }
    if !view.content().wait_complete().await {
        return Err("the client left before the end of the message".into());
    }
    let mut adapted = view.clone();
    if let Some(adaptation) = &permitted.adapted {
        adapted = view.adapt(adaptation).map_err(|error| error.to_string())?;
    }
    edits::apply(&adapted, permitted.edits.clone())
        .await
        .map(Some)
        .map_err(|error| error.to_string())
}
