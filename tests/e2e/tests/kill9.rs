//! `kill -9` under load: what was answered 250 is delivered after the restart, and not twice by our doing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use opes_e2e::smtp::{Dialog, sample};
use opes_e2e::{Daemon, eventually, opes};
use tokio::sync::Mutex;

const ROUNDS: usize = 10;
const CLIENTS: usize = 8;
/// Acknowledged messages of a round before the kill comes.
const ACKNOWLEDGED_MIN: usize = 40;
/// Connections to the next hop. On each, one message at a time is between the next hop's 250 and our note of it, however long that takes.
const CONNECTIONS: usize = 4;
/// How long a round lasts at least: there are many notes older than what is in flight.
const ROUND_MIN: Duration = Duration::from_millis(1200);
/// Between two messages of a client: the load is to be steady, not the most there can be.
const PAUSE: Duration = Duration::from_millis(5);

fn start(config: &Path) -> Result<Daemon> {
    opes([
        "edge".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ])
}

fn config(folder: &Path, delivery: &str) -> Result<std::path::PathBuf> {
    let path = folder.join("edge.yaml");
    let text = format!(
        "hostname: mail.example.com\nspool: {0}/spool\ndomains: [example.com]\ndelivery: {delivery}\nlisteners:\n  - {{ name: mx, address: '127.0.0.1:0' }}\n",
        folder.display()
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Sends until the server goes away; notes what was acknowledged.
async fn load(
    server: std::net::SocketAddr,
    client: String,
    acknowledged: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
) {
    let Ok(mut dialog) = Dialog::open(server, false).await else {
        return;
    };
    for number in 0.. {
        let name = format!("{client}-{number}");
        let message = sample(&name, 1024);
        match dialog
            .message("steve@example.org", &["paul@example.com"], &message)
            .await
        {
            Ok(reply) if reply.starts_with("250") => acknowledged.lock().await.push(name),
            Ok(_) | Err(_) => return,
        }
        tokio::time::sleep(PAUSE).await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// What happened until the kill.
struct Round {
    acknowledged: Vec<String>,
    killed: Instant,
}

/// One round of load that ends with the kill.
async fn round(number: usize, config: &Path) -> Result<Round> {
    let mut edge = start(config)?;
    let (acknowledged, stop) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::<AtomicBool>::default(),
    );
    let server = edge.address("mx");
    let started = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let name = format!("r{number}c{client}");
            tokio::spawn(load(
                server,
                name,
                Arc::clone(&acknowledged),
                Arc::clone(&stop),
            ))
        })
        .collect();
    let counted = AtomicUsize::new(0);
    // A different moment of the commit cycle in each round.
    let enough = ACKNOWLEDGED_MIN + 7 * number;
    while counted.load(Ordering::Relaxed) < enough || started.elapsed() < ROUND_MIN {
        counted.store(acknowledged.lock().await.len(), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let killed = Instant::now();
    edge.kill();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    let acknowledged = acknowledged.lock().await.clone();
    Ok(Round {
        acknowledged,
        killed,
    })
}

fn subject(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    text.lines()
        .find_map(|line| line.strip_prefix("Subject: "))
        .map(str::to_owned)
}

fn maildir(folder: &Path) -> Vec<String> {
    let mailbox = folder.join("mail/example.com/paul");
    let files = ["new", "cur"]
        .into_iter()
        .flat_map(|name| opes_e2e::postfix::files(&mailbox.join(name)));
    files
        .filter_map(|path| subject(&std::fs::read(path).ok()?))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_maildir_every_acknowledged_message_exactly_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("mail"))?;
    let config = config(
        folder.path(),
        &format!("{{ maildir: {}/mail }}", folder.path().display()),
    )?;
    let mut acknowledged = BTreeSet::new();
    for number in 0..ROUNDS {
        acknowledged.extend(round(number, &config).await?.acknowledged);
    }
    let _edge = start(&config)?;
    eventually("every acknowledged message in the Maildir", || {
        let delivered: BTreeSet<_> = maildir(folder.path()).into_iter().collect();
        acknowledged.is_subset(&delivered)
    })
    .await;
    let delivered = maildir(folder.path());
    let different: BTreeSet<_> = delivered.iter().collect();
    ensure!(
        different.len() == delivered.len(),
        "{} files for {} messages",
        delivered.len(),
        different.len()
    );
    println!(
        "{} acknowledged in {ROUNDS} rounds, {} delivered",
        acknowledged.len(),
        delivered.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn to_a_next_hop_every_acknowledged_message_and_none_twice_but_those_in_flight() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let sink = opes_e2e::sink::Sink::start().await?;
    let config = config(
        folder.path(),
        &format!(
            "{{ nextHop: '{}', connectionsMax: {CONNECTIONS} }}",
            sink.address
        ),
    )?;
    let mut acknowledged = BTreeSet::new();
    let mut kills = Vec::new();
    for number in 0..ROUNDS {
        let round = round(number, &config).await?;
        acknowledged.extend(round.acknowledged);
        kills.push(round.killed);
    }
    let _edge = start(&config)?;
    eventually("every acknowledged message at the next hop", || {
        if sink.count() < acknowledged.len() {
            return false;
        }
        let arrived = sink
            .arrivals()
            .into_iter()
            .filter_map(|arrival| subject(&arrival.content))
            .collect();
        acknowledged.is_subset(&arrived)
    })
    .await;
    let mut first = BTreeMap::new();
    // By the number of kills before the first 250.
    let mut twice: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for arrival in sink.arrivals() {
        let name = subject(&arrival.content).context("no subject")?;
        let Some(answered) = first.insert(name.clone(), arrival.answered) else {
            continue;
        };
        let before = kills.iter().filter(|kill| **kill < answered).count();
        twice.entry(before).or_default().push(name);
    }
    for (before, names) in &twice {
        // RFC 1047: the next hop's 250 was on its way, or just here, when the kill came. More than one on each connection is our doing; the
        // sink may answer what was in its sockets even after the edge is gone, which looks like the next round's.
        ensure!(
            names.len() <= 2 * CONNECTIONS,
            "after kill {before}, more came twice than were in flight: {names:?}"
        );
    }
    let twice: usize = twice.values().map(Vec::len).sum();
    println!(
        "{} acknowledged, {} arrived, {twice} in flight at a kill came twice",
        acknowledged.len(),
        first.len()
    );
    ensure!(!acknowledged.is_empty(), "nothing was acknowledged");
    Ok(())
}
