//! The next hop: takes mail, knows no `nobody`, and remembers what it took whatever happens to its process.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use opes_host::Random;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpListener;

use crate::ledger::{Delivery, Ledger, now_ms};
use crate::mail::{Attempt, Mail};
use crate::net::{Card, Pace, Wire};

/// For one line.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the next hop is like.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) ledger: Ledger,
    pub(crate) random: Random,
    pub(crate) pace: Arc<Pace>,
    /// Refuses a recipient for now every so often; 0 = never.
    pub(crate) greylists: u64,
    /// The known bug: says 250 and forgets the message every so often; 0 = never.
    pub(crate) forgets: u64,
}

/// The transaction that is open.
#[derive(Default)]
struct Transaction {
    sender: String,
    recipients: BTreeSet<String>,
}

/// Serves until the process is killed.
pub(crate) async fn run(hop: Hop) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 25)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let card = Card::new(&hop.ledger, &hop.pace);
        let session = serve(hop.clone(), BufReader::new(card.wire(stream)));
        // A connection that breaks is the edge's affair.
        tokio::spawn(async move { drop(session.await) });
    }
}

async fn serve(hop: Hop, mut stream: BufReader<Wire>) -> io::Result<()> {
    say(&mut stream, "220 hop.example.org ESMTP").await?;
    let mut transaction = Transaction::default();
    loop {
        let line = read_line(&mut stream).await?;
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = text.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => {
                say(
                    &mut stream,
                    "250-hop.example.org\r\n250-PIPELINING\r\n250 8BITMIME",
                )
                .await?;
            }
            "MAIL" => {
                transaction = Transaction {
                    sender: path(&text),
                    ..Transaction::default()
                };
                say(&mut stream, "250 2.1.0 ok").await?;
            }
            "RCPT" => {
                let reply = hop.recipient(&mut transaction, path(&text));
                say(&mut stream, reply).await?;
            }
            "DATA" if transaction.recipients.is_empty() => {
                say(&mut stream, "503 5.5.1 no recipients").await?;
            }
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                let octets = content(&mut stream).await?;
                sleep(Duration::from_millis(hop.random.below(40))).await;
                hop.take(std::mem::take(&mut transaction), octets);
                say(&mut stream, "250 2.0.0 taken").await?;
            }
            "RSET" | "NOOP" => say(&mut stream, "250 2.0.0 ok").await?,
            "QUIT" => return say(&mut stream, "221 2.0.0 bye").await,
            _ => say(&mut stream, "500 5.5.2 what?").await?,
        }
    }
}

async fn say(stream: &mut BufReader<Wire>, reply: &str) -> io::Result<()> {
    let reply = format!("{reply}\r\n");
    timeout(PATIENCE, stream.write_all(reply.as_bytes())).await?
}

async fn read_line(stream: &mut BufReader<Wire>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    match timeout(PATIENCE, stream.read_until(b'\n', &mut line)).await?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ if !line.ends_with(b"\r\n") => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

async fn content(stream: &mut BufReader<Wire>) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line == b".\r\n" {
            return Ok(octets);
        }
        octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// The address in `MAIL FROM:<…>` or `RCPT TO:<…>`.
fn path(command: &str) -> String {
    let inner = command
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(path, _)| path.to_owned()).unwrap_or_default()
}

impl Hop {
    fn recipient(&self, transaction: &mut Transaction, recipient: String) -> &'static str {
        if recipient.starts_with("nobody@") {
            if let Some(attempt) = Mail::attempt_of(&transaction.sender) {
                self.ledger
                    .note(format!("hop refuses {attempt:?} {recipient}"));
                self.ledger.facts().refusals.push((attempt, recipient));
            }
            return "550 5.1.1 no such mailbox";
        }
        if self.greylists > 0 && self.random.below(self.greylists) == 0 {
            return "451 4.7.1 come again";
        }
        transaction.recipients.insert(recipient);
        "250 2.1.5 ok"
    }

    fn take(&self, transaction: Transaction, octets: Vec<u8>) {
        if self.forgets > 0 && self.random.below(self.forgets) == 0 {
            return;
        }
        match Mail::attempt_of(&transaction.sender) {
            Some(attempt) => self.deliver(attempt, transaction.recipients, octets),
            None => self.bounce(&transaction.recipients, &octets),
        }
    }

    fn deliver(&self, attempt: Attempt, recipients: BTreeSet<String>, octets: Vec<u8>) {
        let octets = Arc::new(octets);
        for recipient in recipients {
            self.ledger.note(format!(
                "hop takes {attempt:?} {recipient} {}",
                octets.len()
            ));
            self.ledger.facts().deliveries.push(Delivery {
                at_ms: now_ms(),
                attempt,
                recipient,
                octets: Arc::clone(&octets),
            });
        }
    }

    fn bounce(&self, recipients: &BTreeSet<String>, octets: &[u8]) {
        let text = String::from_utf8_lossy(octets);
        let failed = text
            .lines()
            .filter_map(|line| line.strip_prefix("Final-Recipient: rfc822;"))
            .map(|recipient| recipient.trim().to_owned());
        let failed: Vec<_> = failed.collect();
        for attempt in recipients.iter().filter_map(|to| Mail::attempt_of(to)) {
            self.ledger
                .note(format!("hop takes the report on {attempt:?} {failed:?}"));
            let bounces = failed
                .iter()
                .map(|recipient| (now_ms(), attempt, recipient.clone()));
            self.ledger.facts().bounces.extend(bounces);
        }
    }
}
