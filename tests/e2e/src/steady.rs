//! Mail at a steady rate, whatever becomes of it: each message has a time at which it is due, and what it takes counts from then on, so that
//! a server which keeps its clients waiting does not slow down what it is measured by.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::smtp::{Dialog, sample};
use crate::{DEADLINE, eventually};

/// Size of the messages in octets.
const MESSAGE_OCTETS: usize = 2048;
/// Fewer messages have no p99.
const SAMPLE_MIN: usize = 100;

/// One message.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its subject.
    pub name: String,
    /// Since the start.
    pub due: Duration,
    /// From then to the reply to its content.
    pub took: Duration,
    /// To the content; or what went wrong.
    pub reply: String,
}

/// See the module.
pub struct Steady {
    started: Instant,
    count: u32,
    clients: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Steady {
    /// `clients` sessions, each with a message `every` so often; together they are spread evenly.
    pub fn start(edge: SocketAddr, clients: u32, every: Duration) -> Self {
        let (started, stop) = (Instant::now(), Arc::<AtomicBool>::default());
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let mut sessions = JoinSet::new();
        for client in 0..clients {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let offset = every * client / clients;
            sessions.spawn(async move {
                let mut dialog = Dialog::open(edge, false).await?;
                for round in 0.. {
                    let due = offset + every * round;
                    sleep_until(started + due).await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("{client}-{round}");
                    let reply = send(&mut dialog, &name).await;
                    let failed = reply.is_err();
                    let reply = reply.unwrap_or_else(|error| format!("{error:#}"));
                    let took = started.elapsed().saturating_sub(due);
                    let message = Sent {
                        name,
                        due,
                        took,
                        reply,
                    };
                    sent.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(message);
                    if failed {
                        dialog = Dialog::open(edge, false).await?;
                    }
                }
                Ok(())
            });
        }
        Self {
            started,
            count: clients,
            clients: sessions,
            stop,
            sent,
        }
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets it go on until so much time has passed since the start.
    pub async fn run_until(&self, time: Duration) {
        sleep_until(self.started + time).await;
    }

    /// Waits until all that was due by now has its reply; everything that has one.
    pub async fn settled(&self) -> Vec<Sent> {
        let now = self.elapsed();
        // A client sends one message after the other.
        let is_past = || {
            let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            let later = sent.iter().filter(|message| message.due >= now);
            let clients = later.filter_map(|message| message.name.split_once('-'));
            let clients: HashSet<&str> = clients.map(|(client, _)| client).collect();
            clients.len() == self.count as usize
        };
        eventually("a reply to all that was due", is_past).await;
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
    }

    /// Sends what is due and no more; what was sent.
    pub async fn finish(mut self) -> Result<Vec<Sent>> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client panicked")??;
        }
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut sent))
    }
}

async fn send(dialog: &mut Dialog, name: &str) -> Result<String> {
    let content = sample(name, MESSAGE_OCTETS);
    let sending = dialog.message("steve@example.org", &["paul@example.com"], &content);
    timeout(DEADLINE, sending).await.context("no reply")?
}

/// What 99 of 100 of the messages that were due in this time took at most.
pub fn p99(sent: &[Sent], from: Duration, to: Duration) -> Result<Duration> {
    let due = sent.iter().filter(|sent| (from..to).contains(&sent.due));
    let mut took: Vec<Duration> = due.map(|sent| sent.took).collect();
    took.sort_unstable();
    let count = took.len();
    ensure!(count >= SAMPLE_MIN, "only {count} from {from:?} to {to:?}");
    took.get(count * 99 / 100).copied().context("no message")
}
