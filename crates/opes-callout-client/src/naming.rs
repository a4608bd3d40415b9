//! Who an error is about.

use std::time::Duration;

use opes_ocp::Failure;

use crate::error::CalloutError;

/// Name and address of the service, for errors.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    pub(crate) service: String,
    pub(crate) target: String,
}

impl Naming {
    pub(crate) fn unavailable(&self, reason: impl Into<String>) -> CalloutError {
        let (service, target) = (self.service.clone(), self.target.clone());
        CalloutError::Unavailable {
            service,
            target,
            reason: reason.into(),
        }
    }

    pub(crate) fn untrusted(
        &self,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> CalloutError {
        CalloutError::Untrusted {
            service: self.service.clone(),
            target: self.target.clone(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    pub(crate) fn protocol(&self, detail: impl Into<String>) -> CalloutError {
        let (service, target) = (self.service.clone(), self.target.clone());
        CalloutError::Protocol {
            service,
            target,
            detail: detail.into(),
        }
    }

    pub(crate) fn failed(&self, reason: impl Into<String>) -> CalloutError {
        CalloutError::Failed {
            service: self.service.clone(),
            reason: reason.into(),
        }
    }

    pub(crate) fn timeout(&self, timeout: Duration) -> CalloutError {
        CalloutError::Timeout {
            service: self.service.clone(),
            timeout,
        }
    }

    pub(crate) fn content(&self, reason: impl Into<String>) -> CalloutError {
        CalloutError::Content {
            service: self.service.clone(),
            reason: reason.into(),
        }
    }

    /// Of one transaction, or of the connection under it. `lost`: what the network said, if anything.
    pub(crate) fn failure(&self, failure: &Failure, lost: &str) -> CalloutError {
        match failure {
            Failure::Peer { reason } if reason.is_empty() => self.failed("it gave no reason"),
            Failure::Peer { reason } => self.failed(reason.clone()),
            Failure::Violation(_) | Failure::Unfinished => self.protocol(failure.to_string()),
            Failure::ConnectionLost if !lost.is_empty() => {
                self.unavailable(format!("the connection was lost: {lost}"))
            }
            Failure::ConnectionLost => self.unavailable("the connection was lost"),
            Failure::BudgetSpent(ms) => self.timeout(Duration::from_millis(u64::from(*ms))),
            Failure::Local { .. } | Failure::NoProgress(_) => self.failed(failure.to_string()),
        }
    }
}
