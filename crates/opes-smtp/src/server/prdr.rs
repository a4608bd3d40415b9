//! PRDR (draft-hall-prdr-00): after the content of one transaction, a reply for each recipient.
//!
//! The block is 353, one reply for each accepted recipient in the order of RCPT, and one for all. Where every recipient has the same reply,
//! that reply alone is the answer, as it is for content that was refused on the way; clients take either (Exim does the same).

use super::Session;
use crate::command::HelloVerb;
use crate::reply::Reply;

impl Session {
    /// PRDR may be used after the EHLO that listed it, and not with LMTP, which has replies of its own (RFC 2033 §4.2).
    pub(super) fn offers_prdr(&self) -> bool {
        let greeted = |hello: &super::Hello| hello.verb == HelloVerb::Ehlo;
        self.config.prdr && !self.is_lmtp() && self.hello.as_ref().is_some_and(greeted)
    }

    pub(super) fn is_prdr(&self) -> bool {
        self.transaction
            .as_ref()
            .is_some_and(|transaction| transaction.prdr)
    }

    /// `replies` is in the order of RCPT, at least one.
    pub(super) fn push_prdr(&mut self, replies: &[Reply]) {
        let Some((first, others)) = replies.split_first() else {
            return;
        };
        if others.iter().all(|reply| reply == first) {
            return self.push(first);
        }
        self.push(&Reply::RECIPIENT_REPLIES_FOLLOW);
        for reply in replies {
            self.push(reply);
        }
        self.push(&overall(replies));
    }
}

/// The reply for all. Clients take a refusal here for every recipient, whatever they were told before: it is positive as soon as one was
/// accepted, and transient as long as trying again can help one.
fn overall(replies: &[Reply]) -> Reply {
    let any = |test: fn(&Reply) -> bool| replies.iter().any(test);
    if replies.iter().all(Reply::is_positive) {
        Reply::ACCEPTED_FOR_ALL
    } else if any(Reply::is_positive) {
        Reply::ACCEPTED_FOR_SOME
    } else if any(Reply::is_transient) {
        Reply::DEFERRED_FOR_SOME
    } else {
        Reply::REFUSED_FOR_ALL
    }
}
