//! The two callout services: one judges, one adapts. Both run on the SDK that services are written with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opes_callout_server::{Answer, Description, Listener, Message, ServerConfig, Service, serve};
use opes_host::{Clock, Network, Random};
use opes_proto::smtp::ContextField;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::edge::wall_clock;
use crate::ledger::{Ledger, now_ms};
use crate::mail::{
    ADDED_FIELD, ADDED_HEAD, ADDED_TAIL, APART_FOR, BAD_FOR, SUSPECT_FOR, attempt_in, subject_in,
};
use crate::net::{Card, Pace};
use crate::plan::HEALED_MS;

/// Largest message of a run.
const CONTENT_MAX: usize = 1 << 20;

/// What a service process is given.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) ledger: Ledger,
    pub(crate) random: Random,
    pub(crate) pace: Arc<Pace>,
    /// Longest pause of a handler.
    pub(crate) pause_max_ms: u64,
}

struct Judge(Outside);
struct Adapter(Outside);

/// Counts a handler while it is at work.
struct AtWork(Ledger);

/// Judges until the process is killed.
pub(crate) async fn judge(outside: Outside) -> turmoil::Result {
    run(Judge(outside.clone()), &outside).await
}

/// Adapts until the process is killed.
pub(crate) async fn adapter(outside: Outside) -> turmoil::Result {
    run(Adapter(outside.clone()), &outside).await
}

async fn run<S: Service>(service: S, outside: &Outside) -> turmoil::Result {
    let card = Card::new(&outside.ledger, &outside.pace);
    let network = Network::Other(Arc::new(card));
    let address = SocketAddr::from(([0, 0, 0, 0], 4037));
    let listener = Listener::Host(network.bind(address).await?);
    let config = ServerConfig {
        // Small, so that credit is waited for.
        window_octets: 16 * 1024,
        clock: Clock::Other(Arc::new(wall_clock)),
        ..ServerConfig::default()
    };
    serve(
        Arc::new(service),
        listener,
        config,
        CancellationToken::new(),
    )
    .await?;
    Ok(())
}

impl Outside {
    fn at_work(&self) -> AtWork {
        self.ledger.facts().handlers += 1;
        AtWork(self.ledger.clone())
    }

    async fn pause(&self) {
        // Afterwards every message must get through.
        if now_ms() > HEALED_MS {
            return;
        }
        let pause = self.random.below(self.pause_max_ms + 1);
        sleep(Duration::from_millis(pause)).await;
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.facts().handlers -= 1;
    }
}

impl Service for Judge {
    fn describe(&self) -> Description {
        Description::new("judge")
            .whole_content()
            .message_context([ContextField::Recipients])
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let _at_work = self.0.at_work();
        let content = message.read_all(CONTENT_MAX).await?;
        self.0.pause().await;
        let attempt = attempt_in(&content);
        let first_try = attempt.is_some_and(|(_, attempt)| attempt == 1);
        let subject = subject_in(&content).unwrap_or_default();
        let says = |word: &str| subject.starts_with(word);
        self.0.ledger.facts().judged.extend(attempt);
        let bad = Answer::reject(550, "5.7.1", "bad");
        let suspect = Answer::accept().quarantine("suspect");
        Ok(if says("Bad") {
            bad
        } else if says("Suspect") {
            suspect
        } else if says("Mixed") {
            let answer = for_those(Answer::accept(), message, SUSPECT_FOR, suspect);
            for_those(answer, message, BAD_FOR, bad)
        } else if says("Grey") && first_try {
            Answer::tempfail(451, "4.7.1", "come again")
        } else {
            Answer::accept()
        })
    }
}

