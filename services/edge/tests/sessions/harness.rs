//! An edge with a folder of its own, a callout service that does what the rule's parameters say, and a client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opes_callout_server::{
    Answer, Command, CommandAnswer, Description, Listener, Message, ServerConfig, Service, serve,
};
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_edge::{EdgeHandle, Endpoints, Hooks, Metrics, Routing};
use opes_proto::smtp::RecipientChange;
use opes_proto::smtp::notification::To;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const SERVICES: &str = "
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: judge }
spec: { class: analyze, builtin: { name: probe } }
---
apiVersion: opes.dev/v1alpha1
kind: CalloutService
metadata: { name: editor }
spec: { class: adapt, builtin: { name: probe } }
";

struct Probe {
    /// Messages that it has begun to look at.
    begun: watch::Sender<usize>,
}

impl Service for Probe {
    fn describe(&self) -> Description {
        Description::new("probe").whole_content()
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        let parameters: serde_json::Value = serde_json::from_str(&command.parameters.json)?;
        let line = String::from_utf8_lossy(&command.line).into_owned();
        Ok(match parameters["do"].as_str() {
            Some("route") => CommandAnswer::proceed().next_hop("192.0.2.25", 25),
            Some("break") => {
                CommandAnswer::rewrite("RCPT TO:<no address").next_hop("192.0.2.25", 25)
            }
            Some("rename") => CommandAnswer::rewrite(line.replace("alias.example", "example.org")),
            Some("score") => CommandAnswer::proceed().annotate("spam.score", "9"),
            Some("sleep") => {
                tokio::time::sleep(PATIENCE).await;
                CommandAnswer::proceed()
            }
            Some("sender") => CommandAnswer::proceed().mail_from("other@example.net"),
            Some("address") => {
                CommandAnswer::proceed().recipient(renamed("alias@example.org", "real@example.org"))
            }
            other => crate::probe::command(other.unwrap_or_default())?,
        })
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        self.begun.send_modify(|begun| *begun += 1);
        let parameters: serde_json::Value = serde_json::from_str(&message.parameters().json)?;
        Ok(match parameters["do"].as_str() {
            Some("score") => Answer::accept().annotate("spam.score", "9"),
            Some("splice-end") => {
                let content = message.read_all(64 << 20).await?;
                Answer::accept().splice(content.len() as u64 - 2, 0, "!")
            }
            Some("header") => Answer::accept().add_header("X-Probe", "seen"),
            Some("splice-outside") => {
                Answer::accept()
                    .add_header("X-Probe", "seen")
                    .splice(1 << 20, 1, "!")
            }
            Some("splice-overlap") => Answer::accept()
                .add_header("X-Probe", "seen")
                .splice(0, 5, "a")
                .splice(4, 5, "b"),
            Some("sleep") => {
                tokio::time::sleep(PATIENCE).await;
                Answer::accept()
            }
            Some("rename-content") => {
                Answer::accept().recipient(renamed("joe@example.org", "joe@fr.example.org"))
            }
            Some("tell") => tell(Answer::accept()),
            Some("tell-and-reject") => tell(Answer::reject(550, "5.7.1", "no")),
            Some("apart") => Answer::accept()
                .for_recipients(["reject@example.org"], Answer::reject(550, "5.7.1", "no"))
                .for_recipients(
                    ["quarantine@example.org"],
                    Answer::accept().quarantine("look"),
                )
                .for_recipients(
                    ["adapt@example.org"],
                    Answer::accept().add_header("X-Probe", "seen"),
                ),
            other => crate::probe::message(other.unwrap_or_default(), &parameters, message).await?,
        })
    }
}

fn tell(answer: Answer) -> Answer {
    let all = [To::Sender, To::Recipients, To::Administrator];
    let told = all.into_iter().fold(answer, |answer, to| {
        answer.notify(to, "Virus found", "eicar was removed")
    });
    told.incident("{\"virus\": \"eicar\"}")
}

fn renamed(original: &str, address: &str) -> RecipientChange {
    RecipientChange {
        original: original.into(),
        address: address.into(),
        ..RecipientChange::default()
    }
}

