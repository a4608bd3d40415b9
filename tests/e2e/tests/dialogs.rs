//! Every script of `tests/dialogs` against the socket of a whole edge, with rules, a callout service and a next hop behind it.
//!
//! `cargo test -p opes-smtp dialog` plays the same files against the SMTP core alone. Here an `answer:` of a script comes from a
//! callout service over gRPC, a message counts as accepted when the edge says so, and its octets are those that the next hop got.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use opes_callout_server::{
    Answer as Verdict, Command, CommandAnswer, Description, Message, Service,
};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::trace::{without_identity, without_trace};
use opes_e2e::{eventually, tls};
use opes_edge::config::{
    Acceptance, BypassConfig, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol,
};
use opes_proto::smtp::{ContextField, Permission};
use opes_smtp::dialog::{self, Answer, Script, Settings, StepKind};
use opes_smtp::reply::Reply;
use opes_smtp::server::{AuthMode, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the server may take for one line.
const LINE_TIMEOUT: Duration = opes_e2e::DEADLINE;

#[tokio::test(flavor = "multi_thread")]
async fn every_script_over_a_socket() -> Result<()> {
    let mut failures = Vec::new();
    let mut played = Vec::new();
    for path in scripts()? {
        let name = path
            .file_stem()
            .and_then(|name| name.to_str())
            .context("file name")?
            .to_owned();
        let text = std::fs::read_to_string(&path)?;
        if let Err(error) = play(&dialog::parse(&text)?).await {
            failures.push(format!("{name}.smtp: {error:#}"));
        }
        played.push(name);
    }
    ensure!(
        failures.is_empty(),
        "{} of {} scripts:\n{}",
        failures.len(),
        played.len(),
        failures.join("\n")
    );
    ensure!(
        played.len() >= 44,
        "only {} scripts were played",
        played.len()
    );
    ensure!(
        played.iter().any(|name| name == "rfc4496-3.1.1"),
        "the dialog of RFC 4496 was not played"
    );
    Ok(())
}

fn scripts() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dialogs");
    let entries = std::fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    let mut scripts: Vec<_> = entries
        .into_iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "smtp")
        })
        .collect();
    scripts.sort();
    Ok(scripts)
}

async fn play(script: &Script) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = &script.settings;
    let hop = Hop::start(manners(settings)).await?;
    let service = service(Answers {
        answers: settings.answers.clone(),
        next_hop_replies: per_recipient(settings).is_some(),
    })
    .await?;
    let rules = if settings.answers.is_empty() {
        String::new()
    } else {
        rules(&service)
    };
    let edge = Embedded::start(config(settings, folder.path(), &hop)?, &rules).await?;
    let mut client = Client::connect(settings, edge.address("mx")?).await?;
    let mut messages = Vec::new();
    for step in &script.steps {
        client
            .step(&step.kind, &mut messages)
            .await
            .with_context(|| format!("line {}", step.line))?;
    }
    client.finish().await?;
    if let Some(expected) = settings.messages {
        ensure!(
            edge.accepted() == expected,
            "{} messages accepted, expected {expected}",
            edge.accepted()
        );
    }
    let accepted = edge.accepted();
    eventually("delivered", || hop.arrivals().len() == accepted).await;
    let arrivals = hop.arrivals();
    for message in messages {
        let arrived = arrivals
            .iter()
            .any(|arrival| without_trace(&arrival.content) == message);
        ensure!(arrived, "`{}` did not arrive", message.escape_ascii());
    }
    for path in replaced_paths(settings) {
        let used = arrivals
            .iter()
            .any(|arrival| arrival.from == path || arrival.to.iter().any(|to| to == path));
        ensure!(used, "the next hop did not hear of <{path}>");
    }
    edge.drain().await;
    Ok(())
}

/// Addresses in the command lines that the service puts in place of the client's; the scripts cannot see where they went.
fn replaced_paths(settings: &Settings) -> impl Iterator<Item = &str> {
    settings
        .answers
        .iter()
        .filter_map(|(_, answer)| match answer {
            Answer::Line(line) => line
                .strip_suffix('>')?
                .split_once('<')
                .map(|(_, path)| path),
            Answer::Replies(_) => None,
        })
}

// === The edge for a script ===

