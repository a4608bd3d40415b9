//! `opes dev`: a whole pipeline in one process, on loopback, from the same YAML that a cluster takes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_edge::config::{
    Acceptance, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol, TlsConfig,
};
use opes_edge::report::MessageReport;
use opes_edge::{EdgeHandle, Hooks, Metrics, Routing};
use opes_relay::DeliveryEvent;
use opes_rules::RoutingTable;
use opes_telemetry::{Health, Registry};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builtin::Builtins;
use crate::cli::{DevArgs, LINKS_DEFAULT};
use crate::live::{self, LiveRules};
use crate::{demo, edge, line, quarantine, rulesets};

const RULES: &str = include_str!("../dev/rules.yaml");

/// Name and password of the submission user. The listener is on loopback unless told otherwise.
const USER: &str = "dev";

/// How long services that new rules no longer name go on for transactions that began before.
const SUPERSEDED_FOR: Duration = Duration::from_mins(2);

/// Events kept for the printer; more are dropped from the screen, never from the mail.
const EVENTS_MAX: usize = 10_000;

/// What the screen and the demonstration see.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Box<MessageReport>),
    Delivered(DeliveryEvent),
}

/// Runs until Ctrl-C.
pub(crate) async fn run(args: DevArgs) -> Result<ExitCode> {
    let mut rules = args.rules.as_deref().map(LiveRules::new);
    let table = first_table(&args, rules.as_ref())?;
    let (rule_count, revision) = (table.rules.len(), table.revision.clone());
    let gone = opes_callout_server::shutdown_on_signal()?;
    let mut builtins = Builtins::new(&args.state).for_table(&table).await?;
    let config = config(&args)?;
    let system = config.system.clone();
    let routing = Routing::new(table, &builtins.endpoints(), &system)?;
    let registry = Registry::new();
    let metrics = Arc::new(registry.with(Metrics::register));
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let quarantine = quarantine::open(&config, &registry)?;
    let hooks = Hooks {
        quarantine: Some(quarantine.hook()),
        ..hooks(sender)
    };
    let edge = opes_edge::start(config, routing, metrics, hooks).await?;
    let stop = CancellationToken::new();
    let superseded = Superseded::default();
    if let Some(releases) = edge.releases() {
        quarantine.serve(releases, &stop).await?;
    }
    banner(&args, &edge, rule_count, &revision);
    if let Some(file) = builtins.reports() {
        println!("reports   opes report --database {file}");
    }
    edge::serve_admin(args.admin, registry, Health::new()).await?;
    println!("ready");
    if args.demo {
        let maildir = args.next_hop.is_none().then(|| maildir(&args.state));
        let server = address(&edge, "mx")?;
        println!(
            "{}",
            demo::run(server, maildir.as_deref(), &mut events).await?
        );
    }
    if !args.exit {
        let mut pipeline = Pipeline {
            edge: &edge,
            builtins: &mut builtins,
            superseded: &superseded,
            system,
        };
        pipeline
            .run_until_told_to_go(&mut events, rules.as_mut(), &gone)
            .await;
    }
    stop.cancel();
    // Built-in services last: what is told of at the end is told to them.
    edge.drain().await;
    superseded.finish().await;
    builtins.finish().await;
    Ok(ExitCode::SUCCESS)
}

fn first_table(args: &DevArgs, rules: Option<&LiveRules>) -> Result<RoutingTable> {
    if let Some(rules) = rules {
        return rules.load();
    }
    signing_key(&args.state)?;
    let source = rulesets::Source {
        name: "built-in rules".into(),
        text: RULES.replace(LINKS_DEFAULT, &free(args.links)?.to_string()),
    };
    rulesets::compile(&[source]).map_err(|wrong| anyhow::anyhow!(rulesets::listed(&wrong)))
}

/// The address itself, or for port 0 one that nobody has: links are written before anybody listens.
fn free(address: SocketAddr) -> Result<SocketAddr> {
    if address.port() != 0 {
        return Ok(address);
    }
    let listener = std::net::TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} for --links"))?;
    Ok(listener.local_addr()?)
}

/// What the built-in rules sign with, made once per state folder.
fn signing_key(state: &Path) -> Result<()> {
    let folder = state.join("keys");
    let path = folder.join("dkim.key");
    if !path.exists() {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        write_private(&path, &key.serialize_pem())?;
    }
    Ok(())
}

