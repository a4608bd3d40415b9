//! [`CalloutError`]: why a transaction brought no answer. Each names the service and what to do about it; the edge
//! applies the rule's failure policy, whatever the reason.

use std::time::Duration;

use thiserror::Error;

/// Why there is no answer. Nothing of a failed transaction sticks: the next one starts afresh.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CalloutError {
    /// Not reachable, or lost while the transaction ran.
    #[error(
        "service {service} at {target} is unavailable: {reason}; is it running and listening there?"
    )]
    Unavailable {
        /// Name of the service.
        service: String,
        /// Where it was looked for.
        target: String,
        /// What the network said.
        reason: String,
    },
    /// One end does not accept the other's certificate, or the service does not speak TLS.
    #[error("service {service} at {target}: {problem}\n  help: {remedy}")]
    Untrusted {
        /// Name of the service.
        service: String,
        /// Where it is.
        target: String,
        /// Whose certificate, and what is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The time for everything together, connecting included, is over.
    #[error(
        "service {service} did not answer within {} ms: raise the rule's timeout or look why it is slow",
        timeout.as_millis()
    )]
    Timeout {
        /// Name of the service.
        service: String,
        /// What the rule allows.
        timeout: Duration,
    },
    /// The service gave up on this transaction (TE or AME 400).
    #[error("service {service} failed: {reason}; see its log")]
    Failed {
        /// Name of the service.
        service: String,
        /// As the service put it.
        reason: String,
    },
    /// The peer does not speak OCP/SMTP, or breaks its rules.
    #[error(
        "service {service} at {target} does not keep to OCP/SMTP: {detail}; is this address a callout service of a matching version?"
    )]
    Protocol {
        /// Name of the service.
        service: String,
        /// Where it is.
        target: String,
        /// Which rule it broke.
        detail: String,
    },
    /// The message itself went away (the mail client left) or could not be read.
    #[error(
        "the message for service {service} could not be read: {reason}; the mail client left, or see the spool's disk"
    )]
    Content {
        /// Name of the service.
        service: String,
        /// Why.
        reason: String,
    },
}
