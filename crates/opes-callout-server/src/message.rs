//! Mail data as a handler sees it: [`Message`] to read the original, [`Adapted`](crate::Adapted) to send a flow of its own.
//!
//! Reading returns credit: the processor sends on as chunks are taken, never more than the window ahead. A handler
//! that only edits headers or gives a verdict needs no adapted flow; one that changes octets everywhere does.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use opes_proto::smtp::{Context, Point};
use tokio::sync::mpsc;

use crate::adapted::Adapted;
use crate::command::GroupParameters;
use crate::link::{Link, Said};

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
    /// The rest of the original would belong to none of several messages.
    #[error(
        "finish_with_rest() after end_message(): name the rest with use_yours(from..size), then end_message() and finish()"
    )]
    RestOfSeveral,
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
    pub(crate) point: Point,
    pub(crate) context: Context,
    pub(crate) parameters: Arc<GroupParameters>,
    pub(crate) link: Arc<Link>,
    pub(crate) outbox: Outbox,
    pub(crate) window: u64,
    pub(crate) granted: u64,
    pub(crate) taken: u64,
    pub(crate) size: Option<u64>,
    pub(crate) takes_copies: bool,
}

impl Message {
    /// Where the message stands. At [`Point::Answered`], [`Point::Delivered`], [`Point::Deferred`] and [`Point::Bounced`] there is no
    /// content, only the context.
    pub fn point(&self) -> Point {
        self.point
    }

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

    /// May the answer be another one [`for_recipients`](crate::Answer::for_recipients), and the adapted flow hold
    /// [several messages](Adapted::end_message)? As negotiated with this processor; if not, give one answer for all.
    pub fn takes_copies(&self) -> bool {
        self.takes_copies
    }

    /// Told at the start (AM-EL, or the context if it was asked for), or counted at its end.
    pub(crate) fn original_size(&self) -> Option<u64> {
        let shared = self.link.lock();
        let counted = (shared.ended == Some(true)).then_some(shared.received);
        self.size.or(self.context.size).or(counted)
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
        Adapted::start(Arc::clone(&self.link), self.outbox.clone())
    }
}
