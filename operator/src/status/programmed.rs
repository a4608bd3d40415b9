//! `Programmed`: does every edge run what is written?
//!
//! Each revision has its place in the order in which this replica made them. A rule is in all revisions from one place on; an edge that
//! acknowledged one of that place or later runs it. True needs every connected edge, and every edge that was connected a moment ago.
//! What was true is not taken back for a hiccup: an edge may lag for [`LAG`], and all of them may be away for [`NO_EDGES`].

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use opes_k8s::status::{condition, reason};
use tokio::time::Instant;

use super::conditions::{Said, Truth};
use crate::edges::EdgeState;
use crate::index::InTable;
use crate::shared::ObjectKey;

/// An edge may be behind for this long before anything is said of it.
pub const LAG: Duration = Duration::from_secs(5);
/// There may be no edge for this long before anything is said of it.
pub const NO_EDGES: Duration = Duration::from_secs(30);
/// After the start, for edges to come (back): nothing is said to be true or not true before. Five seconds each until this replica is
/// found, for an edge's longest pause, and for its longest attempt to connect; of an edge that comes later nothing is known until then.
pub const SETTLE: Duration = Duration::from_secs(15);
/// A new rule is mostly acknowledged within this time, and then needs one write instead of two.
const FIRST: Duration = Duration::from_millis(500);

/// What all edges run at one moment.
#[derive(Debug, Default)]
pub struct EdgeView {
    /// Connected now.
    connected: usize,
    /// The place that all have reached; none without edges.
    reached: Option<u64>,
    /// The one that is furthest behind.
    last: Option<String>,
    /// Of a refused table: which edge, which place, and what it says of each object.
    refusals: BTreeMap<ObjectName, (u64, String)>,
    /// A fault of the table as a whole, or of some object.
    refused: Option<String>,
}

/// Kind and `NAMESPACE/NAME`, as edges say it.
type ObjectName = (String, String);

/// What to do about the condition now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Say this.
    Say(Said),
    /// Leave it as it is, and look again at this time.
    Wait(Instant),
}

/// What is known of one rule.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Which rule.
    pub key: &'a ObjectKey,
    /// What of it is in the table.
    pub in_table: InTable,
    /// What was said last.
    pub before: Option<&'a Condition>,
    /// Since when it is not so; remembered by the asker.
    pub since: Instant,
    /// When this replica began to be asked by edges.
    pub started: Instant,
    /// Now.
    pub now: Instant,
}

// === impl EdgeView ===

impl EdgeView {
    /// Of these edges; `sequences` has the place of each revision.
    pub fn of(edges: &[EdgeState], sequences: &BTreeMap<String, u64>) -> Self {
        let mut view = Self::default();
        for edge in edges {
            let place = |revision: &str| sequences.get(revision).copied().unwrap_or_default();
            let runs = place(&edge.running);
            view.connected += usize::from(edge.left.is_none());
            if view.reached.is_none_or(|reached| runs < reached) {
                view.reached = Some(runs);
                view.last = Some(edge.edge.clone());
            }
            let Some(refusal) = edge.refused.as_ref().filter(|_| edge.left.is_none()) else {
                continue;
            };
            for fault in &refusal.faults {
                let said = format!("edge {} has refused it: {}", edge.edge, fault.message);
                if fault.name.is_empty() {
                    view.refused.get_or_insert(format!(
                        "edge {} has refused the table: {}",
                        edge.edge, fault.message
                    ));
                    continue;
                }
                view.refused.get_or_insert(format!(
                    "edge {} has refused the table because of {} {}",
                    edge.edge, fault.kind, fault.name
                ));
                let entry = view
                    .refusals
                    .entry((fault.kind.clone(), fault.name.clone()));
                entry.or_insert((place(&refusal.revision), said));
            }
        }
        view
    }

    /// No edge is connected.
    pub fn is_empty(&self) -> bool {
        self.connected == 0
    }

