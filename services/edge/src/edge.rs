//! One edge: what its sessions share, its listeners, start and drain.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use opes_content::{Budget, Limits, View};
use opes_host::Host;
use opes_relay::{OnEvent, Relay, RelayConfig, ReportResult, Reports, Route, Senders, Tls};
use opes_smtp::reply::Reply;
use opes_smtp::server;
use opes_spool::{Spool, SpoolConfig};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Users;
use crate::config::{Acceptance, BounceSenders, EdgeConfig, ListenerConfig, ListenerProtocol};
use crate::dialog::Dialog;
use crate::engine::Advice;
use crate::fates::Fates;
use crate::incidents::Incidents;
use crate::metrics::{ByBounce, Metrics};
use crate::notify::{self, Notifier};
use crate::quarantine::{self, Handover, Quarantine, Releases};
use crate::report::{self, MessageReport, Reporter};
use crate::routing::{Endpoints, Routing};
use crate::splits::Splits;
use crate::trace::Tracer;
use crate::{listener, tls};

/// How often an edge that only empties its spool looks at what is left.
const LEFT_INTERVAL: Duration = Duration::from_millis(200);

/// What the sessions of one edge share.
pub(crate) struct Edge {
    pub(crate) config: EdgeConfig,
    pub(crate) host: Host,
    pub(crate) routing: Arc<ArcSwap<Routing>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) budget: Budget,
    pub(crate) content_limits: Arc<Limits>,
    pub(crate) spool: Spool,
    pub(crate) relay: Relay,
    pub(crate) quarantine: Arc<Handover>,
    /// Set when no new work is to be taken.
    pub(crate) draining: CancellationToken,
    pub(crate) session_permits: Arc<Semaphore>,
    pub(crate) sessions: TaskTracker,
    pub(crate) splits: Splits,
    pub(crate) notifier: Notifier,
    pub(crate) incidents: Incidents,
    reporter: Option<Reporter>,
    /// Microseconds since 1970: with the second alone, a quick restart would give ids again, and quarantine files are named after them.
    started: u128,
    session_count: AtomicU64,
}

/// What the sessions of one listener share.
pub(crate) struct Listener {
    pub(crate) config: ListenerConfig,
    pub(crate) name: Arc<str>,
    pub(crate) smtp: Arc<server::Config>,
    pub(crate) tls: Option<tokio_rustls::TlsAcceptor>,
    pub(crate) users: Option<Users>,
    pub(crate) client_timeout: Duration,
}

/// A running edge.
pub struct EdgeHandle {
    edge: Arc<Edge>,
    addresses: Vec<(String, SocketAddr)>,
    releases: Option<Releases>,
}

/// What an edge holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Client sessions.
    pub sessions: usize,
    /// Octets of mail data in memory.
    pub memory_octets: u64,
    /// Messages in the spool with recipients that are not settled.
    pub messages: u64,
    /// Messages, or parts of them that go separate ways, in the hands of the relay.
    pub deliveries: usize,
}

/// What a drain had to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Sessions that were cut in the middle of a transaction.
    pub sessions_cut: usize,
    /// Messages in the spool with recipients that are not settled.
    pub messages: u64,
    /// Held messages that are not in the quarantine store.
    pub held: u64,
}

/// Changes the routing of a running edge, also while it drains. Clones share it.
#[derive(Clone)]
pub struct LiveRouting(Weak<Edge>);

/// Changes the settings of the relay before it starts.
pub type ChangeRelay = Box<dyn FnOnce(&mut RelayConfig) + Send>;

/// Hooks of the program that embeds an edge.
#[derive(Default)]
pub struct Hooks {
    /// Called for each message decided on.
    pub reporter: Option<Reporter>,
    /// Called for each delivery attempt's result.
    pub deliveries: Option<OnEvent>,
    /// The store of held messages. None: they stay in `quarantine` in the spool folder.
    pub quarantine: Option<Arc<dyn Quarantine>>,
    /// Network, clock and randomness to work with; the system's by default.
    pub host: Host,
    /// How the spool uses its disk.
    pub spool: SpoolConfig,
    /// The last word on settings of the relay that the configuration has no keys for.
    pub relay: Option<ChangeRelay>,
}