impl Service for Adapter {
    fn describe(&self) -> Description {
        Description::new("adapter")
            .whole_content()
            .message_context([ContextField::Recipients])
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let _at_work = self.0.at_work();
        let mut seen = Vec::new();
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            match message.chunk().await? {
                Some(octets) => seen.extend_from_slice(&octets),
                None => anyhow::bail!("a message without a body"),
            }
        }
        self.0.pause().await;
        let attempt = attempt_in(&seen);
        let subject = subject_in(&seen).unwrap_or_default();
        let manner = subject.rsplit(' ').next().unwrap_or_default();
        let header = seen
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(0, |at| at + 4);
        let answer = match manner {
            "Flow" => self.refer(message, header, seen.len()).await,
            "Copy" => self.repeat(message, header, seen).await,
            "Apart" => self.part(message, header, seen.len()).await,
            _ => Self::edit(message, header, seen.len()).await,
        };
        if answer.is_ok() {
            self.0.ledger.facts().adapted.extend(attempt);
        }
        answer
    }
}

/// `answer`, with `other` for those of the message's recipients whose addresses start so.
fn for_those(answer: Answer, message: &Message, start: &str, other: Answer) -> Answer {
    let recipients = message.context().recipients.iter();
    let mut those = recipients
        .map(|recipient| recipient.address.as_str())
        .filter(|address| address.starts_with(start))
        .peekable();
    if those.peek().is_none() {
        return answer;
    }
    answer.for_recipients(those, other)
}

impl Adapter {
    async fn part(
        &self,
        message: &mut Message,
        header: usize,
        seen: usize,
    ) -> anyhow::Result<Answer> {
        anyhow::ensure!(message.takes_copies());
        let size = seen + message.read_all(CONTENT_MAX).await?.len();
        let mut adapted = message.adapt();
        adapted.use_mine(ADDED_FIELD).await?;
        adapted.use_yours(0..header as u64).await?;
        adapted.use_mine(ADDED_HEAD).await?;
        self.0.pause().await;
        adapted.use_yours(header as u64..size as u64).await?;
        adapted.use_mine(ADDED_TAIL).await?;
        let apart = adapted.end_message();
        adapted.finish().await?;
        let apart = Answer::accept().with_message(apart);
        Ok(for_those(Answer::accept(), message, APART_FOR, apart))
    }

    async fn edit(message: &mut Message, header: usize, seen: usize) -> anyhow::Result<Answer> {
        let size = seen + message.read_all(CONTENT_MAX).await?.len();
        Ok(Answer::accept()
            .add_header("X-Adapted", "yes")
            .splice(header as u64, 0, ADDED_HEAD)
            .splice(size as u64, 0, ADDED_TAIL))
    }

    async fn refer(
        &self,
        message: &mut Message,
        header: usize,
        seen: usize,
    ) -> anyhow::Result<Answer> {
        let mut adapted = message.adapt();
        adapted.use_mine(ADDED_FIELD).await?;
        adapted.use_yours(0..header as u64).await?;
        adapted.use_mine(ADDED_HEAD).await?;
        self.0.pause().await;
        let mut at = seen as u64;
        adapted.use_yours(header as u64..at).await?;
        while let Some(octets) = message.chunk().await? {
            adapted.use_yours(at..at + octets.len() as u64).await?;
            at += octets.len() as u64;
        }
        adapted.use_mine(ADDED_TAIL).await?;
        adapted.finish().await?;
        Ok(Answer::accept())
    }

    async fn repeat(
        &self,
        message: &mut Message,
        header: usize,
        seen: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let mut adapted = message.adapt();
        adapted.use_mine(ADDED_FIELD).await?;
        adapted.use_mine(seen[..header].to_vec()).await?;
        adapted.use_mine(ADDED_HEAD).await?;
        adapted.use_mine(seen[header..].to_vec()).await?;
        while let Some(octets) = message.chunk().await? {
            self.0.pause().await;
            adapted.use_mine(octets).await?;
        }
        adapted.use_mine(ADDED_TAIL).await?;
        adapted.finish().await?;
        Ok(Answer::accept())
    }
}
