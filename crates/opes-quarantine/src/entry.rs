//! What is known of a held message.

use opes_spool::Envelope;
use serde::{Deserialize, Serialize};

/// Most octets of an id; ids are made of letters, digits, `-`, `_` and `.`.
pub(crate) const ID_OCTETS_MAX: usize = 128;

/// Most octets of a queue name, rule, service or operator name.
pub(crate) const NAME_OCTETS_MAX: usize = 256;

/// Most octets of a reason.
pub(crate) const REASON_OCTETS_MAX: usize = 1024;

/// A message as an edge hands it over; its octets come from a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// Given by the edge, unique there.
    pub id: String,
    /// The edge's spool.
    pub edge: String,
    /// Where the operator looks for it, such as `spam`; may be empty.
    pub queue: String,
    /// For people.
    pub reason: String,
    /// `namespace/name` of the rule that held it; empty if unknown.
    pub rule: String,
    /// `namespace/name` of the service; empty if the rule did it alone.
    pub service: String,
    /// Milliseconds since 1970.
    pub held_at_ms: u64,
    /// The envelope as it would have been delivered.
    pub envelope: Envelope,
}

/// Header fields that let a person recognise a message: decoded, shortened, without control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// First address of `From`, with its display name.
    pub from: String,
    /// `Subject`.
    pub subject: String,
    /// `Date` as RFC 3339; empty if there is none.
    pub date: String,
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Name in the quarantine.
    pub id: String,
    /// Queue, may be empty.
    pub queue: String,
    /// For people.
    pub reason: String,
    /// Rule, may be empty.
    pub rule: String,
    /// Service, may be empty.
    pub service: String,
    /// Milliseconds since 1970.
    pub held_at_ms: u64,
    /// Milliseconds since 1970; from then on it may be removed.
    pub expires_at_ms: u64,
    /// Size of the content.
    pub octets: u64,
    /// Reverse-path; empty for the null path.
    pub sender: String,
    /// The first recipient's address.
    pub recipient: String,
    /// How many recipients there are.
    pub recipients: u32,
    /// How many of them it is still held for.
    pub held: u32,
    /// From the header.
    pub summary: Summary,
}

/// Everything about one entry but the content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// The line of the list.
    #[serde(flatten)]
    pub entry: Entry,
    /// The edge that took the message.
    pub edge: String,
    /// The original envelope.
    pub envelope: Envelope,
    /// What became of each recipient, in the order of the envelope.
    pub status: Vec<RecipientStatus>,
    /// Who did what, oldest first.
    pub audit: Vec<AuditRecord>,
}

/// One recipient's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientStatus {
    /// Address in RCPT TO.
    pub address: String,
    /// Held, or not any more.
    pub state: RecipientState,
    /// The latest release; empty if there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub release: String,
}

/// Where a recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecipientState {
    /// Nobody has released it.
    Held,
    /// A release was begun; the edge has yet to confirm that it is durable there.
    Releasing,
    /// On its way, as any accepted mail.
    Released,
}

/// An act of an operator, or of the sweeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Operator as given; `expiry` for the sweeper.
    pub by: String,
    /// `held`, `released`, `deleted`, `expired`.
    pub what: String,
    /// Such as the recipients.
    pub detail: String,
}

// === impl Held ===

impl Held {
    /// May this id be part of a file name and of an address?
    pub(crate) fn is_id(id: &str) -> bool {
        let allowed =
            |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
        !id.is_empty()
            && id.len() <= ID_OCTETS_MAX
            && !id.starts_with('.')
            && id.bytes().all(allowed)
    }
}

// === impl RecipientState ===

impl RecipientState {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Releasing => "releasing",
            Self::Released => "released",
        }
    }

    pub(crate) fn parse(word: &str) -> Self {
        match word {
            "releasing" => Self::Releasing,
            "released" => Self::Released,
            _ => Self::Held,
        }
    }
}

/// At most `max` octets, without control characters: for databases, terminals and log lines.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut cleaned: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cleaned.truncate(cleaned.floor_char_boundary(max));
    cleaned
}
