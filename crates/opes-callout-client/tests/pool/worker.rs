//! Callout servers that take their time, and can be killed like a process or made to hang like one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use opes_callout_client::{ContentWant, Group, Request, ServiceClient, ServiceClientConfig};
use opes_callout_server::{
    Answer, Command, CommandAnswer, Description, Listener, Message, ServerConfig, Service, serve,
};
use opes_proto::smtp::{Context, Point};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Answers after a while and counts what it has begun.
pub(crate) struct Worker {
    pub(crate) time: Duration,
    pub(crate) begun: Arc<AtomicUsize>,
    /// No answer while this is set.
    pub(crate) held: watch::Receiver<bool>,
}

impl Service for Worker {
    fn describe(&self) -> Description {
        Description::new("worker")
    }

    async fn command(&self, _command: Command) -> anyhow::Result<CommandAnswer> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.time).await;
        let mut held = self.held.clone();
        // If nobody can hold it any more, nobody does.
        let _let_go = held.wait_for(|held| !*held).await;
        Ok(CommandAnswer::proceed())
    }

    async fn message(&self, _message: &mut Message) -> anyhow::Result<Answer> {
        Ok(Answer::accept())
    }
}

pub(crate) struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    pub(crate) address: String,
    pub(crate) begun: Arc<AtomicUsize>,
    /// Holds back all answers.
    pub(crate) hold: watch::Sender<bool>,
    pub(crate) shutdown: CancellationToken,
    /// Its only thread waits for the other end.
    hanging: Option<mpsc::Sender<()>>,
}

impl Server {
    pub(crate) fn start(time: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let begun = Arc::new(AtomicUsize::new(0));
        let (hold, is_held) = watch::channel(false);
        let service = Arc::new(Worker {
            time,
            begun: Arc::clone(&begun),
            held: is_held,
        });
        let shutdown = CancellationToken::new();
        // Bound on a thread of its own: the caller's runtime may not block.
        let handle = runtime.handle().clone();
        let bind = move || handle.block_on(Listener::bind("127.0.0.1:0"));
        let listener = std::thread::spawn(bind).join().unwrap().unwrap();
        let address = listener.address();
        runtime.spawn(serve(
            service,
            listener,
            ServerConfig::default(),
            shutdown.clone(),
        ));
        Self {
            runtime: Some(runtime),
            address,
            begun,
            hold,
            shutdown,
            hanging: None,
        }
    }

    pub(crate) fn target(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// No goodbye, sockets closed.
    pub(crate) fn kill(&mut self) {
        self.hanging = None;
        if let Some(runtime) = self.runtime.take() {
            let stop = move || runtime.shutdown_timeout(Duration::from_secs(5));
            std::thread::spawn(stop).join().unwrap();
        }
    }

    /// Sockets stay open, nothing is read or said any more.
    pub(crate) fn hang(&mut self) {
        let (hold, release) = mpsc::channel::<()>();
        self.hanging = Some(hold);
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                let _released = release.recv();
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn servers(count: usize, time: Duration) -> Vec<Server> {
    (0..count).map(|_| Server::start(time)).collect()
}

pub(crate) fn config(servers: &[Server]) -> ServiceClientConfig {
    ServiceClientConfig {
        endpoints: servers.iter().map(Server::target).collect(),
        ..ServiceClientConfig::new("worker", "")
    }
}

pub(crate) fn client(servers: &[Server], idempotent: bool) -> ServiceClient {
    ServiceClient::new(ServiceClientConfig {
        idempotent,
        ..config(servers)
    })
}

pub(crate) fn request(timeout: Duration) -> Request {
    Request {
        group: Arc::new(Group::default()),
        point: Point::RcptTo,
        command_line: Some("RCPT TO:<y@example.org>".into()),
        context: Arc::new(Context::default()),
        content: None,
        content_want: ContentWant::Unspecified,
        timeout,
        traceparent: String::new(),
    }
}

/// Waits until all endpoints take transactions.
pub(crate) async fn ready(client: &ServiceClient) {
    use opes_callout_client::EndpointState;
    let all_ready = async {
        client.run(request(PATIENCE)).await.unwrap();
        while client
            .snapshot()
            .endpoints
            .iter()
            .any(|e| e.state != EndpointState::Ready)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_ready).await.unwrap();
}