/// Starts an edge: spool recovered, listeners bound, mail flowing.
pub async fn start(
    config: EdgeConfig,
    routing: Routing,
    metrics: Arc<Metrics>,
    hooks: Hooks,
) -> Result<EdgeHandle> {
    let mut bound = Vec::new();
    for listener in &config.listeners {
        bound.push((
            bind(&hooks.host, listener).await?,
            Arc::new(shared(&config, listener)?),
        ));
    }
    let incidents = Incidents::start(&config.incidents, hooks.host.clock.clone(), &metrics).await?;
    let (spool, recovered) = Spool::open(&config.spool, hooks.spool).context("spool")?;
    if !recovered.is_empty() {
        tracing::info!(messages = recovered.len(), "recovered from the spool");
    }
    let handover = Handover::open(
        config.spool.join("quarantine"),
        spool.files(),
        metrics.quarantine.clone(),
    )?;
    // Released messages wait until the store has confirmed them.
    let (withheld, recovered): (Vec<_>, Vec<_>) = recovered
        .into_iter()
        .partition(|queued| hooks.quarantine.is_some() && !queued.envelope.release.is_empty());
    metrics.show(routing.clients());
    let routing = Arc::new(ArcSwap::from_pointee(routing));
    let fates = Fates::new(&routing, &metrics, &hooks.host.random);
    let on_event = fates.and_then(hooks.deliveries);
    let mut relay = relay_config(&config, on_event, &hooks.host, &metrics)?;
    if let Some(change) = hooks.relay {
        change(&mut relay);
    }
    let relay = Relay::start(relay, spool.clone(), recovered);
    let edge = Arc::new(Edge {
        routing,
        metrics,
        tracer: Arc::new(
            Tracer::new(&config).with_context(|| format!("system `{}`", config.system))?,
        ),
        budget: Budget::new(config.memory_budget),
        content_limits: Arc::new(content_limits(&config)?),
        spool,
        relay,
        quarantine: Arc::new(handover),
        draining: CancellationToken::new(),
        session_permits: Arc::new(Semaphore::new(config.sessions_max)),
        sessions: TaskTracker::new(),
        splits: Splits::default(),
        notifier: Notifier::new(&config.notifications),
        incidents,
        reporter: hooks.reporter,
        started: hooks.host.clock.since_epoch().as_micros(),
        session_count: AtomicU64::new(0),
        host: hooks.host,
        config,
    });
    let releases = match hooks.quarantine {
        Some(store) => Some(quarantine::start(&edge, store, withheld)?),
        None => None,
    };
    let mut addresses = Vec::new();
    for (socket, shared) in bound {
        addresses.push((shared.config.name.clone(), socket.local_addr()?));
        tokio::spawn(listener::accept(Arc::clone(&edge), shared, socket));
    }
    Ok(EdgeHandle {
        edge,
        addresses,
        releases,
    })
}

impl EdgeHandle {
    /// Listener names with the addresses they are bound to.
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// What releases held messages, if there is a store of them.
    pub fn releases(&self) -> Option<&Releases> {
        self.releases.as_ref()
    }

    /// Puts another revision in force for transactions that begin from now on. Services that have not changed keep their
    /// connections.
    pub fn replace_routing(&self, routing: Routing) {
        self.edge.replace_routing(routing);
    }

    /// For who goes on changing the routing while the edge drains.
    pub fn live_routing(&self) -> LiveRouting {
        LiveRouting(Arc::downgrade(&self.edge))
    }

    /// What the edge holds at this moment. All zero when nothing is under way.
    pub fn load(&self) -> Load {
        let edge = &self.edge;
        Load {
            sessions: edge.sessions.len(),
            memory_octets: edge.budget.used(),
            messages: edge.spool.stats().live_messages,
            deliveries: edge.relay.backlog(),
        }
    }

    /// Why no mail can be accepted just now, if so.
    pub fn unhealthy_reason(&self) -> Option<String> {
        self.edge.unhealthy_reason().map(str::to_owned)
    }

    /// Delivers what is in the spool, for at most `patience` or until it is told to go, then drains. For an edge without listeners.
    pub async fn empty(self, patience: Duration, gone: &CancellationToken) -> Drained {
        let edge = Arc::clone(&self.edge);
        let emptied = async {
            while edge.left() != Drained::default() {
                tokio::time::sleep(LEFT_INTERVAL).await;
            }
        };
        // Whether that was enough is seen in what is left.
        let emptied = gone.run_until_cancelled(emptied);
        let _elapsed = tokio::time::timeout(patience, emptied).await;
        self.drain().await
    }