    /// What is to be said of a rule that is in the table as it is written.
    pub fn judge(&self, question: &Question<'_>) -> Step {
        let name = (question.key.kind.to_owned(), question.key.name.clone());
        let refusal = self
            .refusals
            .get(&name)
            .filter(|(place, _)| *place >= question.in_table.since);
        if let Some((_, said)) = refusal {
            return Step::Say(Said::new(
                condition::PROGRAMMED,
                Truth::False,
                reason::REFUSED,
                said.clone(),
            ));
        }
        let settled = question.started + SETTLE;
        let was_true = question
            .before
            .is_some_and(|before| before.status == Truth::True.name());
        let reached = self.connected > 0
            && self
                .reached
                .is_some_and(|reached| reached >= question.in_table.since);
        if reached {
            if question.now < settled && !was_true {
                return question.unsettled(settled);
            }
            return Step::Say(Said::new(
                condition::PROGRAMMED,
                Truth::True,
                reason::PROGRAMMED,
                "every connected edge runs it",
            ));
        }
        if question.now < settled {
            return question.unsettled(settled);
        }
        question.not_reached(was_true, self)
    }
}

// === impl Question ===

impl Question<'_> {
    /// Nothing can be known yet.
    fn unsettled(&self, settled: Instant) -> Step {
        match self.before {
            None => Step::Say(pending("edges are being told")),
            Some(_) => Step::Wait(settled),
        }
    }

    fn not_reached(&self, was_true: bool, view: &EdgeView) -> Step {
        let no_edges = view.connected == 0;
        let patience = match self.before {
            None => FIRST,
            Some(_) if was_true && no_edges => NO_EDGES,
            Some(_) => LAG,
        };
        let until = self.since + patience;
        if self.now < until {
            return Step::Wait(until);
        }
        if no_edges {
            return Step::Say(Said::new(
                condition::PROGRAMMED,
                Truth::Unknown,
                reason::NO_EDGES,
                "no edge is connected",
            ));
        }
        if self.before.is_none() {
            return Step::Say(pending("edges are being told"));
        }
        let last = view.last.as_deref().unwrap_or_default();
        let why = view
            .refused
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        let message = format!("edge {last} does not run it yet{why}");
        Step::Say(
            Said::new(
                condition::PROGRAMMED,
                Truth::False,
                reason::PENDING,
                message,
            )
            .sticky(),
        )
    }
}

