//! The invariants. A message that was accepted is found once, as one thing, for each recipient; one that was not is found nowhere.
//!
//! What is allowed beyond that is what the documents say: a duplicate when the next hop's 250 could not be recorded (RFC 1047), and either
//! fate for a message whose client got no reply.

use std::path::Path;

use crate::ledger::{Delivery, Facts, Ledger, Seen, What};
use crate::mail::{Attempt, Form, Kind, Mail, attempt_in};
use crate::plan::{OnFailure, Plan};

/// A settlement is on disk at the latest after a second, and a slow disk.
const SETTLED_MS: u64 = 3_000;

/// The relay gives up on a reply after 15 s, and tries again within 10.
const RETRIED_MS: u64 = 30_000;

/// What is held in `quarantine`: the attempts, and how the messages look.
struct Held(Vec<(Attempt, Vec<u8>)>);

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
            if hidden || !is_message || !path.with_extension("json").exists() {
                continue;
            }
            let octets = std::fs::read(&path).unwrap_or_default();
            held.extend(attempt_in(&octets).map(|attempt| (attempt, octets)));
        }
        held.sort_by_key(|(attempt, _)| *attempt);
        Self(held)
    }
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
        let held = self.held.0.iter().filter(|(of, _)| *of == attempt).count();
        let seen = self.facts.attempts[&attempt];
        self.octets(mail, attempt);
        for recipient in &mail.recipients {
            self.recipient(attempt, recipient, seen, held);
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
            let within = outage.from_ms <= second && first <= outage.to_ms;
            match outage.what {
                What::EdgeKilled => {
                    outage.from_ms <= second
                        && first <= outage.from_ms + 100
                        && outage.from_ms <= first + SETTLED_MS
                }
                What::EdgePowerCut => {
                    outage.from_ms <= second
                        && outage.from_ms <= first + SETTLED_MS
                        && first <= outage.from_ms + 100
                }
                What::HopKilled | What::HopLink => within && outage.from_ms <= first + RETRIED_MS,
                What::Disk => within && second <= outage.to_ms + RETRIED_MS,
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
                    && delivery.at_ms <= outage.to_ms
            })
        };
        failed_commit || (self.plan.cut_through && deliveries.iter().all(lost_reply))
    }

    /// Nobody gets half a change, and nobody the original where the rule forbids it.
    fn octets(&mut self, mail: &Mail, attempt: Attempt) {
        let facts = self.facts;
        let judged = mail.kind == Kind::Clean
            || (mail.kind == Kind::Grey && attempt.1 > 1)
            || self.plan.judge_fails == OnFailure::Accept;
        for delivery in facts.deliveries.iter().filter(|d| d.attempt == attempt) {
            let to = &delivery.recipient;
            match mail.form(attempt.1, &delivery.octets) {
                Form::Broken => {
                    self.wrong(format!("{attempt:?} {to}: neither original nor adapted"));
                }
                Form::Original if self.plan.adapter_fails != OnFailure::Accept => {
                    self.wrong(format!("{attempt:?} {to}: not adapted"));
                }
                _ if !judged => {
                    self.wrong(format!("{attempt:?} {to}: delivered against the verdict"));
                }
                _ => {}
            }
        }
        let may_hold = mail.kind == Kind::Suspect
            || self.plan.judge_fails == OnFailure::Quarantine
            || self.plan.adapter_fails == OnFailure::Quarantine;
        let held: Vec<_> = self
            .held
            .0
            .iter()
            .filter(|(of, _)| *of == attempt)
            .collect();
        let broken = held
            .iter()
            .any(|(_, octets)| mail.form(attempt.1, octets) == Form::Broken);
        let is_held = !held.is_empty();
        if broken {
            self.wrong(format!(
                "{attempt:?}: what is held is neither original nor adapted"
            ));
        }
        if is_held && !may_hold {
            self.wrong(format!("{attempt:?}: held without reason"));
        }
    }

    /// Nothing comes out that was not put in.
    fn strangers(&mut self) {
        let facts = self.facts;
        let deliveries = facts.deliveries.iter().map(|delivery| delivery.attempt);
        let held: Vec<_> = self.held.0.iter().map(|(attempt, _)| *attempt).collect();
        let bounces = facts.bounces.iter().map(|(_, attempt, _)| *attempt);
        for attempt in deliveries.chain(held).chain(bounces) {
            if !facts.attempts.contains_key(&attempt) {
                self.wrong(format!("{attempt:?}: nobody sent it"));
            }
        }
    }
}