    /// Takes no new work, lets running transactions and deliveries finish within `drainTimeout`. What is left stays in the spool.
    ///
    /// First sessions, which still make deliveries and events; then deliveries, which make events too; then the observers that are told
    /// of them; last what services reported. Callout services must live until it is over.
    pub async fn drain(self) -> Drained {
        self.edge.draining.cancel();
        self.edge.sessions.close();
        let deadline = self.edge.config.drain_timeout;
        let mut sessions_cut = 0;
        if tokio::time::timeout(deadline, self.edge.sessions.wait())
            .await
            .is_err()
        {
            sessions_cut = self.edge.sessions.len();
            tracing::warn!(
                sessions_cut,
                "sessions still open at the end of drainTimeout are cut"
            );
        }
        self.edge.relay.shutdown(deadline).await;
        let observers = &self.edge.metrics.observers;
        observers.close();
        if tokio::time::timeout(deadline, observers.wait())
            .await
            .is_err()
        {
            tracing::warn!("observers still running at the end of drainTimeout are cut");
        }
        if tokio::time::timeout(deadline, self.edge.incidents.finish())
            .await
            .is_err()
        {
            tracing::warn!(
                "incidents still waiting for their file or webhook at the end of drainTimeout are in the log only"
            );
        }
        Drained {
            sessions_cut,
            ..self.edge.left()
        }
    }
}

// === impl LiveRouting ===

impl LiveRouting {
    /// As [`EdgeHandle::replace_routing`]; without effect when the edge is gone.
    pub fn replace(&self, routing: Routing) {
        if let Some(edge) = self.0.upgrade() {
            edge.replace_routing(routing);
        }
    }

    /// Tells the services that OPES runs itself where they are now, for transactions that run as for those to come. Services that
    /// `endpoints` does not name have no instances. Rules stay as they are.
    pub fn set_endpoints(&self, endpoints: &Endpoints) {
        if let Some(edge) = self.0.upgrade() {
            edge.routing.load().set_endpoints(endpoints);
        }
    }
}

impl Edge {
    /// Unique in this edge: start time and a counter.
    pub(crate) fn next_session_id(&self) -> String {
        let count = self.session_count.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{count:x}", self.started)
    }

    fn replace_routing(&self, routing: Routing) {
        let routing = routing.with_clients_of(&self.routing.load());
        self.metrics.show(routing.clients());
        self.routing.store(Arc::new(routing));
    }

    fn left(&self) -> Drained {
        Drained {
            sessions_cut: 0,
            messages: self.spool.stats().live_messages,
            held: u64::try_from(self.metrics.quarantine.waiting.get()).unwrap_or(0),
        }
    }

    fn unhealthy_reason(&self) -> Option<&'static str> {
        self.spool
            .unhealthy_reason()
            .or_else(|| self.relay.unhealthy_reason())
    }

    /// The refusal of a transaction whose message could not be stored anyway, or would make a queue longer that is too long already.
    pub(crate) fn cannot_take_mail(&self, listener: &Listener) -> Option<Reply> {
        if listener.config.delivery == Acceptance::CutThrough {
            return None;
        }
        let reason = self.unhealthy_reason()?;
        tracing::warn!(listener = %listener.name, reason, "no mail is taken for now");
        Some(Reply::INSUFFICIENT_STORAGE)
    }

    /// Passes on what services want people to be told. `about`: their message, where there is one.
    pub(crate) async fn advise(
        self: &Arc<Self>,
        dialog: &Dialog,
        about: Option<&View>,
        refused: bool,
        advice: Vec<Advice>,
    ) {
        notify::advise(self, dialog, about, refused, advice).await;
    }

    pub(crate) fn report(&self, report: &MessageReport) {
        report::log(report);
        if let Some(reporter) = &self.reporter {
            reporter(report);
        }
    }

    /// May this client send to any domain?
    pub(crate) fn may_relay(&self, client: IpAddr, authenticated: bool) -> bool {
        authenticated
            || self
                .config
                .relay_networks
                .iter()
                .any(|network| network.contains(&client))
    }

    /// Do we take mail for this domain from anybody?
    pub(crate) fn is_our_domain(&self, domain: &str) -> bool {
        self.config
            .domains
            .iter()
            .any(|ours| ours.eq_ignore_ascii_case(domain))
    }
}

async fn bind(host: &Host, listener: &ListenerConfig) -> Result<opes_host::Listener> {
    host.network.bind(listener.address).await.with_context(|| {
        format!(
            "listener `{}` cannot listen on {}\n  help: another program has this port, or the address is not this machine's; choose another `address`",
            listener.name, listener.address
        )
    })
}