/// The edge of a developer's machine: loopback clients may send to anybody, as the mail ends in the local Maildir or goes where
/// `--next-hop` says.
fn config(args: &DevArgs) -> Result<EdgeConfig> {
    std::fs::create_dir_all(maildir(&args.state)).with_context(|| {
        format!(
            "cannot make {}\n  help: choose a folder that you may write to: --state DIR",
            args.state.display()
        )
    })?;
    let delivery = if args.cut_through {
        Acceptance::CutThrough
    } else {
        Acceptance::Spool
    };
    let tls = certificate(&args.state)?;
    let users = users(&args.state)?;
    let mx = ListenerConfig::new("mx", args.smtp, ListenerProtocol::Smtp);
    let submission =
        ListenerConfig::new("submission", args.submission, ListenerProtocol::Submission);
    let lmtp = ListenerConfig::new("lmtp", args.lmtp, ListenerProtocol::Lmtp);
    let listeners = vec![
        ListenerConfig {
            delivery,
            tls: Some(tls.clone()),
            ..mx
        },
        ListenerConfig {
            delivery,
            tls: Some(tls),
            users: Some(users),
            ..submission
        },
        ListenerConfig { delivery, ..lmtp },
    ];
    let loopback = ["127.0.0.0/8", "::1/128"].map(str::parse);
    Ok(EdgeConfig {
        listeners,
        relay_networks: loopback.into_iter().collect::<Result<_, _>>()?,
        delivery: DeliveryConfig {
            maildir: args.next_hop.is_none().then(|| maildir(&args.state)),
            next_hop: args.next_hop.clone(),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", args.state.join("spool"))
    })
}

fn maildir(state: &Path) -> PathBuf {
    state.join("mail")
}

/// A self-signed pair, made once per state folder.
fn certificate(state: &Path) -> Result<TlsConfig> {
    let pair = TlsConfig {
        certificate: state.join("tls/certificate.pem"),
        key: state.join("tls/key.pem"),
        implicit: false,
    };
    if !pair.certificate.exists() || !pair.key.exists() {
        std::fs::create_dir_all(state.join("tls"))?;
        let made =
            rcgen::generate_simple_self_signed(["localhost".into(), "mail.example.com".into()])?;
        write_private(&pair.key, &made.signing_key.serialize_pem())?;
        std::fs::write(&pair.certificate, made.cert.pem())?;
    }
    Ok(pair)
}

/// Readable by its owner alone from its first octet on.
fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

fn users(state: &Path) -> Result<PathBuf> {
    let path = state.join("users");
    if !path.exists() {
        std::fs::write(
            &path,
            format!("{USER}:{}\n", opes_edge::password_hash(USER)?),
        )?;
    }
    Ok(path)
}

fn hooks(events: mpsc::Sender<Event>) -> Hooks {
    let messages = events.clone();
    Hooks {
        // A full channel means that nobody looks at the screen fast enough; mail must not wait for it.
        reporter: Some(Arc::new(move |report| {
            let _ = messages.try_send(Event::Message(Box::new(report.clone())));
        })),
        deliveries: Some(Arc::new(move |event| {
            let _ = events.try_send(Event::Delivered(event.clone()));
        })),
        ..Hooks::default()
    }
}

fn address(edge: &EdgeHandle, name: &str) -> Result<SocketAddr> {
    let found = edge
        .addresses()
        .iter()
        .find(|(listener, _)| listener == name);
    found
        .map(|(_, address)| *address)
        .with_context(|| format!("no listener `{name}`"))
}

fn banner(args: &DevArgs, edge: &EdgeHandle, rules: usize, revision: &str) {
    println!("opes dev: a mail pipeline on loopback\n");
    for (name, address) in edge.addresses() {
        println!("listening {name} smtp {address}");
    }
    let whence = args
        .rules
        .as_ref()
        .map_or("built in".into(), |path| path.display().to_string());
    let whither = match &args.next_hop {
        Some(hop) => format!("relayed to {hop}"),
        None => format!("delivered to {}", maildir(&args.state).display()),
    };
    println!("rules     {rules} ({whence}), revision {revision}");
    println!(
        "mail      {whither}, spool in {}",
        args.state.join("spool").display()
    );
    println!("user      `{USER}`, password `{USER}` (submission, after STARTTLS)");
    println!(
        "try       swaks --server {} --from steve@example.org --to paul@example.com",
        address(edge, "mx").unwrap_or(args.smtp)
    );
}

/// What runs while the rules are edited.
struct Pipeline<'a> {
    edge: &'a EdgeHandle,
    builtins: &'a mut Builtins,
    superseded: &'a Superseded,
    system: String,
}

/// Services that the rules no longer name, for transactions that began before.
#[derive(Default)]
struct Superseded {
    tasks: TaskTracker,
    ending: CancellationToken,
}

// === impl Superseded ===

impl Superseded {
    fn keep(&self, before: Builtins) {
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(SUPERSEDED_FOR) => drop(before),
                () = ending.cancelled() => before.finish().await,
            }
        });
    }

    /// What they still have to write is written.
    async fn finish(self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

// === impl Pipeline ===

impl Pipeline<'_> {
    async fn run_until_told_to_go(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        mut rules: Option<&mut LiveRules>,
        gone: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = gone.cancelled() => return,
                event = events.recv() => match event {
                    Some(Event::Message(report)) => println!("{}", line::message(&report)),
                    Some(Event::Delivered(event)) => println!("{}", line::delivery(&event)),
                    None => return,
                },
                table = live::changed(rules.as_deref_mut()) => println!("{}", self.reload(table).await),
            }
        }
    }

    /// Puts the table in force, if it can be; what to say about it.
    async fn reload(&mut self, table: Result<RoutingTable>) -> String {
        match self.replace(table).await {
            Ok(revision) => format!("rules reloaded, revision {revision}"),
            Err(error) => format!("rules refused, the last good ones stay in force: {error:#}"),
        }
    }

    async fn replace(&mut self, table: Result<RoutingTable>) -> Result<String> {
        let table = table?;
        let revision = table.revision.clone();
        let builtins = self.builtins.for_table(&table).await?;
        let routing = Routing::new(table, &builtins.endpoints(), &self.system)?;
        self.edge.replace_routing(routing);
        let before = std::mem::replace(self.builtins, builtins);
        // Transactions that run keep the rules, and so the services, that they began with.
        self.superseded.keep(before);
        Ok(revision)
    }
}
