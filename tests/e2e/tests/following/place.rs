//! Everything in one folder: certificates, configuration, spool, last good table. And what stands around the edge.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{
    Answer, Description, Listener, Message, MutualFiles, ServerConfig, ServerTls, Service, serve,
};
use opes_e2e::operator::{Authority, NAME, Operator};
use opes_e2e::sink::Sink;
use opes_e2e::smtp::Dialog;
use opes_e2e::{DEADLINE, Daemon, opes_program};
use opes_proto::routing::{Endpoints, Pool, Table};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) const FROM: &str = "steve@example.org";
pub(crate) const BOB: &str = "bob@example.com";

/// What the certificates of a service's instances are for.
const SERVICE_NAME: &str = "opes-marker.default.svc";

/// The ends that have files, and the names in their certificates.
const ENDS: [(&str, &str); 3] = [
    ("edge", "edge.example.com"),
    ("service", SERVICE_NAME),
    ("operator", NAME),
];

/// See the module.
pub(crate) struct Place {
    folder: Arc<TempDir>,
    authority: Arc<Authority>,
    next_hop: String,
    /// Seconds between SIGTERM and the end of the listeners.
    pub(crate) drain_delay: u64,
    pub(crate) sink: Arc<Sink>,
}

/// A running edge.
pub(crate) struct Edge {
    pub(crate) daemon: Daemon,
}

/// An instance of the service: puts its name into each message.
pub(crate) struct Marker {
    url: String,
    marked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    stop: CancellationToken,
    tls: ServerTls,
}

struct Marks {
    name: String,
    marked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Service for Marks {
    fn describe(&self) -> Description {
        Description::new("marker").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        message.read_all(1 << 20).await?;
        // Passed on at once.
        drop(self.gate.acquire().await?);
        self.marked.fetch_add(1, Ordering::Relaxed);
        Ok(Answer::accept().add_header("X-Mark", self.name.clone()))
    }
}

impl Place {
    pub(crate) async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new()?;
        for (end, name) in ENDS {
            authority.issue(folder.path(), end, name, &[&authority])?;
        }
        let sink = Sink::start().await?;
        Ok(Self {
            next_hop: sink.address.to_string(),
            drain_delay: 1,
            folder: Arc::new(folder),
            authority: Arc::new(authority),
            sink: Arc::new(sink),
        })
    }

    pub(crate) fn with_next_hop(&self, next_hop: &str) -> Self {
        Self {
            folder: Arc::clone(&self.folder),
            authority: Arc::clone(&self.authority),
            next_hop: next_hop.to_owned(),
            drain_delay: self.drain_delay,
            sink: Arc::clone(&self.sink),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self, end: &str) -> MutualFiles {
        MutualFiles {
            certificate: self.path(&format!("{end}.crt")),
            key: self.path(&format!("{end}.key")),
            ca: self.path(&format!("{end}.ca")),
        }
    }

    pub(crate) fn operator(&self) -> Result<Operator> {
        Operator::start(self.files("operator"))
    }

    // ---- the edge ------------------------------------------------------------------------------------------------

    fn configure(&self, operator: &str) -> Result<PathBuf> {
        let at = self.folder.path().display();
        let config = format!(
            "hostname: mail.example.com\nspool: {at}/spool\ndomains: [example.com]\nadmin: '127.0.0.1:0'\n\
             callouts: {{ certificate: {at}/edge.crt, key: {at}/edge.key, ca: {at}/edge.ca }}\n\
             routing: {{ operator: '{operator}', cache: {at}/cache }}\ndrainDelay: {}s\ndrainTimeout: 60s\n\
             delivery: {{ nextHop: '{}' }}\nlisteners:\n  - {{ name: mx, address: '127.0.0.1:0' }}\n",
            self.drain_delay, self.next_hop
        );
        let path = self.path("edge.yaml");
        fs::write(&path, config)?;
        Ok(path)
    }

    fn command(&self, operator: &str) -> Result<Command> {
        let config = self.configure(operator)?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("edge.log"))?;
        let mut command = Command::new(opes_program());
        command
            .args(["--log", "info", "edge", "--config"])
            .arg(config);
        command.env("POD_NAME", "edge-0").stderr(log);
        Ok(command)
    }

