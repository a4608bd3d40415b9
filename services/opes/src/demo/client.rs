//! The plainest SMTP client: one message a connection, one command at a time. It shows what a client sees, nothing more.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::samples::Sample;

/// What the server answered, first refusal or last acceptance.
pub(crate) struct Answer {
    /// Replies to RCPT in order, then the reply that decided.
    pub(crate) decisive: String,
    /// Recipients that were accepted.
    pub(crate) accepted: Vec<String>,
}

/// Sends one sample.
pub(crate) async fn send(server: SocketAddr, sample: &Sample) -> Result<Answer> {
    let mut dialog = Dialog::open(server).await?;
    dialog.command("EHLO client.example.org").await?;
    let mail = dialog
        .command(&format!("MAIL FROM:<{}>", sample.from))
        .await?;
    let mut answer = Answer {
        decisive: mail,
        accepted: Vec::new(),
    };
    if answer.decisive.starts_with('2') {
        for recipient in &sample.to {
            let reply = dialog.command(&format!("RCPT TO:<{recipient}>")).await?;
            if reply.starts_with('2') {
                answer.accepted.push(recipient.clone());
            }
            answer.decisive = reply;
        }
    }
    if !answer.accepted.is_empty() {
        answer.decisive = dialog.data(sample).await?;
    }
    dialog.command("QUIT").await?;
    Ok(answer)
}

struct Dialog(BufReader<TcpStream>);

impl Dialog {
    async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server)
            .await
            .with_context(|| format!("cannot connect to {server}"))?;
        stream.set_nodelay(true)?;
        let mut dialog = Self(BufReader::new(stream));
        dialog.reply().await?;
        Ok(dialog)
    }

    async fn command(&mut self, line: &str) -> Result<String> {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn data(&mut self, sample: &Sample) -> Result<String> {
        let go_ahead = self.command("DATA").await?;
        if !go_ahead.starts_with('3') {
            return Ok(go_ahead);
        }
        let content = if sample.raw {
            sample.content.clone()
        } else {
            stuffed(&sample.content)
        };
        self.0
            .write_all(format!("{content}.\r\n").as_bytes())
            .await?;
        self.reply().await
    }

    /// The last line of a reply.
    async fn reply(&mut self) -> Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.0.read_line(&mut line).await?;
            anyhow::ensure!(count > 0, "the server closed the connection");
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}

fn stuffed(content: &str) -> String {
    let stuffed = content.replace("\r\n.", "\r\n..");
    if stuffed.starts_with('.') {
        format!(".{stuffed}")
    } else {
        stuffed
    }
}
