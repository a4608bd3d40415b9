//! What the tests of the relay have in common: a spool, messages, events.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opes_content::{Budget, Limits, View, Writer};
use opes_relay::{
    Backoff, DeliveryEvent, DeliveryOutcome, Queued, Relay, RelayConfig, RetrySchedule, Route,
    Senders, Tls,
};
use opes_spool::{Envelope, NextHop, Recipient, Spool, SpoolConfig};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const CONTENT: &[u8] = b"Subject: test\r\n\r\n.a line with a dot\r\n..two\r\nend\r\n";

pub(crate) struct Bench {
    pub(crate) relay: Relay,
    pub(crate) spool: Spool,
    pub(crate) dir: tempfile::TempDir,
    events: mpsc::UnboundedReceiver<DeliveryEvent>,
}

pub(crate) fn next_hop(port: u16) -> Route {
    Route::NextHop {
        host: "127.0.0.1".into(),
        port,
        lmtp: false,
        tls: Tls::Off,
    }
}

pub(crate) fn open_spool(dir: &Path) -> (Spool, Vec<Queued>) {
    let config = SpoolConfig {
        segment_octets: 8 * 1024 * 1024,
        reserve_octets: 0,
        ..SpoolConfig::default()
    };
    Spool::open(&dir.join("spool"), config).expect("a spool")
}

impl Bench {
    pub(crate) fn start(route: Route) -> Self {
        Self::start_with(route, |_| {})
    }

    pub(crate) fn start_with(route: Route, change: impl FnOnce(&mut RelayConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (spool, recovered) = open_spool(dir.path());
        Self::start_in(dir, spool, recovered, route, change)
    }

    pub(crate) fn start_in(
        dir: tempfile::TempDir,
        spool: Spool,
        recovered: Vec<Queued>,
        route: Route,
        change: impl FnOnce(&mut RelayConfig),
    ) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let on_event = move |event: &DeliveryEvent| {
            // The test may have seen enough.
            let _ = sender.send(event.clone());
        };
        let mut config = RelayConfig::new(route, "relay.example.com", Arc::new(on_event));
        let short = Backoff {
            first: Duration::from_millis(20),
            max: Duration::from_millis(50),
        };
        config.retry = RetrySchedule {
            message: short,
            next_hop: short,
            ..RetrySchedule::default()
        };
        // Most tests are about one message; its report would be a second one.
        config.reports.senders = Senders::Nobody;
        change(&mut config);
        let relay = Relay::start(config, spool.clone(), recovered);
        Self {
            relay,
            spool,
            dir,
            events,
        }
    }

    pub(crate) async fn store(&self, recipients: &[&str], content: &[u8]) -> Queued {
        let view = view(self.dir.path(), content).await;
        let stored = self.spool.store(envelope(recipients), &view).await;
        stored.expect("stored")
    }

    pub(crate) async fn send(&self, recipients: &[&str]) {
        let queued = self.store(recipients, CONTENT).await;
        self.relay.enqueue(queued);
    }

    pub(crate) async fn event(&mut self) -> DeliveryEvent {
        timeout(DEADLINE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the relay lives")
    }

    /// Events up to the first that is not a deferral.
    pub(crate) async fn decided(&mut self) -> (DeliveryEvent, usize) {
        let mut deferred = 0;
        loop {
            let event = self.event().await;
            match event.outcome {
                DeliveryOutcome::Deferred { .. } => deferred += 1,
                DeliveryOutcome::Delivered { .. } | DeliveryOutcome::Failed { .. } => {
                    return (event, deferred);
                }
            }
        }
    }

    /// All is settled in the spool.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.spool.stats().live_messages, 0);
        assert_eq!(self.relay.backlog(), 0);
    }

    pub(crate) async fn shutdown(self) -> tempfile::TempDir {
        timeout(DEADLINE, self.relay.shutdown(Duration::from_secs(5)))
            .await
            .expect("stops in time");
        self.dir
    }
}

pub(crate) fn envelope(recipients: &[&str]) -> Envelope {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    Envelope {
        reverse_path: "a@example.com".into(),
        recipients: recipients
            .iter()
            .map(|address| Recipient {
                address: (*address).into(),
                ..Recipient::default()
            })
            .collect(),
        received_at_ms: u64::try_from(now.as_millis()).expect("fits"),
        ..Envelope::default()
    }
}

/// Where nobody listens, and nobody else can while the socket is kept.
pub(crate) fn closed_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any).expect("a port");
    let port = socket.local_addr().expect("bound").port();
    (socket, port)
}

pub(crate) fn hop(port: u16) -> NextHop {
    NextHop {
        host: "127.0.0.1".into(),
        port,
        lmtp: false,
    }
}

pub(crate) fn growing(dir: &Path) -> (Writer, View) {
    let limits = Arc::new(Limits::in_dir(dir));
    let (writer, content) = opes_content::create(&Budget::new(64 * 1024 * 1024), &limits);
    (writer, View::original(content))
}

pub(crate) async fn view(dir: &Path, octets: &[u8]) -> View {
    let (mut writer, view) = growing(dir);
    writer
        .append(Bytes::copy_from_slice(octets))
        .await
        .expect("room");
    writer.finish();
    view
}
