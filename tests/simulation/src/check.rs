//! The invariants. A message that was accepted is found once, as one thing, for each recipient; one that was not is found nowhere.
//!
//! What is allowed beyond that is what the documents say: a duplicate when the next hop's 250 could not be recorded (RFC 1047), and either
//! fate for a message whose client got no reply.

use std::path::Path;

use opes_edge::Held as Message;

use crate::ledger::{Delivery, Facts, Ledger, Seen, What};
use crate::mail::{Attempt, Form, Kind, Mail, attempt_in};
use crate::plan::{OnFailure, Plan};

/// A settlement is on disk at the latest after a second, and a slow disk.
const SETTLED_MS: u64 = 3_000;

/// The relay gives up on a reply after 15 s, and tries again within 10.
const RETRIED_MS: u64 = 30_000;

/// What waited for a link or a slow reader may be read so long after it is well again; the edge that sent it has given up or is dead.
const CAUGHT_UP_MS: u64 = 2_000;

/// What is held in `quarantine`.
struct Held(Vec<Entry>);

/// One message that is held, with those whom it is kept from.
struct Entry {
    attempt: Attempt,
    recipients: Vec<String>,
    octets: Vec<u8>,
}

/// All that does not hold.
pub(crate) fn violations(plan: &Plan, ledger: &Ledger, folder: &Path) -> Vec<String> {
    let facts = ledger.facts();
    let held = Held::read(&folder.join("spool"));
    let check = Check {
        plan,
        facts: &facts,
        held,
        violations: Vec::new(),
    };
    check.run()
}

struct Check<'a> {
    plan: &'a Plan,
    facts: &'a Facts,
    held: Held,
    violations: Vec<String>,
}

impl Held {
    fn read(folder: &Path) -> Self {
        let mut held = Vec::new();
        let quarantine = folder.join("quarantine");
        for entry in std::fs::read_dir(quarantine)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let is_message = path.extension().is_some_and(|suffix| suffix == "eml");
            // Without the other file of the pair, nobody was told that it is held.
            let envelope = path.with_extension("json");
            if hidden || !is_message || !envelope.exists() {
                continue;
            }
            let octets = std::fs::read(&path).unwrap_or_default();
            let recipients = recipients(&std::fs::read(&envelope).unwrap_or_default());
            held.extend(attempt_in(&octets).map(|attempt| Entry {
                attempt,
                recipients,
                octets,
            }));
        }
        held.sort_by_key(|entry| entry.attempt);
        Self(held)
    }

    fn of(&self, attempt: Attempt) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| entry.attempt == attempt)
    }

    /// Copies that are kept from `recipient`.
    fn count(&self, attempt: Attempt, recipient: &str) -> usize {
        let copies = self.of(attempt);
        let is_for = |entry: &&Entry| entry.recipients.iter().any(|to| to == recipient);
        copies.filter(is_for).count()
    }
}

/// Those in the envelope of a message that is held. What cannot be read is for nobody, and so found missing.
fn recipients(json: &[u8]) -> Vec<String> {
    serde_json::from_slice::<Message>(json)
        .map(|held| held.envelope.recipients.into_iter())
        .into_iter()
        .flatten()
        .map(|recipient| recipient.address)
        .collect()
}

