//! What the operator shows of itself, except for what its servers show. Every metric is described in `docs/reference/metrics.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opes_telemetry::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use tokio::sync::watch;

use crate::edges::Edges;
use crate::index::Evaluation;

/// In the answer to an apply that has a list with an element twice, or a wrong type.
const NOT_TYPED: &str = "failed to create typed patch object";

/// Figures of this replica. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconcile: Family<PartLabels, Histogram, fn() -> Histogram>,
    errors: Family<ErrorLabels, Counter>,
    writes: Family<PartLabels, Counter>,
    queue: Family<PartLabels, Gauge>,
    watch_failures: Family<KindLabels, Counter>,
    objects: Family<ObjectLabels, Gauge>,
    leading: Gauge,
}

/// Part of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Part {
    /// Objects to table.
    Index,
    /// Owned objects.
    Apply,
    /// Conditions.
    Status,
    /// Events.
    Event,
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Reason {
    /// Somebody else was faster.
    Conflict,
    /// A role is missing.
    Forbidden,
    /// The object makes no sense to the API server.
    Invalid,
    /// It is gone.
    NotFound,
    /// An object of that name is somebody else's.
    NameTaken,
    /// The API server has trouble, or wants to be asked later.
    Server,
    /// No answer in time.
    Timeout,
    /// The API server cannot be reached.
    Network,
    /// No request: the rules could not be evaluated.
    Panic,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: Part,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    part: Part,
    reason: Reason,
}

/// The only failure that is no request's.
const PANIC: ErrorLabels = ErrorLabels {
    part: Part::Index,
    reason: Reason::Panic,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: &'static str,
    outcome: &'static str,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        // From 1 ms to 16 s.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        Self {
            reconcile: Family::new_with_constructor(histogram),
            errors: Family::default(),
            writes: Family::default(),
            queue: Family::default(),
            watch_failures: Family::default(),
            objects: Family::default(),
            leading: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Shown in `registry`, with all that can be counted at 0: what appears with its first value has no increase for Prometheus.
    pub fn register(registry: &Registry) -> Self {
        let this = Self::default();
        this.start_at_zero();
        let to = registry;
        to.register(
            "opes_operator_reconcile_seconds",
            "Time for looking at what has changed and writing what follows",
            this.reconcile.clone(),
        );
        to.register(
            "opes_operator_errors",
            "Requests to the API server that failed",
            this.errors.clone(),
        );
        to.register(
            "opes_operator_writes",
            "Requests that write, without those of the Lease",
            this.writes.clone(),
        );
        to.register(
            "opes_operator_queue",
            "Objects that wait to be written",
            this.queue.clone(),
        );
        to.register(
            "opes_operator_watch_failures",
            "Watches that broke off with an error",
            this.watch_failures.clone(),
        );
        to.register(
            "opes_operator_objects",
            "Rules and services by what became of them",
            this.objects.clone(),
        );
        to.register(
            "opes_operator_leading",
            "1 if this replica writes",
            this.leading.clone(),
        );
        this
    }

    fn start_at_zero(&self) {
        for part in [Part::Apply, Part::Status, Part::Event] {
            let _zero = self.writes.get_or_create(&PartLabels { part });
            for reason in Reason::OF_REQUESTS {
                let _zero = self.errors.get_or_create(&ErrorLabels { part, reason });
            }
        }
        let _zero = self.errors.get_or_create(&PANIC);
        for part in [Part::Index, Part::Apply, Part::Status] {
            let _none = self.reconcile.get_or_create(&PartLabels { part });
        }
        for part in [Part::Apply, Part::Status] {
            let _none = self.queue.get_or_create(&PartLabels { part });
        }
    }

    /// Shows the revision that is served, and what edges run.
    pub fn register_edges(
        &self,
        registry: &Registry,
        edges: &Arc<Edges>,
        evaluations: watch::Receiver<Option<Arc<Evaluation>>>,
    ) {
        let collector = Served {
            edges: Arc::clone(edges),
            evaluations,
        };
        registry.with(|inner| inner.register_collector(Box::new(collector)));
    }

    /// A part has done its work.
    pub fn reconciled(&self, part: Part, time: Duration) {
        self.reconcile
            .get_or_create(&PartLabels { part })
            .observe(time.as_secs_f64());
    }

    /// The rules were evaluated.
    pub fn evaluated(&self, evaluation: &Evaluation, time: Duration) {
        self.reconciled(Part::Index, time);
        let mut counts: BTreeMap<(&'static str, &'static str), i64> = BTreeMap::new();
        for kind in ["OpesRule", "CalloutService"] {
            for outcome in ["accepted", "lastAccepted", "standIn", "leftOut"] {
                counts.insert((kind, outcome), 0);
            }
        }
        for (key, finding) in &evaluation.findings {
            *counts
                .entry((key.kind, finding.outcome_name()))
                .or_default() += 1;
        }
        for ((kind, outcome), count) in counts {
            self.objects
                .get_or_create(&ObjectLabels { kind, outcome })
                .set(count);
        }
    }

    /// The compiler has a mistake.
    pub fn panicked(&self) {
        self.errors.get_or_create(&PANIC).inc();
    }

    /// A request is about to be made that writes.
    pub fn wrote(&self, part: Part) {
        self.writes.get_or_create(&PartLabels { part }).inc();
    }

    /// A request failed.
    pub fn failed(&self, part: Part, reason: Reason) {
        self.errors
            .get_or_create(&ErrorLabels { part, reason })
            .inc();
    }

    /// So many objects wait.
    pub fn waiting(&self, part: Part, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.queue.get_or_create(&PartLabels { part }).set(count);
    }

    /// A watch broke off.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_failures
            .get_or_create(&KindLabels { kind })
            .inc();
    }

    /// This replica writes, or does not any more.
    pub fn leads(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }
}

