//! A mail server in front of the edge: hands its message over, and comes again until it was taken or refused for good.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use opes_host::Random;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use crate::ledger::{Ledger, Seen};
use crate::mail::{Attempt, Mail};
use crate::net::{Card, Wire};

/// For one reply, or one write; at least so long for the reply to the content.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Octets of content in one write.
const WRITE_OCTETS: usize = 16 * 1024;

/// Sends `mail` until that is settled. `patience`: for the reply to the content.
pub(crate) async fn run(mail: Mail, ledger: Ledger, random: Random, patience: Duration) {
    sleep(Duration::from_millis(mail.start_ms)).await;
    for number in 1.. {
        let attempt = (mail.number, number);
        ledger.seen(attempt, Seen::Unfinished);
        // An attempt without a verdict stays as it was noted on the way.
        let verdict = send(&mail, attempt, &ledger, &random, patience).await.ok();
        if let Some(seen) = verdict {
            ledger.seen(attempt, seen);
        }
        if matches!(verdict, Some(Seen::Accepted | Seen::Refused)) {
            break;
        }
        sleep(Duration::from_millis(300 + random.below(2500))).await;
    }
    ledger.facts().clients_done += 1;
}

async fn send(
    mail: &Mail,
    attempt: Attempt,
    ledger: &Ledger,
    random: &Random,
    patience: Duration,
) -> io::Result<Seen> {
    let connecting = TcpStream::connect(("edge", 25));
    let stream = timeout(PATIENCE, connecting).await??;
    let mut dialog = Dialog(BufReader::new(
        Card::new(ledger, &Arc::default()).wire(stream),
    ));
    let mut commands = vec!["EHLO client.example.com".to_owned()];
    commands.push(format!("MAIL FROM:<{}>", Mail::sender(attempt)));
    commands.extend(mail.recipients.iter().map(|to| format!("RCPT TO:<{to}>")));
    commands.push("DATA".into());
    if let Some(refusal) = refusal(dialog.reply().await?) {
        return Ok(refusal);
    }
    for command in commands {
        dialog.write(format!("{command}\r\n").as_bytes()).await?;
        if let Some(refusal) = refusal(dialog.reply().await?) {
            return Ok(refusal);
        }
    }
    let content = stuffed(&mail.original(attempt.1));
    // Some clients go away in the middle, the first time.
    let leaves = attempt.1 == 1 && random.below(12) == 0;
    let end = if leaves {
        usize::try_from(random.below(content.len() as u64)).unwrap_or(0)
    } else {
        content.len()
    };
    for slice in content[..end].chunks(WRITE_OCTETS) {
        dialog.write(slice).await?;
        if random.below(6) == 0 {
            sleep(Duration::from_millis(random.below(400))).await;
        }
    }
    if leaves {
        return Err(io::ErrorKind::Interrupted.into());
    }
    ledger.seen(attempt, Seen::NoReply);
    dialog.write(b".\r\n").await?;
    let code = dialog.reply_within(patience).await?;
    let seen = refusal(code).unwrap_or(Seen::Accepted);
    // A polite client says QUIT; whether that gets through is of no interest.
    let _ = dialog.write(b"QUIT\r\n").await;
    Ok(seen)
}

fn refusal(code: u16) -> Option<Seen> {
    match code {
        200..400 => None,
        500.. => Some(Seen::Refused),
        _ => Some(Seen::RefusedForNow),
    }
}

fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            octets.push(b'.');
        }
        octets.extend_from_slice(line);
    }
    octets
}

struct Dialog(BufReader<Wire>);

impl Dialog {
    async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.0.write_all(octets)).await?
    }

    /// The code of the next reply.
    async fn reply(&mut self) -> io::Result<u16> {
        self.reply_within(PATIENCE).await
    }

    async fn reply_within(&mut self, patience: Duration) -> io::Result<u16> {
        loop {
            let mut line = String::new();
            let read = timeout(patience, self.0.read_line(&mut line)).await??;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| code.parse().ok());
                return code.ok_or_else(|| io::ErrorKind::InvalidData.into());
            }
        }
    }
}