    /// As soon as it can be asked how it is.
    pub(crate) fn edge(&self, operator: &str) -> Result<Edge> {
        let daemon = Daemon::start(self.command(operator)?, |line| {
            line.starts_with("listening admin")
        })?;
        Ok(Edge { daemon })
    }

    /// As soon as it takes mail.
    pub(crate) fn ready_edge(&self, operator: &str) -> Result<Edge> {
        let daemon = Daemon::start(self.command(operator)?, |line| line == "ready");
        let daemon = daemon
            .with_context(|| fs::read_to_string(self.path("edge.log")).unwrap_or_default())?;
        Ok(Edge { daemon })
    }

    /// `opes edge --drain`: how it ended, and what it said.
    pub(crate) fn empty(&self, next_hop: &str, patience: &str) -> Result<(ExitStatus, String)> {
        let mut command = self
            .with_next_hop(next_hop)
            .command("https://127.0.0.1:9")?;
        let output = command
            .args(["--drain", "--drain-timeout", patience])
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status, said))
    }

    // ---- services ------------------------------------------------------------------------------------------------

    pub(crate) async fn marker(&self, name: &str) -> Result<Marker> {
        let tls = ServerTls::server(self.files("service"))?;
        let listener = Listener::bind_tls("127.0.0.1:0", tls.clone()).await?;
        let marker = Marker {
            url: format!("https://{}", listener.address()),
            marked: Arc::default(),
            gate: Arc::new(Semaphore::new(1)),
            stop: CancellationToken::new(),
            tls,
        };
        let service = Marks {
            name: name.to_owned(),
            marked: Arc::clone(&marker.marked),
            gate: Arc::clone(&marker.gate),
        };
        let stop = marker.stop.clone();
        tokio::spawn(serve(
            Arc::new(service),
            listener,
            ServerConfig::default(),
            stop,
        ));
        Ok(marker)
    }

    // ---- certificates --------------------------------------------------------------------------------------------

    /// 0: both authorities are believed; 1: certificates are from the next one; 2: it alone is believed.
    pub(crate) fn rotate(&self, next: &Authority, step: u32) -> Result<()> {
        let (issuer, trusted) = match step {
            0 => (self.authority.as_ref(), vec![self.authority.as_ref(), next]),
            1 => (next, vec![self.authority.as_ref(), next]),
            _ => (next, vec![next]),
        };
        for (end, name) in ENDS {
            issuer.issue(self.folder.path(), end, name, &trusted)?;
        }
        Ok(())
    }

    /// How often an edge has taken files anew.
    pub(crate) fn taken(&self) -> usize {
        let log = fs::read_to_string(self.path("edge.log")).unwrap_or_default();
        log.matches("file read again").count()
    }

    // ---- arrivals ------------------------------------------------------------------------------------------------

    /// What [`stamp`] put into each message.
    pub(crate) fn stamps(&self) -> Result<Vec<String>> {
        let arrivals = self.sink.arrivals().into_iter();
        arrivals
            .map(|arrival| {
                let content = String::from_utf8(arrival.content)?;
                field(&content, "X-Rules").context("no stamp")
            })
            .collect()
    }

    pub(crate) fn stamp_of(&self, subject: &str) -> Result<String> {
        for arrival in self.sink.arrivals() {
            let content = String::from_utf8(arrival.content)?;
            if field(&content, "Subject").as_deref() == Some(subject) {
                return field(&content, "X-Rules").context("no stamp");
            }
        }
        anyhow::bail!("{subject} has not arrived")
    }
}

fn field(content: &str, name: &str) -> Option<String> {
    let start = format!("{name}: ");
    let mut lines = content.lines();
    lines
        .find_map(|line| line.strip_prefix(&start))
        .map(str::to_owned)
}

// ---- tables ------------------------------------------------------------------------------------------------------

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"opes.dev/v1alpha1","kind":"{kind}","metadata":{{"name":"{name}","namespace":"default"}},"spec":{spec}}}"#
    )
}

/// The service and the rule that calls it.
pub(crate) fn marked() -> Vec<String> {
    marked_within("20s")
}

