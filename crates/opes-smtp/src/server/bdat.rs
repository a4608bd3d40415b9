//! BDAT (RFC 3030 §2): content in counted chunks, a reply for each.
//!
//! A chunk is always taken out of the input, also when it is refused: its octets must never be read as commands. When the size
//! cannot be read, the connection is closed for the same reason. A refused chunk ends the transaction; further chunks get 503.

use bytes::{Bytes, BytesMut};

use super::content::has_bare_line_end;
use super::{Action, Asked, Check, Phase, Session};
use crate::command::{Command, Verb, parse_argument};
use crate::reply::Reply;

/// One chunk that is arriving.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Octets still to come.
    left: u64,
    last: bool,
    /// Replies owed at the end of this chunk if it is refused.
    replies: usize,
    refusal: Option<Reply>,
}

// === impl Chunk ===

impl Chunk {
    pub(super) fn refuse(&mut self, reply: Reply) {
        self.refusal.get_or_insert(reply);
    }
}

// === impl Session ===

impl Session {
    pub(super) fn on_bdat(
        &mut self,
        line: &Bytes,
        argument: &str,
        sequence: Result<(), Reply>,
    ) -> Option<Action> {
        let (octets, last) = match parse_argument(Verb::Bdat, argument) {
            Ok(Command::Bdat { octets, last }) => (octets, last),
            Ok(_) => return None,
            Err(error) => {
                self.close_with(&error.reply);
                return None;
            }
        };
        match sequence {
            Err(reply) => {
                self.errors = self.errors.saturating_add(1);
                self.refuse_bdat(octets, last, reply);
                None
            }
            Ok(()) => self.check_bdat(line, octets, last),
        }
    }

    /// The processing point is passed once, at the first chunk.
    fn check_bdat(&mut self, line: &Bytes, octets: u64, last: bool) -> Option<Action> {
        let transaction = self.transaction.as_mut()?;
        if let Some(reply) = transaction.refusal.take() {
            self.refuse_bdat(octets, last, reply);
            self.aborted = false;
            return None;
        }
        if transaction.chunked {
            self.proceed_bdat(octets, last);
            return None;
        }
        self.asked = Asked::Bdat { octets, last };
        Some(Action::Check(Check::Data { line: line.clone() }))
    }

    pub(super) fn proceed_bdat(&mut self, octets: u64, last: bool) {
        let replies = self.chunk_replies(last);
        if let Some(transaction) = &mut self.transaction {
            transaction.chunked = true;
        }
        self.phase = Phase::Chunk(Chunk {
            left: octets,
            last,
            replies,
            refusal: None,
        });
    }

    /// Swallows the chunk, then replies.
    pub(super) fn refuse_bdat(&mut self, octets: u64, last: bool, reply: Reply) {
        let replies = self.chunk_replies(last);
        self.abort_transaction();
        self.phase = Phase::Chunk(Chunk {
            left: octets,
            last,
            replies,
            refusal: Some(reply),
        });
    }

    pub(super) fn poll_chunk(&mut self, input: &mut BytesMut) -> Option<Action> {
        let Phase::Chunk(chunk) = &mut self.phase else {
            return None;
        };
        if chunk.left == 0 {
            return self.end_of_chunk();
        }
        if input.is_empty() {
            return Some(Action::NeedInput);
        }
        let octets = usize::try_from(chunk.left)
            .unwrap_or(usize::MAX)
            .min(input.len());
        chunk.left -= octets as u64;
        let octets = input.split_to(octets).freeze();
        if chunk.refusal.is_some() {
            return None;
        }
        let transaction = self.transaction.as_mut()?;
        if has_bare_line_end(&octets, &mut transaction.cr) {
            chunk.refuse(Reply::BARE_LINE_END_IN_CONTENT);
            self.abort_transaction();
            return None;
        }
        self.take_content(octets)
    }

    fn end_of_chunk(&mut self) -> Option<Action> {
        let Phase::Chunk(mut chunk) = std::mem::replace(&mut self.phase, Phase::Commands) else {
            return None;
        };
        if chunk.last
            && self
                .transaction
                .as_ref()
                .is_some_and(|transaction| transaction.cr)
        {
            chunk.refuse(Reply::BARE_LINE_END_IN_CONTENT);
            self.abort_transaction();
        }
        match chunk.refusal {
            Some(reply) => {
                self.push_times(&reply, chunk.replies);
                self.close_if_too_many_errors();
            }
            None if chunk.last => return Some(self.ask_about_content()),
            None => self.push(&Reply::CHUNK_OK),
        }
        None
    }

    /// LMTP replies for each recipient after the last chunk only.
    fn chunk_replies(&self, last: bool) -> usize {
        if last { self.content_replies() } else { 1 }
    }
}
