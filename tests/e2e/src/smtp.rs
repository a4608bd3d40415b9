//! A plain SMTP client for tests: one line at a time, replies as they come.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A dialog with a server.
pub struct Dialog(BufReader<TcpStream>);

impl Dialog {
    /// Connects, reads the greeting, says EHLO (LHLO with `lmtp`).
    pub async fn open(server: SocketAddr, lmtp: bool) -> Result<Self> {
        Self::greeted(server, lmtp, None).await
    }

    /// With EHLO, from this address by the PROXY protocol (version 1), to a listener that believes it.
    pub async fn open_from(server: SocketAddr, client: IpAddr) -> Result<Self> {
        Self::greeted(server, false, Some(client)).await
    }

    async fn greeted(server: SocketAddr, lmtp: bool, client: Option<IpAddr>) -> Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut dialog = Self(BufReader::new(stream));
        match client {
            Some(IpAddr::V4(client)) => {
                let line = format!("PROXY TCP4 {client} 192.0.2.250 4711 25\r\n");
                dialog.send(line.as_bytes()).await?;
            }
            Some(IpAddr::V6(client)) => {
                let line = format!("PROXY TCP6 {client} 2001:db8::250 4711 25\r\n");
                dialog.send(line.as_bytes()).await?;
            }
            None => {}
        }
        let greeting = dialog.reply().await?;
        ensure!(greeting.starts_with("220"), "greeting was {greeting}");
        let hello = if lmtp {
            "LHLO client.example.org"
        } else {
            "EHLO client.example.org"
        };
        ensure!(
            dialog.command(hello).await?.starts_with("250"),
            "EHLO refused"
        );
        Ok(dialog)
    }

    /// Sends a line and returns the last line of the reply.
    pub async fn command(&mut self, line: &str) -> Result<String> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends octets as they are.
    pub async fn send(&mut self, octets: &[u8]) -> Result<()> {
        self.0.write_all(octets).await?;
        Ok(self.0.flush().await?)
    }

    /// MAIL, RCPT, DATA up to 354.
    pub async fn envelope(&mut self, from: &str, to: &[&str]) -> Result<()> {
        let reply = self.command(&format!("MAIL FROM:<{from}>")).await?;
        ensure!(reply.starts_with("250"), "MAIL: {reply}");
        for to in to {
            let reply = self.command(&format!("RCPT TO:<{to}>")).await?;
            ensure!(reply.starts_with("250"), "RCPT: {reply}");
        }
        let reply = self.command("DATA").await?;
        ensure!(reply.starts_with("354"), "DATA: {reply}");
        Ok(())
    }

    /// A whole message (with CRLF at its end); returns the reply to the end of data.
    pub async fn message(&mut self, from: &str, to: &[&str], content: &[u8]) -> Result<String> {
        self.envelope(from, to).await?;
        self.send(&stuffed(content)).await?;
        self.send(b".\r\n").await?;
        self.reply().await
    }

    /// The last line of the next reply.
    pub async fn reply(&mut self) -> Result<String> {
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(
                self.0.read_line(&mut line).await? > 0,
                "connection closed by the server"
            );
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}

/// Dots at the beginnings of lines doubled (RFC 5321 §4.5.2).
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(content.len() + 16);
    let mut line_start = true;
    for octet in content {
        if line_start && *octet == b'.' {
            stuffed.push(b'.');
        }
        stuffed.push(*octet);
        line_start = *octet == b'\n';
    }
    stuffed
}

/// A message of about `octets` octets in lines of 70, recognisable by `name`.
pub fn sample(name: &str, octets: usize) -> Vec<u8> {
    let mut message = format!(
        "From: steve@example.org\r\nTo: paul@example.com\r\nSubject: {name}\r\nMessage-ID: <{name}@example.org>\r\n\r\n"
    )
    .into_bytes();
    let mut line = 0_u64;
    while message.len() < octets {
        message.extend_from_slice(format!("{line:010} {name:.<57}\r\n").as_bytes());
        line += 1;
    }
    message
}
