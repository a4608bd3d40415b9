//! Mail from clients that behave as servers do: what is refused for the time being, or was not answered because the connection
//! went, is sent again on a new connection. What has a 250 is never sent again, so that each message must arrive once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::hop::Hop;
use opes_e2e::smtp::{Dialog, sample, stuffed};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Size of the messages in octets.
const MESSAGE_OCTETS: usize = 4096;
/// A message that is not taken by then is lost for the sender.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// Messages of one session; then the client says QUIT and comes again, as servers do.
const MESSAGES_PER_SESSION: u32 = 20;

/// What became of one message.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its subject.
    pub name: String,
    /// Since the start of the load.
    pub due: Duration,
    /// From then to the 250.
    pub took: Duration,
    /// Why it had to be sent again: replies and broken connections, in order.
    pub again: Vec<String>,
    /// The connection broke after the last octet and before the reply: nobody knows whether it was taken.
    pub unanswered: bool,
}

/// Clients that send at a steady rate until told to end.
pub struct Load {
    started: Instant,
    clients: JoinSet<Result<()>>,
    stop: Arc<AtomicBool>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

/// How an attempt ended that brought no 250.
enum Failed {
    /// Another attempt is in order.
    Again(String),
    /// The end of the data was sent, and no reply came.
    Unanswered(String),
    /// 5xx.
    Refused(String),
}

// === impl Load ===

impl Load {
    /// `clients` sessions, each with a message `every` so often; together they are spread evenly. Messages are named after `label`.
    pub fn start(label: &str, edge: SocketAddr, clients: u32, every: Duration) -> Self {
        let (started, stop) = (Instant::now(), Arc::<AtomicBool>::default());
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let mut sessions = JoinSet::new();
        for client in 0..clients {
            let offset = every * client / clients;
            let name = format!("{label}-{client}");
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            sessions.spawn(async move {
                let mut dialog = None;
                for round in 0.. {
                    let due = offset + every * round;
                    sleep_until(started + due).await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("{name}-{round}");
                    let (again, unanswered) = deliver(&mut dialog, edge, &name).await?;
                    let took = started.elapsed().saturating_sub(due);
                    let message = Sent {
                        name,
                        due,
                        took,
                        again,
                        unanswered,
                    };
                    sent.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(message);
                    if round % MESSAGES_PER_SESSION == MESSAGES_PER_SESSION - 1 {
                        dialog = None;
                    }
                }
                Ok(())
            });
        }
        Self {
            started,
            clients: sessions,
            stop,
            sent,
        }
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
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

/// Every message of `sent` has arrived once, nothing else has under their label; nobody is left in doubt.
pub fn once_each(label: &str, sent: &[Sent], hop: &Hop) -> Result<()> {
    let start = format!("Subject: {label}-");
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for arrival in hop.arrivals() {
        let content = String::from_utf8_lossy(&arrival.content).into_owned();
        let subject = content.lines().find(|line| line.starts_with(&start));
        if let Some(subject) = subject.and_then(|line| line.strip_prefix("Subject: ")) {
            *arrived.entry(subject.to_owned()).or_default() += 1;
        }
    }
    let doubtful: Vec<&Sent> = sent.iter().filter(|sent| sent.unanswered).collect();
    ensure!(
        doubtful.is_empty(),
        "no reply to the end of data: {doubtful:?}"
    );
    for message in sent {
        let times = arrived.remove(&message.name).unwrap_or_default();
        ensure!(
            times == 1,
            "{} arrived {times} times: {message:?}",
            message.name
        );
    }
    ensure!(arrived.is_empty(), "nobody was told 250 for {arrived:?}");
    Ok(())
}

/// Sends until it is taken. What went wrong before, and whether an attempt was left without a reply.
async fn deliver(
    dialog: &mut Option<Dialog>,
    edge: SocketAddr,
    name: &str,
) -> Result<(Vec<String>, bool)> {
    let deadline = Instant::now() + PATIENCE;
    let (mut again, mut unanswered) = (Vec::new(), false);
    loop {
        match attempt(dialog, edge, name).await {
            Ok(()) => return Ok((again, unanswered)),
            Err(Failed::Refused(reply)) => anyhow::bail!("{name} refused for good: {reply}"),
            Err(Failed::Again(why)) => again.push(why),
            Err(Failed::Unanswered(why)) => {
                unanswered = true;
                again.push(why);
            }
        }
        *dialog = None;
        ensure!(Instant::now() < deadline, "{name} not taken: {again:?}");
        sleep(PAUSE).await;
    }
}

async fn attempt(dialog: &mut Option<Dialog>, edge: SocketAddr, name: &str) -> Result<(), Failed> {
    let again = |error: anyhow::Error| Failed::Again(format!("{error:#}"));
    let dialog = match dialog {
        Some(dialog) => dialog,
        None => dialog.insert(limited(Dialog::open(edge, false)).await.map_err(again)?),
    };
    for line in [
        "MAIL FROM:<steve@example.org>",
        "RCPT TO:<paul@example.com>",
        "DATA",
    ] {
        let reply = limited(dialog.command(line)).await.map_err(again)?;
        judged(&reply)?;
    }
    let mut content = stuffed(&sample(name, MESSAGE_OCTETS));
    content.extend_from_slice(b".\r\n");
    limited(dialog.send(&content)).await.map_err(again)?;
    let reply = limited(dialog.reply()).await;
    judged(&reply.map_err(|error| Failed::Unanswered(format!("{error:#}")))?)
}

fn judged(reply: &str) -> Result<(), Failed> {
    match reply.as_bytes().first() {
        Some(b'2' | b'3') => Ok(()),
        Some(b'5') => Err(Failed::Refused(reply.to_owned())),
        _ => Err(Failed::Again(reply.to_owned())),
    }
}

async fn limited<T>(step: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, step).await.context("no answer")?
}