impl Check<'_> {
    fn run(mut self) -> Vec<String> {
        let facts = self.facts;
        for mail in &self.plan.mails {
            for attempt in facts.attempts.keys().filter(|a| a.0 == mail.number) {
                self.attempt(mail, *attempt);
            }
        }
        self.strangers();
        self.violations
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    fn attempt(&mut self, mail: &Mail, attempt: Attempt) {
        let seen = self.facts.attempts[&attempt];
        self.delivered(mail, attempt);
        self.held(mail, attempt);
        for recipient in &mail.recipients {
            let held = self.held.count(attempt, recipient);
            self.recipient(attempt, recipient, seen, held);
            if seen == Seen::Accepted {
                self.policies(mail, attempt, recipient, held > 0);
            }
        }
    }

    /// What is accepted is held if the analyser wants that, or if a service has not answered and its policy wants that.
    fn policies(&mut self, mail: &Mail, attempt: Attempt, recipient: &str, is_held: bool) {
        let (plan, facts) = (self.plan, self.facts);
        let kind = mail.kind_for(attempt.1, recipient);
        // A refusal of some is a copy in the quarantine, as the listener has it.
        let unwanted = matches!(kind, Kind::Suspect | Kind::Bad);
        if unwanted && plan.judge_fails != OnFailure::Accept && !is_held {
            self.wrong(format!("{attempt:?} {recipient}: {kind:?} and not held"));
        }
        for (service, answered, policy) in [
            ("judge", &facts.judged, plan.judge_fails),
            ("adapter", &facts.adapted, plan.adapter_fails),
        ] {
            if answered.contains(&attempt) || policy == OnFailure::Accept {
                continue;
            }
            if policy != OnFailure::Quarantine {
                self.wrong(format!("{attempt:?}: accepted without the {service}"));
            } else if !is_held {
                self.wrong(format!(
                    "{attempt:?} {recipient}: not held, and the {service} has not answered"
                ));
            }
        }
    }

    fn recipient(&mut self, attempt: Attempt, recipient: &str, seen: Seen, held: usize) {
        let deliveries = self.deliveries(attempt, recipient);
        let bounces = self.bounces(attempt, recipient);
        let fates = [held > 0, !deliveries.is_empty(), !bounces.is_empty()];
        let fates = fates.into_iter().filter(|fate| *fate).count();
        let told = format!(
            "{attempt:?} {recipient}: seen {seen:?}, held {held}, delivered {}, bounced {}",
            deliveries.len(),
            bounces.len()
        );
        let is_refused = matches!(seen, Seen::RefusedForNow | Seen::Refused);
        match seen {
            Seen::Accepted if fates == 0 => self.wrong(format!("lost: {told}")),
            Seen::Unfinished if fates > 0 => self.wrong(format!("invented: {told}")),
            _ if is_refused && fates > 0 && !self.may_reappear(&deliveries) => {
                self.wrong(format!("refused and yet there: {told}"));
            }
            _ if fates > 1 => self.wrong(format!("two fates: {told}")),
            _ if held > 1 => self.wrong(format!("held twice: {told}")),
            _ => {}
        }
        if !bounces.is_empty() && !self.was_refused(attempt, recipient) {
            self.wrong(format!("bounced and never refused: {told}"));
        }
        let delivered: Vec<_> = deliveries.iter().map(|delivery| delivery.at_ms).collect();
        for times in [delivered, bounces] {
            self.repetitions(&times, &told);
        }
    }

    fn repetitions(&mut self, times: &[u64], told: &str) {
        for pair in times.windows(2) {
            if !self.may_repeat(pair[0], pair[1]) {
                let (first, second) = (pair[0], pair[1]);
                self.wrong(format!(
                    "delivered again without need at {first} and {second} ms: {told}"
                ));
            }
        }
    }

    /// When the sender was told that `recipient` will not get it.
    fn bounces(&self, attempt: Attempt, recipient: &str) -> Vec<u64> {
        let all = self.facts.bounces.iter();
        all.filter(|(_, of, to)| *of == attempt && to == recipient)
            .map(|(at, _, _)| *at)
            .collect()
    }

    fn was_refused(&self, attempt: Attempt, recipient: &str) -> bool {
        let mut refusals = self.facts.refusals.iter();
        refusals.any(|(of, to)| *of == attempt && to == recipient)
    }

    fn deliveries(&self, attempt: Attempt, recipient: &str) -> Vec<Delivery> {
        let all = self.facts.deliveries.iter();
        all.filter(|delivery| delivery.attempt == attempt && delivery.recipient == recipient)
            .cloned()
            .collect()
    }

    /// The 250 of the first delivery did not arrive, or could not be noted down.
    fn may_repeat(&self, first: u64, second: u64) -> bool {
        self.facts.outages.iter().any(|outage| {
            let (from, to) = (outage.from_ms, outage.to_ms);
            match outage.what {
                // In a tick that the hop has begun before the edge died.
                What::EdgeKilled | What::EdgePowerCut => {
                    from <= second && from <= first + SETTLED_MS && first <= from + 100
                }
                What::HopKilled | What::HopLink => {
                    from <= second && from <= first + RETRIED_MS && first <= to + CAUGHT_UP_MS
                }
                What::Disk => from <= second && first <= to && second <= to + RETRIED_MS,
                What::Elsewhere => false,
            }
        })
    }

    /// `docs/spool.md`, *When the disk fails*: a commit that failed may be found after a crash. In cut-through mode, the next hop's 250 may be
    /// lost on its way.
    fn may_reappear(&self, deliveries: &[Delivery]) -> bool {
        let has = |what: &[What]| {
            let mut outages = self.facts.outages.iter();
            outages.any(|outage| what.contains(&outage.what))
        };
        let failed_commit = has(&[What::Disk]) && has(&[What::EdgeKilled, What::EdgePowerCut]);
        let lost_reply = |delivery: &Delivery| {
            let hop = [What::HopKilled, What::HopLink];
            self.facts.outages.iter().any(|outage| {
                hop.contains(&outage.what)
                    && outage.from_ms <= delivery.at_ms + RETRIED_MS
                    && delivery.at_ms <= outage.to_ms + CAUGHT_UP_MS
            })
        };
        failed_commit || (self.plan.cut_through && deliveries.iter().all(lost_reply))
    }

    /// Nobody gets half a change or another's, and nobody the original where the rule forbids it.
    fn delivered(&mut self, mail: &Mail, attempt: Attempt) {
        let facts = self.facts;
        for delivery in facts.deliveries.iter().filter(|d| d.attempt == attempt) {
            let to = &delivery.recipient;
            let form = mail.form(attempt.1, &delivery.octets);
            let wanted = mail.form_for(to);
            if form == Form::Broken {
                self.wrong(format!("{attempt:?} {to}: neither original nor adapted"));
            } else if form != wanted && wanted == Form::Original {
                self.wrong(format!("{attempt:?} {to}: adapted as for somebody else"));
            } else if form != wanted && self.plan.adapter_fails != OnFailure::Accept {
                self.wrong(format!("{attempt:?} {to}: not adapted"));
            }
            let is_clean = mail.kind_for(attempt.1, to) == Kind::Clean;
            if !is_clean && self.plan.judge_fails != OnFailure::Accept {
                self.wrong(format!("{attempt:?} {to}: delivered against the verdict"));
            }
        }
    }

    fn held(&mut self, mail: &Mail, attempt: Attempt) {
        let fails = [self.plan.judge_fails, self.plan.adapter_fails];
        let by_policy = fails.contains(&OnFailure::Quarantine);
        let mut wrong = Vec::new();
        for entry in self.held.of(attempt) {
            if mail.form(attempt.1, &entry.octets) == Form::Broken {
                wrong.push("what is held is neither original nor adapted");
            }
            let mut recipients = entry.recipients.iter();
            let is_wanted = |to: &String| {
                let kind = mail.kind_for(attempt.1, to);
                let by_verdict = kind == Kind::Suspect || (kind == Kind::Bad && mail.is_mixed());
                by_verdict || by_policy
            };
            if !recipients.all(is_wanted) {
                wrong.push("held without reason");
            }
        }
        for what in wrong {
            self.wrong(format!("{attempt:?}: {what}"));
        }
    }

    /// Nothing comes out that was not put in.
    fn strangers(&mut self) {
        let facts = self.facts;
        let deliveries = facts.deliveries.iter().map(|delivery| delivery.attempt);
        let held: Vec<_> = self.held.0.iter().map(|entry| entry.attempt).collect();
        let bounces = facts.bounces.iter().map(|(_, attempt, _)| *attempt);
        for attempt in deliveries.chain(held).chain(bounces) {
            if !facts.attempts.contains_key(&attempt) {
                self.wrong(format!("{attempt:?}: nobody sent it"));
            }
        }
    }
}
