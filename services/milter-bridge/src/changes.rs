//! What a milter wants done to a message, as it says it step by step at the end of the message.

use bytes::Bytes;
use opes_milter::Modification;

use crate::body::NewBody;
use crate::connection::MilterError;
use crate::headers::Headers;
use crate::recipients::{Recipients, bare};

/// See the module.
#[derive(Debug)]
pub(crate) struct Changes {
    headers: Headers,
    recipients: Recipients,
    body: Option<NewBody>,
    body_size_max: usize,
    /// Empty: the null reverse-path.
    pub(crate) sender: Option<String>,
    /// For the administrator.
    pub(crate) quarantine: Option<String>,
}

impl Changes {
    /// None yet, of a message with these fields and recipients.
    pub(crate) fn new(headers: Headers, recipients: Recipients, body_size_max: usize) -> Self {
        Self {
            headers,
            recipients,
            body: None,
            body_size_max,
            sender: None,
            quarantine: None,
        }
    }

    /// One more. ESMTP parameters of addresses have no place in an outcome and are passed over.
    pub(crate) fn take(&mut self, modification: Modification) -> Result<(), MilterError> {
        match modification {
            Modification::AddHeader { name, value } => self.headers.add(name, value),
            Modification::InsertHeader { index, name, value } => {
                self.headers.insert(index, name, value);
            }
            Modification::ChangeHeader { index, name, value } => {
                self.headers.change(index, name, value);
            }
            Modification::ReplaceBody(chunk) => {
                let max = self.body_size_max;
                self.body
                    .get_or_insert_with(|| NewBody::new(max))
                    .push(&chunk)?;
            }
            Modification::AddRecipient { address, .. } => self.recipients.add(&address),
            Modification::RemoveRecipient { address } => self.recipients.remove(&address),
            Modification::ChangeSender { address, .. } => {
                self.sender = Some(bare(&address).to_owned());
            }
            Modification::Quarantine { reason } => self.quarantine = Some(reason),
        }
        Ok(())
    }

    pub(crate) fn headers(&self) -> &Headers {
        &self.headers
    }

    pub(crate) fn recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// The new body, once.
    pub(crate) fn take_body(&mut self) -> Option<Bytes> {
        self.body.take().map(NewBody::finish)
    }
}
