//! One connection: messages out and in, each written down, each incoming one shown to the [`Observer`] first.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use opes_proto::ocp::message::Kind;
use opes_proto::ocp::{Frame, Message};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::connect::{self, Inbound};
use crate::fault::Fault;
use crate::messages::shown;
use crate::observer::Observer;

/// Messages that a transcript keeps; a scenario has far fewer.
const TRANSCRIPT_LINES_MAX: usize = 500;

/// What a server may send in one scenario before it is told to be out of its mind.
const MESSAGES_MAX: usize = 20_000;

/// What came.
#[derive(Debug)]
pub(crate) enum Incoming {
    Message(Kind),
    /// The stream has ended, with what the transport said.
    Closed(String),
    /// Nothing in the time given.
    Silence,
}

pub(crate) struct Wire {
    frames: Option<mpsc::Sender<Bytes>>,
    inbound: Inbound,
    ready: VecDeque<Message>,
    closed: Option<String>,
    received: usize,
    pub(crate) observer: Observer,
    pub(crate) transcript: Vec<String>,
}

impl Wire {
    pub(crate) fn open(channel: Channel) -> Self {
        let connect::Stream { frames, inbound } = connect::stream(channel);
        Self {
            frames: Some(frames),
            inbound,
            ready: VecDeque::new(),
            closed: None,
            received: 0,
            observer: Observer::default(),
            transcript: Vec::new(),
        }
    }

    /// One frame. A server that has gone is noticed when something is awaited of it.
    pub(crate) async fn send(&mut self, kinds: Vec<Kind>) {
        let mut messages = Vec::with_capacity(kinds.len());
        for kind in kinds {
            self.note("P → S", &shown(&kind));
            self.observer.sent(&kind);
            messages.push(Message { kind: Some(kind) });
        }
        self.put(Frame { messages }.encode_to_vec().into()).await;
    }

    /// One frame of octets that `text` describes.
    pub(crate) async fn send_octets(&mut self, text: &str, octets: Bytes) {
        self.note("P → S", text);
        self.put(octets).await;
    }

    async fn put(&mut self, octets: Bytes) {
        if let Some(frames) = &self.frames {
            // Gone: `next` says so.
            let _gone = frames.send(octets).await;
        }
    }

    /// P's direction of the stream ends.
    pub(crate) fn half_close(&mut self) {
        self.note("P → S", "(end of stream)");
        self.frames = None;
    }

    pub(crate) fn note(&mut self, direction: &str, text: &str) {
        if self.transcript.len() < TRANSCRIPT_LINES_MAX {
            self.transcript.push(format!("{direction}   {text}"));
        }
    }

    /// The next message of S, judged. Unknown kinds are passed over: a later version may send them.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Incoming, Fault> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(message) = self.ready.pop_front() {
                let Some(kind) = message.kind else { continue };
                self.note("S → P", &shown(&kind));
                self.received += 1;
                if self.received > MESSAGES_MAX {
                    return Err(Fault::broken("C-52", "it sends messages without end"));
                }
                self.observer.received(&kind)?;
                return Ok(Incoming::Message(kind));
            }
            if let Some(said) = &self.closed {
                return Ok(Incoming::Closed(said.clone()));
            }
            match tokio::time::timeout_at(deadline, self.inbound.frame()).await {
                Ok(Ok(Some(frame))) => self.ready.extend(frame.messages),
                Ok(Ok(None)) => self.close("end of stream"),
                Ok(Err(status)) => self.close(&format!("{}: {}", status.code(), status.message())),
                Err(_) => return Ok(Incoming::Silence),
            }
        }
    }

    fn close(&mut self, said: &str) {
        self.note("S → P", &format!("({said})"));
        self.closed = Some(said.to_owned());
    }
}