fn config(settings: &Settings, folder: &Path, hop: &Hop) -> Result<EdgeConfig> {
    let script = &settings.config;
    let protocol = match script.protocol {
        Protocol::Lmtp => ListenerProtocol::Lmtp,
        // The edge's submission listeners always want AUTH; where the script does not, it is an SMTP listener with users.
        Protocol::Submission if script.auth_required => ListenerProtocol::Submission,
        Protocol::Submission | Protocol::Smtp => ListenerProtocol::Smtp,
    };
    let mut listener = ListenerConfig::new("mx", "127.0.0.1:0".parse()?, protocol);
    listener.size_max = script.size_max;
    listener.recipients_max = script.recipients_max;
    listener.require_tls = script.tls_required;
    listener.prdr = script.prdr;
    listener.smtputf8 = script.smtputf8;
    listener.chunking = script.chunking;
    listener.dsn = script.dsn;
    listener.errors_max = script.errors_max;
    listener.idle_commands_max = script.idle_commands_max;
    if script.tls_available || settings.implicit_tls {
        listener.tls = Some(tls::write_pair(folder)?.0);
    }
    if script.auth != AuthMode::Off {
        let lines = settings.users.iter().map(|(name, password)| {
            Ok(format!("{name}:{}\n", opes_edge::password_hash(password)?))
        });
        std::fs::write(folder.join("users"), lines.collect::<Result<String>>()?)?;
        listener.users = Some(folder.join("users"));
    }
    let per_recipient = per_recipient(settings).is_some();
    if per_recipient {
        listener.delivery = Acceptance::CutThrough;
    }
    Ok(EdgeConfig {
        listeners: vec![listener],
        bypass: script.opes_bypass.then(|| BypassConfig {
            identities: vec!["*".to_owned()],
            networks: Vec::new(),
        }),
        relay_networks: vec!["127.0.0.0/8".parse()?],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            lmtp: per_recipient,
            connections_max: 1,
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new(dialog::HOSTNAME, folder.join("spool"))
    })
}

/// With LMTP different replies for one content come from the next hop, otherwise from the service.
fn per_recipient(settings: &Settings) -> Option<&[Reply]> {
    let is_lmtp = settings.config.protocol == Protocol::Lmtp;
    settings
        .answers
        .iter()
        .find_map(|(line, answer)| match answer {
            Answer::Replies(replies) if is_lmtp && line == "CONTENT" && replies.len() > 1 => {
                Some(replies.as_slice())
            }
            _ => None,
        })
}

fn manners(settings: &Settings) -> Manners {
    let Some(replies) = per_recipient(settings) else {
        return Manners::default();
    };
    Manners {
        lmtp: true,
        content: replies.iter().map(ToString::to_string).collect(),
        ..Manners::default()
    }
}

/// Refusals come from an analyser, other command lines from an adapter: what each class may do (docs/rules.md).
fn rules(service: &str) -> String {
    let object = |name: &str, class: &str, at: &str, allow: &str| {
        format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\nspec: {{ class: {class}, endpoint: \"{service}\", limits: {{ connectTimeout: 20s }} }}\n---\n\
             apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec:\n  at: [{at}]\n  \
             callout: {{ serviceRef: {{ name: {name} }}, wants: {{ content: none }}, allow: [{allow}], onFailure: tempfail }}\n"
        )
    };
    let points = "connect, mailFrom, rcptTo, data, content";
    [
        object("refuse", "analyze", points, "reject"),
        object("replace", "adapt", "mailFrom, rcptTo", "rewrite"),
    ]
    .join("---\n")
}

/// The `answer:` settings of a script as a callout service.
struct Answers {
    answers: Vec<(String, Answer)>,
    /// Then it is the next hop that answers for each recipient.
    next_hop_replies: bool,
}

impl Answers {
    fn get(&self, line: &[u8]) -> Option<&Answer> {
        self.answers
            .iter()
            .find(|(key, _)| key.as_bytes() == line)
            .map(|(_, answer)| answer)
    }
}

impl Service for Answers {
    fn describe(&self) -> Description {
        Description::new("answers").message_context([ContextField::Recipients])
    }

    async fn command(&self, command: Command) -> Result<CommandAnswer> {
        let line = if command.line.is_empty() {
            b"CONNECT".as_slice()
        } else {
            &command.line
        };
        let refuses = command.parameters.allows(Permission::Reject);
        Ok(match self.get(line) {
            Some(Answer::Replies(replies)) if refuses => {
                let (code, enhanced, text) = parts(replies)?;
                CommandAnswer::reply(code, &enhanced, text)
            }
            Some(Answer::Line(line)) if !refuses => CommandAnswer::rewrite(line.clone()),
            _ => CommandAnswer::proceed(),
        })
    }

    async fn message(&self, message: &mut Message) -> Result<Verdict> {
        let replies = match self.get(b"CONTENT") {
            Some(Answer::Replies(replies)) if !self.next_hop_replies => replies.as_slice(),
            _ => return Ok(Verdict::accept()),
        };
        if replies.len() == 1 {
            return refusal(replies);
        }
        let mut verdict = Verdict::accept();
        for (recipient, reply) in message.context().recipients.iter().zip(replies) {
            if reply.is_refusal() {
                let refusal = refusal(std::slice::from_ref(reply))?;
                verdict = verdict.for_recipients([recipient.address.clone()], refusal);
            }
        }
        Ok(verdict)
    }
}

fn refusal(replies: &[Reply]) -> Result<Verdict> {
    let (code, enhanced, text) = parts(replies)?;
    Ok(if code < 500 {
        Verdict::tempfail(code, &enhanced, text)
    } else {
        Verdict::reject(code, &enhanced, text)
    })
}

fn parts(replies: &[Reply]) -> Result<(u32, String, String)> {
    let reply = replies.first().context("no reply")?;
    let enhanced = reply
        .enhanced()
        .map(|enhanced| enhanced.to_string())
        .unwrap_or_default();
    Ok((
        reply.code().into(),
        enhanced,
        reply.lines().collect::<Vec<_>>().join("\n"),
    ))
}

// === The client ===

/// The client's end of a script.
struct Client<'a> {
    settings: &'a Settings,
    stream: Stream,
    input: Vec<u8>,
    closed: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<dyn Encrypted>),
    Handshake,
}

