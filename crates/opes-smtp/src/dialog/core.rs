//! Plays a script against a [`Session`], without sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use secrecy::ExposeSecret;

use super::{Answer, DialogError, Script, Settings, StepKind, matches};
use crate::auth::Credentials;
use crate::reply::Reply;
use crate::server::{
    Action, Check, ConnectionInfo, ContentReply, RespondError, Response, Session, TlsInfo,
};

/// Address of the client in scripts.
const CLIENT: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 138)),
    49152,
);

/// A session, the shell around it, and what came of it.
#[derive(Debug)]
pub struct Player<'a> {
    settings: &'a Settings,
    session: Session,
    input: BytesMut,
    content: Vec<u8>,
    accepted: VecDeque<Vec<u8>>,
    accepted_count: usize,
    handshake: bool,
    closed: bool,
    line: usize,
}

/// Plays the script; the client's writes arrive in pieces of `piece` octets, or whole if the script asks for it.
pub fn run(script: &Script, piece: usize) -> Result<(), DialogError> {
    let piece = if script.settings.whole {
        usize::MAX
    } else {
        piece.max(1)
    };
    let mut player = Player::new(&script.settings);
    player.pump()?;
    for step in &script.steps {
        player.line = step.line;
        match &step.kind {
            StepKind::Send(octets) => player.send(octets, piece)?,
            StepKind::Expect(pattern) => player.expect(pattern)?,
            StepKind::Handshake => player.do_handshake()?,
            StepKind::Close => player.expect_close()?,
            StepKind::Message(octets) => player.expect_message(octets)?,
        }
    }
    player.finish()
}

impl<'a> Player<'a> {
    /// A connection on which nothing has happened yet.
    pub fn new(settings: &'a Settings) -> Self {
        let tls = settings.implicit_tls.then(TlsInfo::default);
        let connection = ConnectionInfo {
            client: CLIENT,
            tls,
        };
        Self {
            settings,
            session: Session::new(Arc::new(settings.config.clone()), connection),
            input: BytesMut::new(),
            content: Vec::new(),
            accepted: VecDeque::new(),
            accepted_count: 0,
            handshake: false,
            closed: false,
            line: 0,
        }
    }

    /// Lets the client write.
    pub fn send(&mut self, octets: &[u8], piece: usize) -> Result<(), DialogError> {
        for part in octets.chunks(piece) {
            if self.handshake {
                return Err(self.error("the client writes while a TLS handshake is due"));
            }
            self.input.extend_from_slice(part);
            self.pump()?;
        }
        Ok(())
    }

    /// Everything that the server has written and nobody has read.
    pub fn take_output(&mut self) -> BytesMut {
        self.session.output().split()
    }

    /// Contents of the accepted messages that no step has looked at.
    pub fn accepted(&self) -> impl Iterator<Item = &[u8]> {
        self.accepted.iter().map(Vec::as_slice)
    }

    /// True once the server has closed.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Does what the session asks until it needs the client.
    pub fn pump(&mut self) -> Result<(), DialogError> {
        while !self.closed && !self.handshake {
            match self.session.poll(&mut self.input) {
                Action::NeedInput => return Ok(()),
                Action::Check(check) => self.answer(&check)?,
                Action::Authenticate(credentials) => self.authenticate(&credentials)?,
                Action::Content(octets) => self.content.extend_from_slice(&octets),
                Action::ContentEnd => self.finish_content()?,
                Action::TransactionAborted => self.content.clear(),
                Action::StartTls => self.handshake = true,
                Action::Close => self.closed = true,
            }
        }
        Ok(())
    }

    fn answer(&mut self, check: &Check) -> Result<(), DialogError> {
        let response = match self.answer_for(check_line(check)) {
            None => Response::Proceed,
            Some(Answer::Replies(replies)) => Response::Refuse(first(replies)),
            Some(Answer::Line(line)) => Response::ProceedWith(Bytes::from(line.clone())),
        };
        match self.session.respond(response) {
            // As an edge with failure policy "tempfail" would do.
            Err(RespondError::Replacement(_)) => {
                self.respond(Response::Refuse(Reply::SERVICE_UNAVAILABLE))
            }
            other => other.map_err(|error| self.error(error.to_string())),
        }
    }

