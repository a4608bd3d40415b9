//! A service that does what the rule's parameters say, servers that can be killed, messages that can grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opes_callout_client::{Answer, CalloutError, ContentWant, Group, Request};
use opes_callout_client::{ServiceClient, ServiceClientConfig};
use opes_callout_server::{
    Answer as Decision, Command, CommandAnswer, Description, Listener, Message, ServerConfig,
    Service, serve,
};
use opes_content::{Adaptation, Budget, Content, Limits, View, Writer, create};
use opes_proto::smtp::{Address, Client, Context, ContextField, HeaderField, Point};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::copies::decide;
use crate::flows::scramble;

/// Longer than anything takes on a busy machine; tests of time limits use their own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What tests can see of a service from outside.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) begun: Notify,
    pub(crate) go_on: Notify,
    pub(crate) cancelled: Notify,
    pub(crate) calls: AtomicUsize,
}

/// Does what `parameters_json` names.
pub(crate) struct Probe {
    pub(crate) signals: Arc<Signals>,
}

struct NoteDrop<'a>(&'a Signals);

impl Drop for NoteDrop<'_> {
    fn drop(&mut self) {
        self.0.cancelled.notify_one();
    }
}

impl Service for Probe {
    fn describe(&self) -> Description {
        Description::new("probe")
            .command_context([ContextField::Client, ContextField::Recipients])
            .message_context([
                ContextField::MailFrom,
                ContextField::Recipients,
                ContextField::Size,
            ])
            .message_headers(["Subject"])
            .whole_content()
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        Ok(match command.parameters.json.as_str() {
            "reply" => CommandAnswer::reply(550, "5.7.1", "not from here").reason("denied"),
            "rewrite" => CommandAnswer::rewrite("RCPT TO:<b@example.com>").annotate("k", "v"),
            "route" => CommandAnswer::proceed().next_hop("mail.example.com", 2525),
            "context" => CommandAnswer::proceed().reason(format!(
                "{:?} {} {}",
                command.point,
                command.context.client.map(|c| c.ip).unwrap_or_default(),
                command.context.helo,
            )),
            _ => CommandAnswer::proceed(),
        })
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Decision> {
        self.signals.calls.fetch_add(1, Ordering::Relaxed);
        let behaviour = message.parameters().json.clone();
        match behaviour.as_str() {
            "accept" => Ok(Decision::accept()),
            "context" => Ok(Decision::accept().reason(format!("{:?}", message.context()))),
            "count" => {
                let mut octets = 0;
                while let Some(chunk) = message.chunk().await? {
                    octets += chunk.len();
                }
                let whole = message.is_whole();
                Ok(Decision::accept()
                    .add_header("X-Octets", octets.to_string())
                    .reason(format!("{whole:?}")))
            }
            "fail" => anyhow::bail!("no virus database"),
            "panic" => panic!("index out of bounds, say"),
            "stop" => {
                let first = message.chunk().await?.unwrap_or_default();
                message.stop_receiving().await?;
                anyhow::ensure!(message.chunk().await?.is_none());
                Ok(Decision::accept().reason(first.len().to_string()))
            }
            "wait" => {
                let _note = NoteDrop(&self.signals);
                message.chunk().await?;
                self.signals.begun.notify_one();
                self.signals.go_on.notified().await;
                Ok(Decision::accept().reason("waited"))
            }
            "unfinished" => {
                message.adapt().use_mine("a").await?;
                Ok(Decision::accept())
            }
            "invent" => {
                message.adapt().use_yours(0..1 << 40).await?;
                let mut adapted = message.adapt();
                adapted.use_yours(0..1 << 40).await?;
                adapted.finish().await?;
                Ok(Decision::accept())
            }
            "flood" => {
                let mut adapted = message.adapt();
                loop {
                    adapted.use_mine(Bytes::from(vec![b'x'; 100_000])).await?;
                }
            }
            "upper" => {
                let mut adapted = message.adapt();
                while let Some(chunk) = message.chunk().await? {
                    adapted.use_mine(chunk.to_ascii_uppercase()).await?;
                }
                adapted.finish().await?;
                Ok(Decision::accept())
            }
            copies if copies.starts_with("copies") => decide(copies, message).await,
            seed => scramble(seed.parse()?, message).await,
        }
    }
}

/// A server with a runtime of its own, so that it can be killed like a process: no goodbye, sockets closed.
pub(crate) struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    pub(crate) address: String,
    pub(crate) signals: Arc<Signals>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) done: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1:0", ServerConfig::default())
    }

    pub(crate) fn start_at(address: &str, config: ServerConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let signals = Arc::new(Signals::default());
        let service = Arc::new(Probe {
            signals: Arc::clone(&signals),
        });
        let shutdown = CancellationToken::new();
        let (address, token) = (address.to_owned(), shutdown.clone());
        // Bound on a thread of its own: the caller's runtime may not block.
        let handle = runtime.handle().clone();
        let bound = std::thread::spawn(move || handle.block_on(Listener::bind(&address)));
        let listener = bound.join().unwrap().unwrap();
        let address = listener.address();
        let done = Some(runtime.spawn(serve(service, listener, config, token)));
        Self {
            runtime: Some(runtime),
            address,
            signals,
            shutdown,
            done,
        }
    }

    pub(crate) fn target(&self) -> String {
        match self.address.strip_prefix("unix:") {
            Some(_) => self.address.clone(),
            None => format!("http://{}", self.address),
        }
    }

    pub(crate) fn client(&self) -> ServiceClient {
        client(&self.target())
    }

    pub(crate) fn kill(mut self) -> String {
        self.stop();
        self.address.clone()
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for the worker, so that the port is free afterwards.
            let stop = move || runtime.shutdown_timeout(Duration::from_secs(5));
            std::thread::spawn(stop).join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn client(target: &str) -> ServiceClient {
    ServiceClient::new(config(target))
}

pub(crate) fn config(target: &str) -> ServiceClientConfig {
    let config = ServiceClientConfig::new("probe", target);
    ServiceClientConfig {
        connections: 1,
        connect_timeout: Duration::from_secs(5),
        ..config
    }
}

pub(crate) fn group(behaviour: &str) -> Arc<Group> {
    Arc::new(Group {
        rule: "default/test".into(),
        revision: "r1".into(),
        parameters_json: behaviour.into(),
        allow: Vec::new(),
    })
}

pub(crate) fn context() -> Arc<Context> {
    let address = |a: &str| Address {
        address: a.into(),
        parameters: vec![],
    };
    Arc::new(Context {
        dialog_id: "d1".into(),
        client: Some(Client {
            ip: "192.0.2.7".into(),
            port: 25,
        }),
        helo: "client.example.net".into(),
        mail_from: Some(address("a@example.com")),
        recipients: vec![address("x@example.org"), address("y@example.org")],
        headers: vec![
            HeaderField {
                name: "Subject".into(),
                value: " hello".into(),
            },
            HeaderField {
                name: "X-Secret".into(),
                value: " no".into(),
            },
        ],
        size: Some(4),
        ..Context::default()
    })
}

pub(crate) fn request(behaviour: &str, content: Option<View>) -> Request {
    Request {
        group: group(behaviour),
        point: if content.is_some() {
            Point::Content
        } else {
            Point::RcptTo
        },
        command_line: content.is_none().then(|| "RCPT TO:<y@example.org>".into()),
        context: context(),
        content,
        content_want: ContentWant::Unspecified,
        timeout: PATIENCE,
        traceparent: String::new(),
    }
}

pub(crate) async fn run(client: &ServiceClient, request: Request) -> Result<Answer, CalloutError> {
    // The client keeps time itself; this only keeps a broken test from hanging.
    tokio::time::timeout(PATIENCE * 2, client.run(request))
        .await
        .expect("the client kept no time")
}

pub(crate) fn growing() -> (Writer, Content) {
    let limits = Arc::new(Limits::in_dir(std::env::temp_dir()));
    create(&Budget::new(256 << 20), &limits)
}

pub(crate) async fn content(octets: Vec<u8>) -> View {
    let (mut writer, content) = growing();
    let mut octets = Bytes::from(octets);
    while !octets.is_empty() {
        let chunk = octets.split_to(octets.len().min(50_000));
        writer.append(chunk).await.unwrap();
    }
    writer.finish();
    View::original(content)
}

/// The message that an answer makes of `view`.
pub(crate) async fn octets_of(view: &View, adapted: Option<&Adaptation>) -> Vec<u8> {
    let made = match adapted {
        Some(adaptation) => view.adapt(adaptation).unwrap(),
        None => view.clone(),
    };
    let mut octets = Vec::new();
    made.write_to(&mut octets).await.unwrap();
    octets
}

/// Mail data of about `size` octets.
pub(crate) fn mail(size: usize) -> Vec<u8> {
    let mut octets = b"Subject: hello\r\nFrom: a@example.com\r\n\r\n".to_vec();
    while octets.len() < size {
        octets.extend_from_slice(b"The quick brown fox jumps over the lazy dog, 0123456789.\r\n");
    }
    octets
}
