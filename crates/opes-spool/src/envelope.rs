//! What is known of a message apart from its content. Written as JSON, so that a postmaster can read it with `strings`.

use serde::{Deserialize, Serialize};

use crate::QueueId;

/// Version of the JSON in message records; readers refuse a higher one.
pub(crate) const ENVELOPE_VERSION: u8 = 1;

/// The envelope of a queued message. Fields may be added with a default; meanings never change without a new version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// Address in MAIL FROM, without angle brackets; empty for the null path.
    pub reverse_path: String,
    /// BODY=8BITMIME was said.
    #[serde(default, skip_serializing_if = "is_false")]
    pub body_8bit: bool,
    /// SMTPUTF8 was said.
    #[serde(default, skip_serializing_if = "is_false")]
    pub smtputf8: bool,
    /// Other MAIL parameters, verbatim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mail_params: Vec<String>,
    /// In the order of RCPT; the index is the recipient's name in [`crate::Spool::settle`].
    pub recipients: Vec<Recipient>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub received_at_ms: u64,
    /// Address of the client, as rules saw it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// Argument of HELO, EHLO or LHLO.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub helo: String,
    /// Authenticated identity; never a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// The session that took the message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session_id: String,
    /// W3C trace id, hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// The release from the quarantine that put it here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
    /// A report on another message of this spool. Its record **is** the settlement of these recipients: both are on disk, or neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reports_on: Option<ReportsOn>,
}

/// Recipients whose fate the message that names them tells to the sender (RFC 3461 §6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsOn {
    /// The message that had them.
    pub id: QueueId,
    /// Indices into its recipients; they need no more work once the report is stored.
    pub recipients: Vec<u32>,
}

/// One recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    /// Address in RCPT TO, without angle brackets.
    pub address: String,
    /// Where a rule sends it; `None` = the relay's own route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<NextHop>,
    /// RCPT parameters, verbatim.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
}

/// A server to deliver to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// LMTP instead of SMTP.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lmtp: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_false(value: &bool) -> bool {
    !value
}