    fn answer_for(&self, line: &[u8]) -> Option<&'a Answer> {
        let found = self
            .settings
            .answers
            .iter()
            .find(|(key, _)| key.as_bytes() == line);
        found.map(|(_, answer)| answer)
    }

    fn authenticate(&mut self, credentials: &Credentials) -> Result<(), DialogError> {
        let right = self.settings.users.iter().any(|(name, password)| {
            *name == credentials.identity && password == credentials.password.expose_secret()
        });
        self.respond(if right {
            Response::AuthOk
        } else {
            Response::AuthFailed
        })
    }

    fn finish_content(&mut self) -> Result<(), DialogError> {
        let content = std::mem::take(&mut self.content);
        let reply = match self.answer_for(b"CONTENT") {
            Some(Answer::Replies(replies)) if replies.len() > 1 => {
                ContentReply::PerRecipient(replies.clone())
            }
            Some(Answer::Replies(replies)) => ContentReply::One(first(replies)),
            Some(Answer::Line(_)) | None => ContentReply::One(Reply::QUEUED),
        };
        let accepted = match &reply {
            ContentReply::One(reply) => reply.is_positive(),
            ContentReply::PerRecipient(replies) => replies.iter().any(Reply::is_positive),
        };
        if accepted {
            self.accepted.push_back(content);
            self.accepted_count += 1;
        }
        self.respond(Response::Content(reply))
    }

    fn respond(&mut self, response: Response) -> Result<(), DialogError> {
        self.session
            .respond(response)
            .map_err(|error| self.error(error.to_string()))
    }

    fn expect(&mut self, pattern: &str) -> Result<(), DialogError> {
        let output = self.session.output();
        let Some(end) = memchr::memmem::find(output, b"\r\n") else {
            return Err(self.error(format!("expected {pattern:?}, the server said nothing")));
        };
        let line = output.split_to(end + 2);
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r\n").unwrap_or(&line));
        if matches(self.settings, pattern, &line) {
            return Ok(());
        }
        Err(self.error(format!("expected {pattern:?}, the server said {line:?}")))
    }

    fn do_handshake(&mut self) -> Result<(), DialogError> {
        if !std::mem::take(&mut self.handshake) {
            return Err(self.error("the server asks for no handshake"));
        }
        self.session.tls_established(TlsInfo::default());
        self.pump()
    }

    fn expect_close(&mut self) -> Result<(), DialogError> {
        if self.closed {
            Ok(())
        } else {
            Err(self.error("the server does not close"))
        }
    }

    fn expect_message(&mut self, octets: &[u8]) -> Result<(), DialogError> {
        let Some(message) = self.accepted.pop_front() else {
            return Err(self.error("no message has been accepted"));
        };
        if message == octets {
            return Ok(());
        }
        let (message, octets) = (message.escape_ascii(), octets.escape_ascii());
        Err(self.error(format!("message is {message}, expected {octets}")))
    }

    fn finish(mut self) -> Result<(), DialogError> {
        let rest = self.take_output();
        if !rest.is_empty() {
            return Err(self.error(format!(
                "then the server said {:?}",
                rest.escape_ascii().to_string()
            )));
        }
        match self.settings.messages {
            Some(expected) if expected != self.accepted_count => Err(self.error(format!(
                "{} messages accepted, expected {expected}",
                self.accepted_count
            ))),
            _ => Ok(()),
        }
    }

    fn error(&self, message: impl Into<String>) -> DialogError {
        DialogError::new(self.line, message)
    }
}

/// The key of `answer:` settings.
fn check_line(check: &Check) -> &[u8] {
    match check {
        Check::Connect => b"CONNECT",
        Check::Helo { line, .. }
        | Check::StartTls { line }
        | Check::Mail { line, .. }
        | Check::Rcpt { line, .. }
        | Check::Data { line } => line,
    }
}

fn first(replies: &[Reply]) -> Reply {
    replies.first().cloned().unwrap_or(Reply::LOCAL_ERROR)
}
