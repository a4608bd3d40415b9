//! DATA (RFC 5321 §4.1.1.4) and the reply to the content, for LMTP one for each recipient (RFC 2033 §4.2).

use bytes::{Bytes, BytesMut};

use super::answer::wrong_kind;
use super::content::{DataReader, Piece};
use super::{Action, Asked, Check, ContentReply, Phase, RespondError, Session};
use crate::reply::Reply;

/// Content that is arriving after 354.
#[derive(Debug)]
pub(super) struct Data {
    reader: DataReader,
    /// Replies owed at the end if the content is refused on the way.
    replies: usize,
    refusal: Option<Reply>,
}

// === impl Data ===

impl Data {
    pub(super) fn refuse(&mut self, reply: Reply) {
        self.refusal.get_or_insert(reply);
    }
}

// === impl Session ===

impl Session {
    pub(super) fn check_data(&mut self, line: Bytes) -> Action {
        self.asked = Asked::Data;
        Action::Check(Check::Data { line })
    }

    pub(super) fn proceed_data(&mut self) {
        self.phase = Phase::Data(Data {
            reader: DataReader::new(),
            replies: self.content_replies(),
            refusal: None,
        });
        self.push(&Reply::START_MAIL_INPUT);
    }

    /// No 354, so no content follows; the transaction is over (RFC 5321 §4.1.1.4: DATA clears the buffers).
    pub(super) fn refuse_data(&mut self, reply: &Reply) {
        self.push(reply);
        self.abort_transaction();
    }

    pub(super) fn poll_data(&mut self, input: &mut BytesMut) -> Option<Action> {
        let Phase::Data(data) = &mut self.phase else {
            return None;
        };
        match data.reader.next(input) {
            Piece::NeedInput => Some(Action::NeedInput),
            _ if data.refusal.is_none() && data.reader.has_bare_line_end() => {
                data.refuse(Reply::BARE_LINE_END_IN_CONTENT);
                self.abort_transaction();
                None
            }
            Piece::Content(octets) if data.refusal.is_none() => self.take_content(octets),
            Piece::Content(_) => None,
            Piece::End => self.end_of_data(),
        }
    }

    /// Hands content on, up to the size limit.
    pub(super) fn take_content(&mut self, octets: Bytes) -> Option<Action> {
        let transaction = self.transaction.as_mut()?;
        transaction.octets = transaction.octets.saturating_add(octets.len() as u64);
        if transaction.octets <= self.config.size_max {
            return Some(Action::Content(octets));
        }
        match &mut self.phase {
            Phase::Data(data) => data.refuse(Reply::MESSAGE_TOO_LARGE),
            Phase::Chunk(chunk) => chunk.refuse(Reply::MESSAGE_TOO_LARGE),
            _ => {}
        }
        self.abort_transaction();
        None
    }

    fn end_of_data(&mut self) -> Option<Action> {
        let Phase::Data(data) = std::mem::replace(&mut self.phase, Phase::Commands) else {
            return None;
        };
        match data.refusal {
            None => Some(self.ask_about_content()),
            Some(reply) => {
                self.push_times(&reply, data.replies);
                None
            }
        }
    }

    pub(super) fn ask_about_content(&mut self) -> Action {
        self.asked = Asked::ContentEnd;
        Action::ContentEnd
    }

    pub(super) fn finish_content(
        &mut self,
        asked: Asked,
        reply: ContentReply,
    ) -> Result<(), (Asked, RespondError)> {
        if !matches!(asked, Asked::ContentEnd) {
            return Err(wrong_kind(asked));
        }
        match reply {
            ContentReply::One(reply) if is_final(&reply) => self.reply_to_content(&reply),
            ContentReply::One(reply) => return Err((asked, RespondError::ReplyClass(reply))),
            ContentReply::PerRecipient(replies) => {
                self.check_replies(&replies)
                    .map_err(|error| (asked, error))?;
                self.reply_per_recipient(&replies);
            }
        }
        Ok(())
    }

    fn check_replies(&self, replies: &[Reply]) -> Result<(), RespondError> {
        let (given, owed) = (replies.len(), self.recipient_replies());
        if given != owed {
            return Err(RespondError::ReplyCount { given, owed });
        }
        match replies.iter().find(|reply| !is_final(reply)) {
            Some(reply) => Err(RespondError::ReplyClass(reply.clone())),
            None => Ok(()),
        }
    }

    /// One reply, repeated for each recipient in LMTP.
    pub(super) fn reply_to_content(&mut self, reply: &Reply) {
        let replies = vec![reply.clone(); self.content_replies()];
        self.reply_per_recipient(&replies);
    }

    fn reply_per_recipient(&mut self, replies: &[Reply]) {
        if let Some(closing) = replies.iter().find(|reply| reply.closes()).cloned() {
            return self.abort(closing);
        }
        if self.is_prdr() {
            self.push_prdr(replies);
        } else {
            for reply in replies {
                self.push(reply);
            }
        }
        if replies.iter().any(Reply::is_positive) {
            self.idle_commands = 0;
        }
        self.drop_transaction();
    }

    pub(super) fn push_times(&mut self, reply: &Reply, times: usize) {
        for _ in 0..times {
            self.push(reply);
        }
    }

    /// How many replies [`ContentReply::PerRecipient`] must have.
    fn recipient_replies(&self) -> usize {
        match &self.transaction {
            Some(transaction) if transaction.prdr => transaction.recipients.len(),
            _ => self.content_replies(),
        }
    }

    /// How many replies the client expects after content that is refused or accepted as a whole.
    pub(super) fn content_replies(&self) -> usize {
        match &self.transaction {
            Some(transaction) if self.is_lmtp() => transaction.recipients.len(),
            _ => 1,
        }
    }
}

fn is_final(reply: &Reply) -> bool {
    reply.is_positive() || reply.is_refusal()
}
