//! Cut-through (ADR 0004): the next hop's word is ours, all or nothing, and nothing is kept here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::embedded::Embedded;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::{Dialog, sample, stuffed};
use opes_e2e::{eventually, ports};
use opes_edge::config::{Acceptance, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_spool::{Spool, SpoolConfig};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::timeout;

const FROM: &str = "steve@example.org";
const PAUL: &str = "paul@example.com";
const SANDRA: &str = "sandra@example.com";

/// How long the edge must keep silent for "it waits" to be believed.
const SILENCE: Duration = Duration::from_millis(300);

struct Setup {
    edge: Embedded,
    folder: TempDir,
}

impl Setup {
    async fn start(protocol: ListenerProtocol, next_hop: String, lmtp: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut listener = ListenerConfig::new("in", "127.0.0.1:0".parse()?, protocol);
        listener.delivery = Acceptance::CutThrough;
        let config = EdgeConfig {
            listeners: vec![listener],
            domains: vec!["example.com".into()],
            delivery: DeliveryConfig {
                next_hop: Some(next_hop),
                lmtp,
                ..DeliveryConfig::default()
            },
            ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
        };
        Ok(Self {
            edge: Embedded::start(config, "").await?,
            folder,
        })
    }

    async fn smtp(hop: &Hop) -> Result<(Self, Dialog)> {
        let setup = Self::start(ListenerProtocol::Smtp, hop.address.to_string(), false).await?;
        let dialog = Dialog::open(setup.edge.address("in")?, false).await?;
        Ok((setup, dialog))
    }

    async fn lmtp(hop: &Hop) -> Result<(Self, Dialog)> {
        let setup = Self::start(ListenerProtocol::Lmtp, hop.address.to_string(), true).await?;
        let dialog = Dialog::open(setup.edge.address("in")?, true).await?;
        Ok((setup, dialog))
    }

    /// Ends the edge and reads its spool as the next start would.
    async fn ensure_spool_is_empty(self) -> Result<()> {
        self.edge.drain().await;
        let folder = self.folder.path().join("spool");
        let mut opened = None;
        eventually("the edge lets go of its spool", || {
            opened = Spool::open(&folder, SpoolConfig::default()).ok();
            opened.is_some()
        })
        .await;
        let (_spool, recovered) = opened.context("no spool")?;
        ensure!(
            recovered.is_empty(),
            "{} messages in the spool",
            recovered.len()
        );
        for name in ["incoming", "big", "quarantine"] {
            let left = opes_e2e::postfix::files(&folder.join(name));
            ensure!(left.is_empty(), "left in {name}: {left:?}");
        }
        ensure!(
            !contains(&folder, b"Subject: cut")?,
            "octets of a message are in the spool"
        );
        Ok(())
    }
}

/// Is `needle` in one of the spool's segments?
fn contains(folder: &Path, needle: &[u8]) -> Result<bool> {
    for path in opes_e2e::postfix::files(folder)
        .iter()
        .filter(|path| path.is_file())
    {
        if std::fs::read(path)?
            .windows(needle.len())
            .any(|window| window == needle)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who got each message.
fn receivers(hop: &Hop) -> Vec<Vec<String>> {
    hop.arrivals()
        .into_iter()
        .map(|arrival| arrival.to)
        .collect()
}

fn refusing(recipient: &str, reply: &str) -> Manners {
    Manners {
        recipients: [(recipient.to_owned(), reply.to_owned())].into(),
        ..Manners::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn yes_comes_after_the_next_hops_yes_and_not_before() -> Result<()> {
    let gate = Arc::new(Semaphore::new(0));
    let hop = Hop::start(Manners {
        gate: Some(Arc::clone(&gate)),
        ..Manners::default()
    })
    .await?;
    let (setup, mut dialog) = Setup::smtp(&hop).await?;
    let content = sample("cut", 300 << 10);
    dialog.envelope(FROM, &[PAUL, SANDRA]).await?;
    dialog.send(&stuffed(&content)).await?;
    dialog.send(b".\r\n").await?;
    eventually("the next hop has the message", || hop.complete() == 1).await;
    ensure!(
        timeout(SILENCE, dialog.reply()).await.is_err(),
        "a reply before the next hop's"
    );
    gate.add_permits(1);
    let reply = dialog.reply().await?;
    ensure!(reply.starts_with("250 2."), "{reply}");
    let arrivals = hop.arrivals();
    let [arrival] = arrivals.as_slice() else {
        anyhow::bail!("{} arrivals", arrivals.len())
    };
    ensure!(arrival.to == [PAUL, SANDRA], "{:?}", arrival.to);
    ensure!(
        arrival.content.starts_with(b"Received: ") && arrival.content.ends_with(&content),
        "octets differ"
    );
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_recipients_refused_for_good_and_nobody_gets_it() -> Result<()> {
    let hop = Hop::start(refusing(SANDRA, "550 5.1.1 No such user here")).await?;
    let (setup, mut dialog) = Setup::smtp(&hop).await?;
    let reply = dialog
        .message(FROM, &[PAUL, SANDRA], &sample("cut", 4096))
        .await?;
    ensure!(reply.starts_with('5') || reply.starts_with('4'), "{reply}");
    ensure!(hop.complete() == 0, "delivered to {:?}", receivers(&hop));
    let alone = dialog.message(FROM, &[PAUL], &sample("cut", 4096)).await?;
    ensure!(
        alone.starts_with("250"),
        "on the same connection, without the bad recipient: {alone}"
    );
    ensure!(
        hop.arrivals().len() == 1,
        "{} arrivals",
        hop.arrivals().len()
    );
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_recipients_refused_for_now_and_the_client_keeps_it() -> Result<()> {
    let hop = Hop::start(refusing(PAUL, "451 4.7.1 Greylisted")).await?;
    let (setup, mut dialog) = Setup::smtp(&hop).await?;
    let reply = dialog
        .message(FROM, &[PAUL, SANDRA], &sample("cut", 4096))
        .await?;
    ensure!(reply.starts_with('4'), "{reply}");
    ensure!(hop.complete() == 0, "delivered to {:?}", receivers(&hop));
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_recipient_refused_and_the_client_reads_the_next_hops_words() -> Result<()> {
    let hop = Hop::start(refusing(PAUL, "550 5.1.1 No such user here")).await?;
    let (setup, mut dialog) = Setup::smtp(&hop).await?;
    let reply = dialog.message(FROM, &[PAUL], &sample("cut", 4096)).await?;
    ensure!(
        reply.starts_with("550 5.1.1") && reply.contains("No such user here"),
        "{reply}"
    );
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn content_refused_by_the_next_hop() -> Result<()> {
    for refusal in ["554 5.7.1 Not this message", "452 4.3.1 No space"] {
        let hop = Hop::start(Manners {
            content: vec![refusal.into()],
            ..Manners::default()
        })
        .await?;
        let (setup, mut dialog) = Setup::smtp(&hop).await?;
        let reply = dialog
            .message(FROM, &[PAUL, SANDRA], &sample("cut", 4096))
            .await?;
        ensure!(
            reply.get(..9) == refusal.get(..9),
            "{refusal} became {reply}"
        );
        ensure!(hop.arrivals().is_empty());
        setup.ensure_spool_is_empty().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn next_hop_down_says_451_and_up_again_says_250() -> Result<()> {
    // Nobody listens there.
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free()?));
    let setup = Setup::start(ListenerProtocol::Smtp, address.to_string(), false).await?;
    let mut dialog = Dialog::open(setup.edge.address("in")?, false).await?;
    for _ in 0..2 {
        let reply = dialog.message(FROM, &[PAUL], &sample("cut", 4096)).await?;
        ensure!(reply.starts_with("451 4."), "{reply}");
    }
    let hop = Hop::start_at(address, Manners::default()).await?;
    let reply = dialog.message(FROM, &[PAUL], &sample("cut", 4096)).await?;
    ensure!(
        reply.starts_with("250 2."),
        "with the next hop back: {reply}"
    );
    ensure!(receivers(&hop) == [[PAUL]], "{:?}", receivers(&hop));
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn next_hop_that_dies_before_its_last_word_says_451() -> Result<()> {
    // The gate never opens; the listener's task is dropped with its runtime instead.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let gate = Some(Arc::new(Semaphore::new(0)));
    let hop = runtime
        .spawn(Hop::start(Manners {
            gate,
            ..Manners::default()
        }))
        .await??;
    let (setup, mut dialog) = Setup::smtp(&hop).await?;
    dialog.envelope(FROM, &[PAUL]).await?;
    dialog.send(&stuffed(&sample("cut", 4096))).await?;
    dialog.send(b".\r\n").await?;
    eventually("the next hop has the message", || hop.complete() == 1).await;
    runtime.shutdown_background();
    let reply = dialog.reply().await?;
    ensure!(reply.starts_with("451 4."), "{reply}");
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn lmtp_in_and_out_gives_each_recipient_its_own_reply() -> Result<()> {
    let manners = Manners {
        lmtp: true,
        content: vec![
            "250 2.1.5 Delivered to paul".into(),
            "452 4.2.2 Mailbox full".into(),
        ],
        ..Manners::default()
    };
    let hop = Hop::start(manners).await?;
    let (setup, mut dialog) = Setup::lmtp(&hop).await?;
    let first = dialog
        .message(FROM, &[PAUL, SANDRA], &sample("cut", 4096))
        .await?;
    let second = dialog.reply().await?;
    ensure!(first.starts_with("250 2.1.5"), "paul: {first}");
    ensure!(second.starts_with("452 4.2.2"), "sandra: {second}");
    ensure!(hop.arrivals().len() == 1);
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn lmtp_recipient_refused_at_rcpt_does_not_cost_its_neighbour() -> Result<()> {
    let manners = Manners {
        lmtp: true,
        ..refusing(PAUL, "550 5.1.1 No such user here")
    };
    let hop = Hop::start(manners).await?;
    let (setup, mut dialog) = Setup::lmtp(&hop).await?;
    let first = dialog
        .message(FROM, &[PAUL, SANDRA], &sample("cut", 4096))
        .await?;
    let second = dialog.reply().await?;
    ensure!(first.starts_with("550 5.1.1"), "paul: {first}");
    ensure!(second.starts_with("250"), "sandra: {second}");
    ensure!(receivers(&hop) == [[SANDRA]], "{:?}", receivers(&hop));
    setup.ensure_spool_is_empty().await
}

#[tokio::test(flavor = "multi_thread")]
async fn smtp_in_front_of_lmtp_takes_one_recipient_a_transaction() -> Result<()> {
    let hop = Hop::start(Manners {
        lmtp: true,
        ..Manners::default()
    })
    .await?;
    let setup = Setup::start(ListenerProtocol::Smtp, hop.address.to_string(), true).await?;
    let mut dialog = Dialog::open(setup.edge.address("in")?, false).await?;
    ensure!(
        dialog
            .command(&format!("MAIL FROM:<{FROM}>"))
            .await?
            .starts_with("250")
    );
    ensure!(
        dialog
            .command(&format!("RCPT TO:<{PAUL}>"))
            .await?
            .starts_with("250")
    );
    let second = dialog.command(&format!("RCPT TO:<{SANDRA}>")).await?;
    ensure!(second.starts_with("452 4.5.3"), "{second}");
    ensure!(dialog.command("DATA").await?.starts_with("354"));
    let reply = dialog.command("Subject: cut\r\n\r\nx\r\n.").await?;
    ensure!(reply.starts_with("250"), "{reply}");
    setup.ensure_spool_is_empty().await
}