fn shared(config: &EdgeConfig, listener: &ListenerConfig) -> Result<Listener> {
    let context = || format!("listener `{}`", listener.name);
    let tls = match &listener.tls {
        Some(files) => Some(tls::acceptor(files).with_context(context)?),
        None => None,
    };
    let users = match &listener.users {
        Some(path) => Some(Users::load(path).with_context(context)?),
        None => None,
    };
    Ok(Listener {
        name: listener.name.as_str().into(),
        smtp: Arc::new(smtp_config(
            config,
            listener,
            tls.is_some(),
            users.is_some(),
        )),
        tls,
        users,
        client_timeout: listener.client_timeout,
        config: listener.clone(),
    })
}

fn smtp_config(
    config: &EdgeConfig,
    listener: &ListenerConfig,
    tls: bool,
    users: bool,
) -> server::Config {
    let submission = listener.protocol == ListenerProtocol::Submission;
    let protocol = match listener.protocol {
        ListenerProtocol::Smtp => server::Protocol::Smtp,
        ListenerProtocol::Submission => server::Protocol::Submission,
        ListenerProtocol::Lmtp => server::Protocol::Lmtp,
    };
    let one_by_one = listener.delivery == Acceptance::CutThrough
        && config.delivery.lmtp
        && listener.protocol != ListenerProtocol::Lmtp;
    server::Config {
        size_max: listener.size_max,
        recipients_max: if one_by_one {
            1
        } else {
            listener.recipients_max
        },
        tls_available: tls,
        tls_required: listener.require_tls,
        auth: if users {
            server::AuthMode::TlsOnly
        } else {
            server::AuthMode::Off
        },
        auth_required: submission,
        prdr: listener.prdr,
        smtputf8: listener.smtputf8,
        chunking: listener.chunking,
        // Cut-through keeps nothing, so it could not report what the next hop does not (RFC 3461 §5.2.2).
        dsn: listener.dsn && listener.delivery == Acceptance::Spool,
        errors_max: listener.errors_max,
        idle_commands_max: listener.idle_commands_max,
        opes_bypass: config.bypass.is_some(),
        ..server::Config::new(&config.hostname, protocol)
    }
}

fn content_limits(config: &EdgeConfig) -> Result<Limits> {
    let dir = config.spool.join("incoming");
    std::fs::create_dir_all(&dir).with_context(|| {
        format!(
            "cannot make {}\n  help: the user that runs the edge must own the spool folder",
            dir.display()
        )
    })?;
    let memory_max = usize::try_from(config.memory_per_message).unwrap_or(usize::MAX);
    // Each listener's own `sizeMax` is kept in the dialog.
    Ok(Limits {
        memory_max,
        size_max: u64::MAX,
        ..Limits::in_dir(dir)
    })
}

fn relay_config(
    config: &EdgeConfig,
    on_event: OnEvent,
    host: &Host,
    metrics: &Arc<Metrics>,
) -> Result<RelayConfig> {
    let route = match (&config.delivery.maildir, &config.delivery.next_hop) {
        (Some(dir), _) => {
            // The relay would wait for it, as for a volume that is mounted late; at the start it is more likely a typing error.
            anyhow::ensure!(
                dir.is_dir(),
                "delivery.maildir: {} is not a folder\n  help: create it, or mount the volume it belongs to",
                dir.display()
            );
            Route::Maildir { dir: dir.clone() }
        }
        (None, Some(hop)) => next_hop(hop, config.delivery.lmtp)?,
        (None, None) => anyhow::bail!("delivery names neither maildir nor nextHop"),
    };
    let connections_max = config.delivery.connections_max;
    Ok(RelayConfig {
        connections_max,
        host: host.clone(),
        reports: reports(config, metrics),
        ..RelayConfig::new(route, &config.hostname, on_event)
    })
}

fn reports(config: &EdgeConfig, metrics: &Arc<Metrics>) -> Reports {
    let metrics = Arc::clone(metrics);
    Reports {
        senders: match config.bounces.senders {
            BounceSenders::All => Senders::All,
            BounceSenders::Known => Senders::Known {
                domains: config.domains.clone(),
            },
            BounceSenders::None => Senders::Nobody,
        },
        postmaster: config.bounces.postmaster.clone(),
        system: config.system.clone(),
        on_result: Arc::new(move |result: ReportResult| {
            let result = result.into();
            metrics.bounces.get_or_create(&ByBounce { result }).inc();
        }),
    }
}

fn next_hop(text: &str, lmtp: bool) -> Result<Route> {
    let (host, port) = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .with_context(|| {
            format!("next hop `{text}`: write HOST:PORT, for example mx.example.com:25")
        })?;
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(Route::NextHop {
        host,
        port,
        lmtp,
        tls: Tls::default(),
    })
}
