//! The edge of a run: the production edge, relay, spool and callout client on a simulated host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use opes_edge::config::{
    Acceptance, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol, MixedVerdicts,
};
use opes_edge::{EdgeHandle, Endpoints, Hooks, Metrics, Routing};
use opes_host::{Clock, Host, Network, Random};
use opes_relay::{Backoff, RelayConfig};
use opes_spool::SpoolConfig;

use crate::disk::Medium;
use crate::ledger::Ledger;
use crate::net::{Card, Pace};
use crate::plan::Plan;

/// What of an edge outlives its processes, and what its next process starts with.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) ledger: Ledger,
    pub(crate) medium: Arc<Medium>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) folder: PathBuf,
    pub(crate) random: Random,
    rules: Arc<str>,
    kept_octets: u64,
    acceptance: Acceptance,
    /// The process that runs.
    pub(crate) process: Arc<Mutex<Option<Process>>>,
    /// The process ended by itself, as it does when it cannot start.
    pub(crate) has_ended: Arc<AtomicBool>,
}

/// A running edge.
pub(crate) struct Process {
    pub(crate) handle: EdgeHandle,
    pub(crate) card: Card,
}

impl Site {
    pub(crate) fn new(plan: &Plan, ledger: Ledger, medium: Arc<Medium>, folder: PathBuf) -> Self {
        Self {
            ledger,
            medium,
            pace: Arc::default(),
            folder,
            random: Random::seeded(plan.seed ^ 0xed9e),
            rules: rules(plan).into(),
            kept_octets: plan.kept_octets,
            acceptance: if plan.cut_through {
                Acceptance::CutThrough
            } else {
                Acceptance::Spool
            },
            process: Arc::default(),
            has_ended: Arc::default(),
        }
    }

    /// Runs until the process is killed.
    pub(crate) async fn run(self) -> turmoil::Result {
        let card = Card::new(&self.ledger, &self.pace);
        let host = Host {
            network: Network::Other(Arc::new(card.clone())),
            clock: Clock::Other(Arc::new(wall_clock)),
            random: self.random.clone(),
        };
        let mut registry = prometheus_client::registry::Registry::default();
        let metrics = Arc::new(Metrics::register(&mut registry));
        let started = opes_edge::start(
            self.config(),
            self.routing(&host)?,
            metrics,
            self.hooks(host, &card),
        )
        .await;
        match started {
            Ok(handle) => {
                self.ledger.note("edge is up");
                let process = Process { handle, card };
                *self.process.lock().expect("no panics") = Some(process);
            }
            Err(error) => {
                // Paths are different in every run.
                let error = format!("{error:#}");
                let error = error.replace(&*self.folder.to_string_lossy(), "SPOOL");
                self.ledger.note(format!("edge does not start: {error}"));
                self.has_ended.store(true, Ordering::Relaxed);
            }
        }
        std::future::pending().await
    }

    fn config(&self) -> EdgeConfig {
        let any = SocketAddr::from(([0, 0, 0, 0], 25));
        let listener = ListenerConfig {
            delivery: self.acceptance,
            client_timeout: Duration::from_secs(20),
            // One reply for different verdicts, without the client coming again for each.
            mixed_verdicts: MixedVerdicts::QuarantineRejected,
            ..ListenerConfig::new("mx", any, ListenerProtocol::Smtp)
        };
        EdgeConfig {
            listeners: vec![listener],
            domains: vec!["example.org".into()],
            delivery: DeliveryConfig {
                next_hop: Some("hop:25".into()),
                connections_max: 3,
                ..DeliveryConfig::default()
            },
            // All content stays in memory: the file of a large one is read and written by threads.
            memory_per_message: 1 << 30,
            ..EdgeConfig::new("edge.example.com", self.folder.clone())
        }
    }

    fn routing(&self, host: &Host) -> turmoil::Result<Routing> {
        let table = opes_rules::load([("simulation.yaml", &*self.rules)])
            .map_err(|wrong| format!("{wrong:?}"))?;
        let system = "https://edge.example.com/opes";
        let endpoints = Endpoints::new();
        Ok(Routing::with(host, None, table, &endpoints, system)?)
    }

    fn hooks(&self, host: Host, card: &Card) -> Hooks {
        let spool = SpoolConfig {
            segment_octets: 256 * 1024,
            own_file_octets: 24 * 1024,
            reserve_octets: 64 * 1024,
            kept_octets: self.kept_octets,
            disk: Arc::new(self.medium.attach(&card.dead)),
            clock: host.clock.clone(),
            ..SpoolConfig::default()
        };
        Hooks {
            host,
            spool,
            relay: Some(Box::new(impatient)),
            ..Hooks::default()
        }
    }
}

/// Schedules that let a run end within virtual minutes.
fn impatient(relay: &mut RelayConfig) {
    relay.retry.message = Backoff {
        first: Duration::from_secs(2),
        max: Duration::from_secs(8),
    };
    relay.retry.next_hop = Backoff {
        first: Duration::from_millis(500),
        max: Duration::from_secs(4),
    };
    relay.timeouts.connect = Duration::from_secs(5);
    relay.timeouts.reply_max = Duration::from_secs(15);
    relay.timeouts.idle = Duration::from_secs(5);
}

pub(crate) fn wall_clock() -> std::time::SystemTime {
    UNIX_EPOCH + turmoil::since_epoch().unwrap_or_default()
}

fn rules(plan: &Plan) -> String {
    let service = |name: &str, class: &str| {
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\nspec: {{ class: {class}, endpoint: 'http://{name}:4037', transport: {{ tls: none }} }}\n---\n"
        )
    };
    let rule = |name: &str, allow: &str, fails: &str| {
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec: {{ at: [content], callout: {{ serviceRef: {{ name: {name} }}, allow: [{allow}], timeout: 4s, onFailure: {fails} }} }}\n---\n"
        )
    };
    [
        service("judge", "analyze"),
        service("adapter", "adapt"),
        rule(
            "judge",
            "reject, quarantine",
            plan.judge_fails.word(plan.bug),
        ),
        rule(
            "adapter",
            "header, body, rewrite",
            plan.adapter_fails.word(plan.bug),
        ),
    ]
    .concat()
}