fn pending(message: &str) -> Said {
    Said::new(
        condition::PROGRAMMED,
        Truth::Unknown,
        reason::PENDING,
        message,
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use opes_proto::routing::Fault;

    use super::*;
    use crate::edges::Refusal;

    fn edge(name: &str, running: &str) -> EdgeState {
        EdgeState {
            edge: name.into(),
            version: "1".into(),
            since: Instant::now(),
            running: running.into(),
            refused: None,
            left: None,
        }
    }

    fn sequences() -> BTreeMap<String, u64> {
        [("r1".to_owned(), 1), ("r2".to_owned(), 2)].into()
    }

    fn condition(truth: Truth) -> Condition {
        Said::new(condition::PROGRAMMED, truth, "x", "").after(None, 1, Timestamp::UNIX_EPOCH)
    }

    /// Of a rule that came with the second revision, after `seconds` in which it was not so.
    fn judge(edges: &[EdgeState], before: Option<&Condition>, seconds: u64) -> Step {
        judge_at(edges, before, seconds, SETTLE + Duration::from_secs(100))
    }

    fn judge_at(
        edges: &[EdgeState],
        before: Option<&Condition>,
        seconds: u64,
        up: Duration,
    ) -> Step {
        let started = Instant::now();
        let now = started + up;
        let key = ObjectKey {
            kind: "OpesRule",
            name: "mail/r".into(),
        };
        EdgeView::of(edges, &sequences()).judge(&Question {
            key: &key,
            in_table: InTable {
                generation: 1,
                since: 2,
            },
            before,
            since: now.checked_sub(Duration::from_secs(seconds)).unwrap(),
            started,
            now,
        })
    }

    fn truth(step: &Step) -> Option<(Truth, &str)> {
        match step {
            Step::Say(said) => Some((said.truth, said.reason.as_str())),
            Step::Wait(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn true_needs_every_edge() {
        let (yes, unknown) = (condition(Truth::True), condition(Truth::Unknown));
        let all = [edge("a", "r2"), edge("b", "r2")];
        let one = [edge("a", "r2"), edge("b", "r1")];
        let unheard = [edge("a", "r2"), edge("b", "elsewhere")];
        let mut left = one.to_vec();
        left[1].left = Some(Instant::now());
        assert_eq!(
            truth(&judge(&all, Some(&unknown), 0)),
            Some((Truth::True, reason::PROGRAMMED))
        );
        for edges in [&one[..], &unheard[..], &left[..]] {
            assert_eq!(truth(&judge(edges, Some(&unknown), 1)), None);
            assert_eq!(truth(&judge(edges, Some(&yes), 4)), None, "a hiccup");
            assert_eq!(
                truth(&judge(edges, Some(&yes), 5)),
                Some((Truth::False, reason::PENDING))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_edges_nothing_is_known_but_not_at_once() {
        let yes = condition(Truth::True);
        assert_eq!(truth(&judge(&[], Some(&yes), 29)), None);
        assert_eq!(
            truth(&judge(&[], Some(&yes), 30)),
            Some((Truth::Unknown, reason::NO_EDGES))
        );
        assert_eq!(
            truth(&judge(&[], None, 1)),
            Some((Truth::Unknown, reason::NO_EDGES))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rule_waits_a_moment_and_then_says_so() {
        let behind = [edge("a", "r1")];
        assert_eq!(truth(&judge(&behind, None, 0)), None);
        assert_eq!(
            truth(&judge(&behind, None, 1)),
            Some((Truth::Unknown, reason::PENDING))
        );
        let unknown = condition(Truth::Unknown);
        assert_eq!(
            truth(&judge(&behind, Some(&unknown), 5)),
            Some((Truth::False, reason::PENDING))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn right_after_the_start_nothing_moves() {
        let (yes, no) = (condition(Truth::True), condition(Truth::False));
        let all = [edge("a", "r2")];
        // The last moment at which an edge may come that was about to call when the operator was not there yet.
        let short = Duration::from_secs(14);
        assert_eq!(truth(&judge_at(&[], Some(&yes), 3, short)), None);
        assert_eq!(
            truth(&judge_at(&all, Some(&no), 3, short)),
            None,
            "others may be on their way"
        );
        assert_eq!(
            truth(&judge_at(&all, Some(&yes), 3, short)),
            Some((Truth::True, reason::PROGRAMMED))
        );
        assert_eq!(
            truth(&judge_at(&all, None, 3, short)),
            Some((Truth::Unknown, reason::PENDING))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_said_at_once_by_name() {
        let yes = condition(Truth::True);
        let fault = |name: &str| Fault {
            kind: "OpesRule".into(),
            name: name.into(),
            message: "no such point".into(),
        };
        let mut edges = [edge("a", "r2"), edge("b", "r1")];
        edges[1].refused = Some(Refusal {
            revision: "r2".into(),
            faults: vec![fault("mail/r")],
        });
        let step = judge(&edges, Some(&yes), 0);
        assert_eq!(truth(&step), Some((Truth::False, reason::REFUSED)));
        let Step::Say(said) = step else {
            unreachable!()
        };
        assert!(
            said.message.contains("edge b") && said.message.contains("no such point"),
            "{}",
            said.message
        );
        edges[1].refused = Some(Refusal {
            revision: "r2".into(),
            faults: vec![fault("mail/other")],
        });
        assert_eq!(truth(&judge(&edges, Some(&yes), 0)), None);
        let Step::Say(said) = judge(&edges, Some(&yes), 5) else {
            unreachable!()
        };
        assert!(
            said.message.contains("because of OpesRule mail/other"),
            "{}",
            said.message
        );
    }
}
