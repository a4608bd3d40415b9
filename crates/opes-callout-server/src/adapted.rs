//! The adapted flow as a handler makes it: [`Adapted`], one message or several that go to different recipients.
//!
//! Octets of the service's own wait for credit; ranges of the original cost nothing and wait for nobody.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use opes_proto::smtp;

use crate::link::{Ending, Link, Said};
use crate::message::{MessageError, Outbox};

/// Largest payload of one DUM that the harness sends, in octets; keeps frames small and neighbours served.
pub const FRAGMENT_OCTETS_MAX: usize = 64 * 1024;

/// The adapted flow. It must be finished before the handler returns, otherwise the transaction fails.
#[derive(Debug)]
pub struct Adapted {
    link: Arc<Link>,
    outbox: Outbox,
    /// Range of the original not yet sent as DUY; neighbours become one message.
    pending: Range<u64>,
    /// End of the message that ended last, in octets of the flow.
    ended: u64,
}

/// One of several messages in an adapted flow; see [`Adapted::end_message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptedMessage {
    offset: u64,
    size: u64,
}

impl AdaptedMessage {
    /// As the profile has it.
    pub(crate) fn range(self) -> smtp::Range {
        let Self { offset, size } = self;
        smtp::Range { offset, size }
    }
}

impl Adapted {
    pub(crate) fn start(link: Arc<Link>, outbox: Outbox) -> Self {
        link.lock().adapting = true;
        Self {
            link,
            outbox,
            pending: 0..0,
            ended: 0,
        }
    }

    /// What was sent since the last call, or since the start, is one of several messages:
    /// [`Answer::with_message`](crate::Answer::with_message) says who gets it. Only if [`Message::takes_copies`](crate::Message::takes_copies).
    ///
    /// Once a flow has such messages, an answer without one stands for the original, unchanged. Octets after the last call are nobody's.
    pub fn end_message(&mut self) -> AdaptedMessage {
        let mut shared = self.link.lock();
        shared.several = true;
        let offset = std::mem::replace(&mut self.ended, shared.flow);
        AdaptedMessage {
            offset,
            size: shared.flow - offset,
        }
    }

    /// The next octets of the adapted message (DUM). Waits for credit.
    pub async fn use_mine(&mut self, octets: impl Into<Bytes>) -> Result<(), MessageError> {
        let mut octets = octets.into();
        self.flush_yours().await?;
        self.count(octets.len() as u64);
        while !octets.is_empty() {
            let size = self.reserve(octets.len().min(FRAGMENT_OCTETS_MAX)).await?;
            self.outbox
                .say(Said::UseMine(octets.split_to(size)))
                .await?;
        }
        Ok(())
    }

    /// The next octets are this range of the original (DUY): costs a few octets on the wire, whatever its size.
    pub async fn use_yours(&mut self, range: Range<u64>) -> Result<(), MessageError> {
        self.count(range.end.saturating_sub(range.start));
        if self.pending.end == range.start && !self.pending.is_empty() {
            self.pending.end = range.end.max(range.start);
            return Ok(());
        }
        self.flush_yours().await?;
        self.pending = range;
        Ok(())
    }

    fn count(&self, octets: u64) {
        let mut shared = self.link.lock();
        shared.flow = shared.flow.saturating_add(octets);
    }

    async fn flush_yours(&mut self) -> Result<(), MessageError> {
        self.check_open()?;
        let range = std::mem::replace(&mut self.pending, 0..0);
        if range.is_empty() {
            return Ok(());
        }
        let size = range.end - range.start;
        // No credit is taken: no octet of it travels.
        self.outbox
            .say(Said::UseYours {
                offset: range.start,
                size,
            })
            .await
    }

    fn check_open(&self) -> Result<(), MessageError> {
        if self.link.lock().ending.is_some() {
            Err(MessageError::Finished)
        } else {
            Ok(())
        }
    }

    async fn reserve(&self, wanted: usize) -> Result<usize, MessageError> {
        loop {
            let writable = self.link.writable.notified();
            {
                let mut shared = self.link.lock();
                let left = shared.adapted_limit.saturating_sub(shared.adapted);
                let size = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
                if size > 0 {
                    shared.adapted += size as u64;
                    return Ok(size);
                }
            }
            writable.await;
        }
    }

    /// The adapted message is complete.
    pub async fn finish(mut self) -> Result<(), MessageError> {
        self.flush_yours().await?;
        self.link.lock().ending = Some(Ending::Whole);
        Ok(())
    }

    /// The original from octet `from` on follows what was sent (AME 206): nothing of it travels back.
    pub async fn finish_with_rest(mut self, from: u64) -> Result<(), MessageError> {
        if self.link.lock().several {
            return Err(MessageError::RestOfSeveral);
        }
        self.flush_yours().await?;
        self.link.lock().ending = Some(Ending::Rest(from));
        Ok(())
    }
}