trait Encrypted: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Encrypted for T {}

impl<'a> Client<'a> {
    async fn connect(settings: &'a Settings, server: std::net::SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            settings,
            stream: Stream::Plain(stream),
            input: Vec::new(),
            closed: false,
        };
        if settings.implicit_tls {
            client.encrypt_first().await?;
        }
        Ok(client)
    }

    /// The edge has no port for implicit TLS. After STARTTLS everything said before is forgotten, so that the rest of the script
    /// finds the same session; only the greeting has to be put back.
    async fn encrypt_first(&mut self) -> Result<()> {
        let greeting = self.line().await?;
        self.send(b"HELO client.example.org\r\nSTARTTLS\r\n")
            .await?;
        ensure!(self.line().await?.starts_with("250 "), "HELO refused");
        ensure!(self.line().await?.starts_with("220 "), "STARTTLS refused");
        self.handshake().await?;
        self.input = format!("{greeting}\r\n").into_bytes();
        Ok(())
    }

    async fn step(&mut self, step: &StepKind, messages: &mut Vec<Vec<u8>>) -> Result<()> {
        match step {
            StepKind::Send(octets) => self.send(octets).await,
            StepKind::Expect(pattern) => self.expect(pattern).await,
            StepKind::Handshake => self.handshake().await,
            StepKind::Close => self.expect_close().await,
            StepKind::Message(octets) => {
                messages.push(octets.clone());
                Ok(())
            }
        }
    }

    async fn send(&mut self, octets: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(octets).await?,
            Stream::Tls(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await?;
            }
            Stream::Handshake => bail!("the handshake failed"),
        }
        Ok(())
    }

    async fn expect(&mut self, pattern: &str) -> Result<()> {
        let line = self
            .line()
            .await
            .with_context(|| format!("expected {pattern:?}"))?;
        let matches = dialog::matches(self.settings, pattern, without_ids(&line));
        ensure!(matches, "expected {pattern:?}, the server said {line:?}");
        Ok(())
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
                let line = self.input.drain(..end + 2).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            ensure!(
                self.read().await? > 0,
                "the server closed; before that: {:?}",
                self.input.escape_ascii().to_string()
            );
        }
    }

    /// 0 at the end, also at a reset: a server that closes with input unread resets (RFC 9293 §3.10.4).
    async fn read(&mut self) -> Result<usize> {
        let mut octets = [0; 4096];
        let read = async {
            match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut octets).await,
                Stream::Tls(stream) => stream.read(&mut octets).await,
                Stream::Handshake => Ok(0),
            }
        };
        let count = match timeout(LINE_TIMEOUT, read)
            .await
            .context("the server says nothing")?
        {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error.into()),
        };
        self.input.extend_from_slice(&octets[..count]);
        Ok(count)
    }

    async fn handshake(&mut self) -> Result<()> {
        ensure!(
            self.input.is_empty(),
            "input before the handshake: {:?}",
            self.input.escape_ascii().to_string()
        );
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::Handshake) else {
            bail!("encrypted already")
        };
        self.stream = Stream::Tls(Box::new(tls::handshake(stream).await?));
        Ok(())
    }

    async fn expect_close(&mut self) -> Result<()> {
        while self.read().await? > 0 {}
        ensure!(
            self.input.is_empty(),
            "before closing the server said {:?}",
            self.input.escape_ascii().to_string()
        );
        self.closed = true;
        Ok(())
    }

    /// Leaves; the server must have nothing more to say.
    async fn finish(mut self) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        match &mut self.stream {
            Stream::Plain(stream) => stream.shutdown().await?,
            Stream::Tls(stream) => stream.shutdown().await?,
            Stream::Handshake => {}
        }
        self.expect_close().await
    }
}

/// The edge adds to the text that the core's scripts have: the queue id, and to a refusal by a rule who refused (R4902-15).
fn without_ids(line: &str) -> &str {
    const QUEUED: &str = "250 2.6.0 Message queued for delivery";
    match line.split_once(" as ") {
        Some((QUEUED, _)) => QUEUED,
        _ => without_identity(line),
    }
}