impl Reason {
    const OF_REQUESTS: [Self; 8] = [
        Self::Conflict,
        Self::Forbidden,
        Self::Invalid,
        Self::NotFound,
        Self::NameTaken,
        Self::Server,
        Self::Timeout,
        Self::Network,
    ];

    /// Of an error.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                409 => Self::Conflict,
                401 | 403 => Self::Forbidden,
                400 | 413 | 415 | 422 => Self::Invalid,
                404 | 410 => Self::NotFound,
                // Server-side apply of what does not fit the schema is answered so.
                500 if status.message.contains(NOT_TYPED) => Self::Invalid,
                _ => Self::Server,
            },
            _ => Self::Network,
        }
    }
}

/// Looks when it is asked.
struct Served {
    edges: Arc<Edges>,
    evaluations: watch::Receiver<Option<Arc<Evaluation>>>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl Collector for Served {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let evaluation = self.evaluations.borrow().clone().unwrap_or_default();
        let revision = evaluation.snapshot.table.revision.clone();
        let info = Info::new(vec![("revision", revision.clone())]);
        info.encode(encoder.encode_descriptor(
            "opes_operator_snapshot",
            "Revision that is served",
            None,
            info.metric_type(),
        )?)?;
        let states = self.edges.states();
        let mut counts = BTreeMap::from([
            ("current", 0_i64),
            ("behind", 0),
            ("refused", 0),
            ("none", 0),
        ]);
        let newest = evaluation
            .sequences
            .get(&revision)
            .copied()
            .unwrap_or_default();
        let mut lag = 0;
        for state in states.iter().filter(|state| state.left.is_none()) {
            let name = if state.running == revision {
                "current"
            } else if state
                .refused
                .as_ref()
                .is_some_and(|refusal| refusal.revision == revision)
            {
                "refused"
            } else if state.running.is_empty() {
                "none"
            } else {
                "behind"
            };
            *counts.entry(name).or_default() += 1;
            let runs = evaluation
                .sequences
                .get(&state.running)
                .copied()
                .unwrap_or_default();
            lag = lag.max(newest.saturating_sub(runs));
        }
        let mut family = encoder.encode_descriptor(
            "opes_operator_edges",
            "Connected edges by what they run",
            None,
            ConstGauge::new(0_i64).metric_type(),
        )?;
        for (state, count) in counts {
            ConstGauge::new(count).encode(family.encode_family(&[("state", state)])?)?;
        }
        let lag = ConstGauge::new(i64::try_from(lag).unwrap_or(i64::MAX));
        lag.encode(encoder.encode_descriptor(
            "opes_operator_edge_lag_revisions",
            "Revisions that the edge which is furthest behind has not taken yet",
            None,
            lag.metric_type(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_can_be_counted_is_there_before_anything_happens() {
        let registry = Registry::new();
        let _metrics = Metrics::register(&registry);
        let text = registry.encode().unwrap();
        for part in ["Apply", "Status", "Event"] {
            for line in [
                format!("opes_operator_writes_total{{part=\"{part}\"}} 0\n"),
                format!("opes_operator_errors_total{{part=\"{part}\",reason=\"Forbidden\"}} 0\n"),
            ] {
                assert!(text.contains(&line), "no {line} in\n{text}");
            }
        }
        let mistakes = "opes_operator_errors_total{part=\"Index\",reason=\"Panic\"} 0\n";
        assert!(text.contains(mistakes), "{text}");
    }

    #[test]
    fn what_will_never_work_is_told_from_what_may() {
        let of = |code, message: &str| {
            let status = Status::failure(message, "").with_code(code);
            Reason::of(&kube::Error::Api(Box::new(status)))
        };
        let typed =
            "failed to create typed patch object (a/b): duplicate entries for key [mountPath]";
        assert_eq!(of(500, typed), Reason::Invalid);
        assert_eq!(of(422, "invalid"), Reason::Invalid);
        assert_eq!(of(500, "etcdserver: timeout"), Reason::Server);
        assert_eq!(of(503, "not ready"), Reason::Server);
        assert_eq!(of(403, "no"), Reason::Forbidden);
    }
}