/// The same, with the time within which there has to be a connection to an instance.
pub(crate) fn marked_within(connect_timeout: &str) -> Vec<String> {
    let spec = format!(
        r#"{{"class":"adapt","builtin":{{"name":"normalizer"}},"limits":{{"connectTimeout":"{connect_timeout}"}}}}"#
    );
    vec![
        object("CalloutService", "marker", &spec),
        object(
            "OpesRule",
            "marker",
            r#"{"at":["content"],"callout":{"serviceRef":{"name":"marker"},"wants":{"content":"all"},"allow":["header"],"timeout":"60s","onFailure":"tempfail"}}"#,
        ),
    ]
}

/// Refuses `nobody@example.com`, and says this.
pub(crate) fn reject(text: &str) -> Vec<String> {
    let spec = format!(
        r#"{{"at":["rcptTo"],"match":{{"cel":"rcpt == 'nobody@example.com'"}},"action":{{"reject":{{"text":"{text}"}}}}}}"#
    );
    vec![object("OpesRule", "reject", &spec)]
}

/// A header field that says this.
pub(crate) fn stamp(text: &str) -> Vec<String> {
    let spec = format!(
        r#"{{"at":["content"],"action":{{"addHeader":{{"name":"X-Rules","value":"{text}"}}}}}}"#
    );
    vec![object("OpesRule", "stamp", &spec)]
}

/// With the revision that an operator would compute.
pub(crate) fn table(objects: &[Vec<String>], markers: &[&Marker]) -> Result<Table> {
    let objects = objects.concat();
    let mut parsed = Vec::new();
    for text in &objects {
        let (found, wrong) = opes_rules::parse("test", text);
        ensure!(wrong.is_empty(), "{wrong:?}");
        parsed.extend(found);
    }
    let compiled = opes_rules::compile(parsed);
    let compiled = compiled.map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
    Ok(Table {
        revision: compiled.revision,
        objects,
        endpoints: Some(pools(markers)),
    })
}

pub(crate) fn pools(markers: &[&Marker]) -> Endpoints {
    Endpoints {
        pools: vec![Pool {
            service: "default/marker".into(),
            endpoints: markers.iter().map(|marker| marker.url.clone()).collect(),
            server_name: SERVICE_NAME.into(),
        }],
    }
}

// === impl Marker ===

impl Marker {
    /// Messages so far.
    pub(crate) fn marked(&self) -> usize {
        self.marked.load(Ordering::Relaxed)
    }

    /// Cancelled when other certificates than those of now are in force.
    pub(crate) fn renewed(&self) -> CancellationToken {
        self.tls.current().1
    }

    /// Answers nobody from now on.
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(1);
    }

    /// Answers again.
    pub(crate) fn release(&self) {
        self.gate.add_permits(1);
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

// === impl Edge ===

impl Edge {
    pub(crate) fn address(&self) -> SocketAddr {
        self.daemon.address("mx")
    }

    pub(crate) async fn dialog(&self) -> Result<Dialog> {
        Dialog::open(self.address(), false).await
    }

    pub(crate) fn terminate(self) -> Result<ExitStatus> {
        self.daemon.terminate()
    }

    /// Whether the answer is 200, and its text.
    pub(crate) async fn get(&self, path: &str) -> Result<(bool, String)> {
        let mut stream = TcpStream::connect(self.daemon.address("admin")).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok((answer.starts_with("HTTP/1.1 200"), answer))
    }

    /// The value of a metric without labels.
    pub(crate) async fn figure(&self, name: &str) -> Result<f64> {
        let metrics = self.get("/metrics").await?.1;
        let start = format!("{name} ");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(&start));
        Ok(value.with_context(|| format!("no {name}"))?.parse()?)
    }

    pub(crate) async fn wait_for_figure(
        &self,
        name: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let value = self.figure(name).await?;
            if holds(value) {
                return Ok(());
            }
            ensure!(began.elapsed() < DEADLINE, "{name} is {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn wait_until_not_ready(&self, why: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let (ready, said) = self.get("/readyz").await?;
            if !ready && said.contains(why) {
                return Ok(());
            }
            ensure!(began.elapsed() < DEADLINE, "{said}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
