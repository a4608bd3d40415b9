//! `opes send`: one message to a server over SMTP, and whether it was answered as expected. For `helm test` and for people who wonder.
//!
//! Speaks in the clear and without AUTH, as a stranger on port 25 would. Fails with the replies that came instead of the expected one.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::BytesMut;
use opes_smtp::client::{
    Action, Client, ClientConfig, DotStuffer, Mail, MailRecipient, Outcome, TlsMode,
};
use opes_smtp::reply::Reply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::cli::{Expectation, SendArgs};
use crate::time;

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);
/// Largest message that is read from a file.
const OCTETS_MAX: u64 = 64 << 20;
/// Octets read at once; replies are short.
const READ_OCTETS: usize = 4096;

/// What a server did with the connection.
enum Ending {
    /// One reply for each recipient.
    Replies(Vec<Reply>),
    /// It closed without one, or refused the session with the reply.
    Closed(Option<Reply>),
}

/// Sends, prints each recipient's reply, succeeds if all are as expected.
pub(crate) async fn run(args: SendArgs) -> Result<ExitCode> {
    let content = content(&args)?;
    let deadline = Instant::now() + Duration::from_secs(args.patience);
    let sent = timeout_at(deadline, send(&args, &content, deadline)).await;
    let ending = sent.with_context(|| format!("no answer within {} s", args.patience))??;
    let met = match &ending {
        Ending::Replies(replies) => {
            for (recipient, reply) in args.to.iter().zip(replies) {
                println!("{recipient}: {reply}");
            }
            replies.iter().all(|reply| args.expect.is_met(reply))
        }
        Ending::Closed(reply) => {
            match reply {
                Some(reply) => println!("closed: {reply}"),
                None => println!("closed without a word"),
            }
            match reply {
                Some(reply) => args.expect.is_met(reply),
                None => args.expect == Expectation::Closed,
            }
        }
    };
    if !met {
        eprintln!(
            "opes: that is not what was expected: {}",
            args.expect.text()
        );
    }
    Ok(ExitCode::from(u8::from(!met)))
}

/// The message of the command line, or one of our own.
fn content(args: &SendArgs) -> Result<Vec<u8>> {
    let Some(path) = &args.message else {
        let now = time::now_ms();
        return Ok(format!(
            "From: <{}>\r\nTo: <{}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{now}.send@{}>\r\n\r\nSent with `opes send`.\r\n",
            args.from,
            args.to.join(">, <"),
            args.subject,
            time::date_field(now),
            args.helo,
        )
        .into_bytes());
    };
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mut content = Vec::new();
    file.take(OCTETS_MAX + 1)
        .read_to_end(&mut content)
        .with_context(|| format!("cannot read {name}"))?;
    if content.len() as u64 > OCTETS_MAX {
        bail!("{name} has more than {OCTETS_MAX} octets");
    }
    Ok(content)
}

async fn send(args: &SendArgs, content: &[u8], deadline: Instant) -> Result<Ending> {
    let mut stream = connect(args, deadline).await?;
    let mut client = Client::new(ClientConfig {
        hostname: args.helo.clone(),
        lmtp: args.lmtp,
        tls: TlsMode::Off,
    });
    let recipients: Vec<MailRecipient<'_>> = args
        .to
        .iter()
        .map(|address| MailRecipient {
            address,
            params: &[],
        })
        .collect();
    let mail = Mail {
        reverse_path: &args.from,
        params: &[],
        size: Some(content.len() as u64),
        body_8bit: !content.is_ascii(),
        smtputf8: false,
        recipients: &recipients,
        all_or_none: false,
    };
    let mut input = BytesMut::with_capacity(READ_OCTETS);
    loop {
        let action = client.poll(&mut input);
        match action {
            Action::NeedInput => exchange(&mut client, &mut stream, &mut input).await,
            Action::Ready => client.begin(&mail)?,
            Action::SendContent => {
                let mut stuffer = DotStuffer::new();
                for slice in stuffer.stuff(content) {
                    client.output().extend_from_slice(slice);
                }
                client.output().extend_from_slice(stuffer.finish());
                client.content_sent();
            }
            Action::Done(Outcome {
                replies, untried, ..
            }) if !untried => {
                goodbye(&mut client, &mut stream).await;
                return Ok(Ending::Replies(replies));
            }
            Action::Done(_) => {}
            Action::Closed(reply) => return Ok(Ending::Closed(reply.filter(|r| !is_ours(r)))),
            Action::StartTls => bail!("TLS was begun, though it is off"),
        }
    }
}

/// What the core says of a connection that broke is no reply of the server's.
fn is_ours(reply: &Reply) -> bool {
    reply.code() == Reply::NEXT_HOP_CONNECTION_LOST.code()
        && reply.enhanced() == Reply::NEXT_HOP_CONNECTION_LOST.enhanced()
}

/// The server may still be on its way: whoever does not listen yet is asked again.
async fn connect(args: &SendArgs, deadline: Instant) -> Result<TcpStream> {
    let host = args.server.trim_start_matches('[').trim_end_matches(']');
    loop {
        match TcpStream::connect((host, args.port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() + PAUSE > deadline => {
                return Err(error)
                    .with_context(|| format!("cannot connect to {host}:{}", args.port));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Writes what is due and reads something.
async fn exchange(client: &mut Client, stream: &mut TcpStream, input: &mut BytesMut) {
    let written = stream.write_all_buf(client.output()).await;
    let read = match written {
        Ok(()) => stream.read_buf(input).await,
        Err(error) => Err(error),
    };
    match read {
        Ok(0) => client.connection_lost("it was closed"),
        Ok(_) => {}
        Err(error) => client.connection_lost(&error.to_string()),
    }
}

/// Nothing depends on it.
async fn goodbye(client: &mut Client, stream: &mut TcpStream) {
    client.quit();
    let _ = stream.write_all_buf(client.output()).await;
    let _ = stream.shutdown().await;
}

// === impl Expectation ===

impl Expectation {
    fn is_met(self, reply: &Reply) -> bool {
        match self {
            Self::Accepted => reply.is_positive(),
            Self::Later => reply.is_transient(),
            Self::Refused => reply.is_permanent(),
            Self::Closed => false,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Accepted => "2xx for every recipient",
            Self::Later => "4xx for every recipient",
            Self::Refused => "5xx for every recipient",
            Self::Closed => "a connection that is closed without a reply",
        }
    }
}

#[cfg(test)]
mod tests;
