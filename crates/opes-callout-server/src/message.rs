//! Mail data as a handler sees it: [`Message`] to read the original, [`Adapted`] to send a flow of its own.
//!
//! Reading returns credit: the processor sends on as chunks are taken, never more than the window ahead. A handler
//! that only edits headers or gives a verdict needs no [`Adapted`]; one that changes octets everywhere does.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use opes_proto::smtp::Context;
use tokio::sync::mpsc;

use crate::command::GroupParameters;
use crate::link::{Ending, Link, Said};

/// Largest payload of one DUM that the harness sends, in octets; keeps frames small and neighbours served.
pub const FRAGMENT_OCTETS_MAX: usize = 64 * 1024;

/// How many times the first window a processor may be ahead of a handler that reads.
const WINDOWS_AHEAD: u64 = 4;

/// Why the original could not be read or the adapted flow not be sent.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The content is larger than the handler is ready to hold.
    #[error(
        "the content is larger than {max} octets: raise the handler's limit, or read it by chunks"
    )]
    TooLarge {
        /// What the handler had allowed.
        max: usize,
    },
    /// The connection is gone; the handler is about to be dropped.
    #[error(
        "the connection of the transaction is gone: nothing to do, the processor keeps the original"
    )]
    Gone,
    /// Data after the adapted flow's end.
    #[error("the adapted message is finished already: send everything before finish()")]
    Finished,
}

/// The way from a handler to its connection.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    pub(crate) xid: u32,
    pub(crate) sender: mpsc::Sender<(u32, Said)>,
}

impl Outbox {
    pub(crate) async fn say(&self, said: Said) -> Result<(), MessageError> {
        self.sender
            .send((self.xid, said))
            .await
            .map_err(|_| MessageError::Gone)
    }
}

/// One message on its way.
#[derive(Debug)]
pub struct Message {
    pub(crate) context: Context,
    pub(crate) parameters: Arc<GroupParameters>,
    pub(crate) link: Arc<Link>,
    pub(crate) outbox: Outbox,
    pub(crate) window: u64,
    pub(crate) granted: u64,
    pub(crate) taken: u64,
    pub(crate) size: Option<u64>,
}

impl Message {
    /// What the service asked for in its [`Description`](crate::Description).
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The rule on whose behalf this runs.
    pub fn parameters(&self) -> &GroupParameters {
        &self.parameters
    }

    /// Exact size of the whole message in octets (AM-EL), if the processor knew it at the start.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next octets of the original, in order; `None` at the end. Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, MessageError> {
        self.return_credit().await?;
        loop {
            let readable = self.link.readable.notified();
            {
                let mut shared = self.link.lock();
                if let Some(chunk) = shared.chunks.pop_front() {
                    self.taken += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                if shared.ended.is_some() || shared.stopped {
                    return Ok(None);
                }
            }
            readable.await;
        }
    }

    /// Late and in large steps: a small message costs no credit message at all, 20 MiB cost less than 1 KB with the frames around
    /// them. The processor is never more than [`WINDOWS_AHEAD`] windows ahead.
    async fn return_credit(&mut self) -> Result<(), MessageError> {
        let low = self.granted.saturating_sub(self.taken) <= self.window / 2;
        if low && self.link.lock().ended.is_none() {
            let limit = self
                .taken
                .saturating_add(self.window.saturating_mul(WINDOWS_AHEAD));
            self.outbox.say(Said::Credit(limit)).await?;
            self.granted = limit;
        }
        Ok(())
    }

    /// What is left of the content in one piece, at most `max` octets; without a copy if it came in one fragment.
    pub async fn read_all(&mut self, max: usize) -> Result<Bytes, MessageError> {
        let first = self.chunk().await?.unwrap_or_default();
        let Some(second) = self.chunk().await? else {
            return if first.len() > max {
                Err(MessageError::TooLarge { max })
            } else {
                Ok(first)
            };
        };
        let mut all = BytesMut::with_capacity(first.len() + second.len());
        all.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            all.extend_from_slice(&chunk);
            if all.len() > max {
                return Err(MessageError::TooLarge { max });
            }
            next = self.chunk().await?;
        }
        Ok(all.freeze())
    }

    /// Did everything that the rule lets this service see arrive? `None` while it is still coming, `Some(false)` if
    /// the processor sent a part only (header, prefix, or because of [`stop_receiving`](Self::stop_receiving)).
    pub fn is_whole(&self) -> Option<bool> {
        self.link.lock().ended
    }

    /// Enough: the processor need not send the rest (DWSR). [`chunk`](Self::chunk) gives `None` from now on.
    pub async fn stop_receiving(&mut self) -> Result<(), MessageError> {
        let ended = {
            let mut shared = self.link.lock();
            shared.stopped = true;
            shared.chunks.clear();
            shared.ended.is_some()
        };
        if ended {
            Ok(())
        } else {
            self.outbox.say(Said::StopReceiving).await
        }
    }

    /// Starts an adapted flow of the service's own. Reading goes on beside it; both are bounded by credit.
    pub fn adapt(&self) -> Adapted {
        self.link.lock().adapting = true;
        Adapted {
            link: Arc::clone(&self.link),
            outbox: self.outbox.clone(),
            pending: 0..0,
        }
    }
}

/// The adapted flow. It must be finished before the handler returns, otherwise the transaction fails.
#[derive(Debug)]
pub struct Adapted {
    link: Arc<Link>,
    outbox: Outbox,
    /// Range of the original not yet sent as DUY; neighbours become one message.
    pending: std::ops::Range<u64>,
}

impl Adapted {
    /// The next octets of the adapted message (DUM). Waits for credit.
    pub async fn use_mine(&mut self, octets: impl Into<Bytes>) -> Result<(), MessageError> {
        let mut octets = octets.into();
        self.flush_yours().await?;
        while !octets.is_empty() {
            let size = self.reserve(octets.len().min(FRAGMENT_OCTETS_MAX)).await?;
            self.outbox
                .say(Said::UseMine(octets.split_to(size)))
                .await?;
        }
        Ok(())
    }

    /// The next octets are this range of the original (DUY): costs a few octets on the wire, whatever its size.
    pub async fn use_yours(&mut self, range: std::ops::Range<u64>) -> Result<(), MessageError> {
        if self.pending.end == range.start && !self.pending.is_empty() {
            self.pending.end = range.end.max(range.start);
            return Ok(());
        }
        self.flush_yours().await?;
        self.pending = range;
        Ok(())
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
        self.flush_yours().await?;
        self.link.lock().ending = Some(Ending::Rest(from));
        Ok(())
    }
}