/// A running edge.
pub(crate) struct Bench {
    edge: Option<EdgeHandle>,
    registry: Registry,
    pub(crate) dir: TempDir,
    begun: watch::Receiver<usize>,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bench {
    /// One listener that relays for loopback, mail to a Maildir.
    pub(crate) async fn start(rules: &str) -> Self {
        Self::start_with(rules, |_| ()).await
    }

    pub(crate) async fn start_with(rules: &str, change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let maildir = dir.path().join("mail");
        std::fs::create_dir(&maildir).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let mut config = EdgeConfig {
            listeners: vec![ListenerConfig::new("mx", any, ListenerProtocol::Smtp)],
            relay_networks: vec!["127.0.0.0/8".parse().unwrap()],
            delivery: DeliveryConfig {
                maildir: Some(maildir),
                ..DeliveryConfig::default()
            },
            drain_timeout: PATIENCE,
            ..EdgeConfig::new("mail.example.com", dir.path().join("spool"))
        };
        change(&mut config);
        let stop = CancellationToken::new();
        let (begins, begun) = watch::channel(0);
        let routing = routing(rules, begins, &stop).await;
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::register(&mut registry));
        let edge = opes_edge::start(config, routing, metrics, Hooks::default())
            .await
            .unwrap();
        Self {
            edge: Some(edge),
            registry,
            dir,
            begun,
            stop,
        }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        let edge = self.edge.as_ref().expect("not drained");
        edge.addresses()[0].1
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    pub(crate) async fn lmtp_client(&self) -> Client {
        Client::connect_as(self.address(), "LHLO").await
    }

    /// The services have begun with so many messages.
    pub(crate) async fn begun(&mut self, messages: usize) {
        let begun = self.begun.wait_for(|begun| *begun >= messages);
        let begun = tokio::time::timeout(PATIENCE, begun).await;
        begun.expect("in time").expect("the service runs");
    }

    /// Messages in the quarantine.
    pub(crate) fn held(&self) -> usize {
        let folder = self.dir.path().join("spool/quarantine");
        let is_entry = |path: &PathBuf| path.extension().is_some_and(|end| end == "json");
        files(&folder).iter().filter(|path| is_entry(path)).count()
    }

    /// What is written with the messages in the quarantine.
    pub(crate) fn entries(&self) -> Vec<serde_json::Value> {
        let folder = self.dir.path().join("spool/quarantine");
        let texts = files(&folder).into_iter().filter_map(|path| {
            let is_entry = path.extension().is_some_and(|end| end == "json");
            is_entry.then(|| std::fs::read_to_string(path).unwrap())
        });
        texts
            .map(|text| serde_json::from_str(&text).unwrap())
            .collect()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// Fails if the metrics do not have this line.
    #[track_caller]
    pub(crate) fn expect_metric(&self, line: &str) {
        let text = self.metrics();
        let has = text.lines().any(|known| known == line);
        assert!(has, "no {line} in\n{text}");
    }

    /// Waits until the metrics have this line.
    pub(crate) async fn metric(&self, line: &str) {
        let has = || self.metrics().lines().any(|known| known == line);
        eventually(|| has().then_some(())).await;
    }

    /// Mailboxes, as `domain/local`, with the number of their messages, when everything that was accepted has been delivered.
    pub(crate) async fn mailboxes(mut self) -> Vec<(String, usize)> {
        let edge = self.edge.take().expect("not drained");
        let drained = tokio::time::timeout(PATIENCE, edge.drain());
        drained.await.expect("in time");
        let mut boxes = Vec::new();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        for domain in files(&self.dir.path().join("mail")) {
            for mailbox in files(&domain) {
                let count = files(&mailbox.join("new")).len();
                boxes.push((format!("{}/{}", name(&domain), name(&mailbox)), count));
            }
        }
        boxes.sort();
        boxes
    }

    /// Everything that was accepted has been delivered by the end of a drain.
    pub(crate) async fn drain_and_expect_no_mail(self) {
        let mut bench = self;
        let edge = bench.edge.take().expect("not drained");
        let drained = tokio::time::timeout(PATIENCE, edge.drain());
        drained.await.expect("in time");
        let mail = bench.dir.path().join("mail");
        assert_eq!(files(&mail), Vec::<PathBuf>::new());
    }

    /// Fails if it takes the whole `drainTimeout`.
    pub(crate) async fn drain(mut self) {
        let edge = self.edge.take().expect("not drained");
        let drained = tokio::time::timeout(PATIENCE / 2, edge.drain()).await;
        drained.expect("in time");
    }

    /// Drains, then lets `look` at the folder before it goes.
    pub(crate) async fn drain_keeping(mut self, look: impl FnOnce()) {
        let edge = self.edge.take().expect("not drained");
        let drained = tokio::time::timeout(PATIENCE, edge.drain());
        drained.await.expect("in time");
        look();
    }

    /// The one message in the mailbox of `local@domain`, once it is there.
    pub(crate) async fn delivered(&self, domain: &str, local: &str) -> String {
        let new = self
            .dir
            .path()
            .join("mail")
            .join(domain)
            .join(local)
            .join("new");
        let file = eventually(|| files(&new).into_iter().next()).await;
        std::fs::read_to_string(file).unwrap()
    }
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

pub(crate) async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .expect("in time")
}

async fn routing(rules: &str, begun: watch::Sender<usize>, stop: &CancellationToken) -> Routing {
    let text = format!("{SERVICES}{rules}");
    let table = opes_rules::load([("test.yaml", text.as_str())]).unwrap_or_else(|wrong| {
        panic!(
            "{}",
            wrong.iter().map(ToString::to_string).collect::<String>()
        )
    });
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{listener}");
    let endpoints: Endpoints = table
        .services
        .keys()
        .map(|name| (name.clone(), vec![target.clone()].into()))
        .collect();
    let serving = serve(
        Arc::new(Probe { begun }),
        listener,
        ServerConfig::default(),
        stop.clone(),
    );
    tokio::spawn(async move { serving.await.unwrap() });
    Routing::new(table, &endpoints, "https://mail.example.com/opes").unwrap()
}

/// A rule that calls `service` with `{"do": what}` and may do everything its class can.
pub(crate) fn call(name: &str, at: &str, service: &str, what: &str, more: &str) -> String {
    let allow = match (service, at) {
        ("judge", "content") => "reject, quarantine",
        ("judge", _) => "reject",
        (_, "rcptTo") => "recipients, route, reject",
        _ => "header, body, reject",
    };
    format!(
        "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec: {{ at: [{at}], callout: {{ \
         serviceRef: {{ name: {service} }}, allow: [{allow}], parameters: {{ do: {what} }} }}{more} }}\n"
    )
}

/// A rule with an action.
pub(crate) fn act(name: &str, at: &str, action: &str, more: &str) -> String {
    format!(
        "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec: {{ at: [{at}], action: {{ {action} }}{more} }}\n"
    )
}

/// What a client speaks over.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// One command at a time.
pub(crate) struct Client(BufReader<Box<dyn Wire>>);

impl Client {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Self {
        Self::connect_as(address, "EHLO").await
    }

    pub(crate) async fn connect_as(address: std::net::SocketAddr, hello: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), hello).await
    }

