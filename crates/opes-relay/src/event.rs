//! What happened to a recipient, for logs, metrics and the rule points `delivered`, `deferred` and `bounced`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opes_smtp::reply::Reply;
use opes_spool::{Envelope, QueueId};

/// Receives every event.
pub type OnEvent = Arc<dyn Fn(&DeliveryEvent) + Send + Sync>;

/// The end of one attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryEvent {
    /// `None` in cut-through mode, where nothing is queued.
    pub queue_id: Option<QueueId>,
    /// The session that took the message, to find its other log lines.
    pub session_id: String,
    /// Whose message it is, and who sent it.
    pub envelope: Arc<Envelope>,
    /// Address of the recipient, as in RCPT.
    pub recipient: String,
    /// What became of it.
    pub outcome: DeliveryOutcome,
    /// Since the message was received.
    pub elapsed: Duration,
}

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Somebody else is responsible now.
    Delivered {
        /// Host and port, or the file.
        place: String,
        /// The reply that took the responsibility.
        reply: Reply,
    },
    /// Not this time.
    Deferred {
        /// What was said.
        reply: Reply,
        /// The cause and its remedy, where we know more than the reply says.
        detail: Option<String>,
        /// When the relay tries again, about; `None` in cut-through mode, where the client does.
        next_attempt: Option<Duration>,
    },
    /// Never. The sender is told as [`crate::Reports`] says.
    Failed {
        /// What was said.
        reply: Reply,
        /// The cause and its remedy, where we know more than the reply says.
        detail: Option<String>,
    },
}

impl fmt::Display for DeliveryOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, reply, detail) = match self {
            Self::Delivered { place, reply } => return write!(f, "delivered to {place}: {reply}"),
            Self::Deferred { reply, detail, .. } => ("deferred", reply, detail),
            Self::Failed { reply, detail } => ("failed", reply, detail),
        };
        write!(f, "{word}: {reply}")?;
        detail
            .as_ref()
            .map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}
