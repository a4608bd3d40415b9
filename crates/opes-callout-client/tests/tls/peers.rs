//! A server and a client over TLS on loopback, with files of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opes_callout_client::{
    CalloutError, ClientTls, ContentWant, Group, Request, ServiceClient, ServiceClientConfig,
};
use opes_callout_server::{
    Command, CommandAnswer, Description, Listener, MutualFiles, ServerConfig, ServerTls, Service,
    serve,
};
use opes_proto::smtp::{Context, Point};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::authority::{Authority, For, files, install};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The name that the service's certificates are for, unless a test is about that.
pub(crate) const NAME: &str = "filter.example.com";

/// Counts the transactions that reach it.
#[derive(Debug, Default, Clone)]
struct Counting(Arc<AtomicUsize>);

impl Service for Counting {
    fn describe(&self) -> Description {
        Description::new("counting").command_context([])
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if command.parameters.json == "slow" {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(CommandAnswer::proceed().reason("seen"))
    }
}

pub(crate) struct Server {
    pub(crate) address: String,
    calls: Arc<AtomicUsize>,
    _shutdown: DropGuard,
}

impl Server {
    pub(crate) async fn start(files: &MutualFiles) -> Self {
        Self::start_with(ServerTls::server(files.clone()).unwrap()).await
    }

    pub(crate) async fn start_with(tls: ServerTls) -> Self {
        Self::serve(Listener::bind_tls("127.0.0.1:0", tls).await.unwrap())
    }

    pub(crate) async fn start_plain() -> Self {
        Self::serve(Listener::bind("127.0.0.1:0").await.unwrap())
    }

    fn serve(listener: Listener) -> Self {
        let address = listener.address();
        let service = Counting::default();
        let calls = Arc::clone(&service.0);
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        tokio::spawn(serve(
            Arc::new(service),
            listener,
            ServerConfig::default(),
            token,
        ));
        Self {
            address,
            calls,
            _shutdown: shutdown.drop_guard(),
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn client(&self, tls: ClientTls) -> ServiceClient {
        self.client_for(tls, Some(NAME))
    }

    pub(crate) fn client_for(&self, tls: ClientTls, name: Option<&str>) -> ServiceClient {
        let target = format!("https://{}", self.address);
        ServiceClient::new(ServiceClientConfig {
            tls: Some(tls),
            server_name: name.map(str::to_owned),
            connect_timeout: Duration::from_secs(5),
            ..ServiceClientConfig::new("default/filter", target)
        })
    }
}

/// Two ends that trust each other.
pub(crate) struct Ends {
    pub(crate) authority: Authority,
    pub(crate) service: MutualFiles,
    pub(crate) edge: MutualFiles,
    pub(crate) folder: TempDir,
}

impl Ends {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("callouts");
        let (service, edge) = (
            files(folder.path(), "service"),
            files(folder.path(), "edge"),
        );
        let pair = authority.issue(For::Service, &[NAME]);
        install(&service, &pair, &[&authority]);
        let pair = authority.issue(For::Edge, &["edge.example.com"]);
        install(&edge, &pair, &[&authority]);
        Self {
            authority,
            service,
            edge,
            folder,
        }
    }

    pub(crate) fn client_tls(&self) -> ClientTls {
        ClientTls::client(self.edge.clone()).unwrap()
    }
}

pub(crate) fn request(parameters: &str) -> Request {
    Request {
        group: Arc::new(Group {
            rule: "default/test".into(),
            revision: "r1".into(),
            parameters_json: parameters.into(),
            allow: Vec::new(),
        }),
        point: Point::RcptTo,
        command_line: Some("RCPT TO:<y@example.org>".into()),
        context: Arc::new(Context::default()),
        content: None,
        content_want: ContentWant::Unspecified,
        timeout: PATIENCE,
        traceparent: String::new(),
    }
}

pub(crate) async fn ask(client: &ServiceClient) -> Result<(), CalloutError> {
    let answer = tokio::time::timeout(PATIENCE * 2, client.run(request("")))
        .await
        .expect("the client kept no time")?;
    assert_eq!(answer.outcome.reason, "seen");
    Ok(())
}
