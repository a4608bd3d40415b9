//! One mail transaction: the envelope as it grows (RFC 5321 §3.3).

use crate::grammar::{ForwardPath, Parameters, ReversePath};
use crate::reply::Reply;

/// Everything between MAIL and the reply to the content.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts of one envelope"
)]
pub struct Transaction {
    /// Verbatim, or as a service rewrote it.
    pub reverse_path: ReversePath,
    /// Parameters of MAIL as received.
    pub mail_params: Parameters,
    /// Accepted so far.
    pub recipients: Vec<Recipient>,
    /// BODY (RFC 6152).
    pub body: Body,
    /// The client said SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// SIZE, octets; an estimate of the client (RFC 1870 §6).
    pub size_declared: Option<u64>,
    /// MAIL said PRDR (draft-hall-prdr-00 §4.2): [`super::ContentReply::PerRecipient`] may answer the content.
    pub prdr: bool,
    /// Content received so far, octets.
    pub(super) octets: u64,
    /// A BDAT has been taken: no DATA and no RCPT any more.
    pub(super) chunked: bool,
    /// BDAT: the content so far ends with a CR whose LF has yet to come.
    pub(super) cr: bool,
    /// A RCPT has been refused.
    pub(super) rcpt_refused: bool,
    /// The shell has given up on the content between two chunks.
    pub(super) refusal: Option<Reply>,
}

/// One accepted recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Verbatim, or as a service rewrote it.
    pub address: ForwardPath,
    /// Parameters of RCPT as received.
    pub params: Parameters,
}

/// BODY of MAIL (RFC 6152 §2). What arrives is kept to the octet either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Body {
    /// Also if nothing was said.
    #[default]
    SevenBit,
    /// Octets above 127 may come.
    EightBitMime,
}

/// What the parameters of MAIL say.
#[derive(Debug, Default)]
pub(super) struct MailOptions {
    pub(super) body: Body,
    pub(super) smtputf8: bool,
    pub(super) size_declared: Option<u64>,
    pub(super) prdr: bool,
}

impl Transaction {
    pub(super) fn new(
        reverse_path: ReversePath,
        mail_params: Parameters,
        options: &MailOptions,
    ) -> Self {
        Self {
            reverse_path,
            mail_params,
            recipients: Vec::new(),
            body: options.body,
            smtputf8: options.smtputf8,
            size_declared: options.size_declared,
            prdr: options.prdr,
            octets: 0,
            chunked: false,
            cr: false,
            rcpt_refused: false,
            refusal: None,
        }
    }
}