    pub(crate) async fn over(wire: impl Wire + 'static, hello: &str) -> Self {
        let mut client = Self(BufReader::new(Box::new(wire)));
        assert_eq!(client.reply().await.get(..3), Some("220"));
        client.command(&format!("{hello} client.example.org")).await;
        client
    }

    /// The last line of the reply.
    pub(crate) async fn command(&mut self, line: &str) -> String {
        self.say(line).await;
        self.reply().await
    }

    /// A line that is not answered.
    pub(crate) async fn say(&mut self, line: &str) {
        let line = format!("{line}\r\n");
        self.0.write_all(line.as_bytes()).await.unwrap();
    }

    pub(crate) async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(PATIENCE, self.0.read_line(&mut line)).await;
            read.expect("a reply in time").unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Several commands; the code of each reply.
    pub(crate) async fn codes(&mut self, lines: &[&str]) -> Vec<String> {
        let mut codes = Vec::new();
        for line in lines {
            codes.push(
                self.command(line)
                    .await
                    .get(..3)
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        codes
    }

    /// A whole transaction; the reply to the data.
    pub(crate) async fn send(&mut self, to: &str, content: &str) -> String {
        let rcpt = format!("RCPT TO:<{to}>");
        let codes = self
            .codes(&["MAIL FROM:<a@example.net>", &rcpt, "DATA"])
            .await;
        assert_eq!(codes, ["250", "250", "354"]);
        self.command(&format!("{content}\r\n.")).await
    }
}
