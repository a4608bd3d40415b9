//! The state of one SMTP transaction outside the core. Dropped as a whole when the transaction ends, so nothing can stick.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use opes_smtp::reply::Reply;
use opes_spool::NextHop;

use crate::content::Incoming;
use crate::dialog::Path;
use crate::engine::{ADDED_MAX, Annotations, Recipient};
use crate::report::StepReport;
use crate::routing::Routing;
use crate::trace::Calls;

/// See the module.
#[derive(Default)]
pub(crate) struct Mail {
    /// When MAIL came.
    pub(crate) started: Option<Instant>,
    /// The revision of the rules that this transaction runs under.
    pub(crate) routing: Option<Arc<Routing>>,
    pub(crate) envelope: Envelope,
    pub(crate) annotations: Annotations,
    pub(crate) steps: Vec<StepReport>,
    pub(crate) incoming: Option<Incoming>,
}

/// What services said of the recipients before the mail data, by their index among those that were accepted.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    pub(crate) next_hops: BTreeMap<usize, NextHop>,
    /// Refused at DATA, whose reply is one for all: they are told with the reply to the mail data.
    pub(crate) refused: BTreeMap<usize, Reply>,
    /// Taken out, or put in.
    pub(crate) removed: BTreeSet<usize>,
    /// With the recipient at which it was put in.
    pub(crate) added: Vec<(usize, Recipient)>,
    /// Services that were called for them.
    pub(crate) calls: Calls,
}

impl Envelope {
    /// The recipients that the mail data starts with. What is known of a recipient that was refused in the end counts for nobody.
    pub(crate) fn recipients(&self, accepted: &[Path]) -> Vec<Recipient> {
        let count = accepted.len();
        let accepted = accepted.iter().enumerate().map(|(index, path)| Recipient {
            address: path.address.clone(),
            parameters: path.parameters.clone(),
            next_hop: self.next_hops.get(&index).cloned(),
            removed: self.removed.contains(&index),
            added: false,
        });
        let mut recipients: Vec<Recipient> = accepted.collect();
        for (_, added) in self.added.iter().filter(|(at, _)| *at < count) {
            // The client may have named it as well.
            if !recipients.iter().any(|known| known.is(&added.address)) {
                recipients.push(added.clone());
            }
        }
        recipients
    }

    /// A service put `recipient` in when the recipient `index` was offered; for each of those that are offered, perhaps, but it gets the
    /// message once.
    pub(crate) fn add(&mut self, index: usize, recipient: Recipient) {
        let mut known = self.added.iter();
        if self.added.len() < ADDED_MAX && !known.any(|(_, known)| known.is(&recipient.address)) {
            self.added.push((index, recipient));
        }
    }

    /// The recipient `index` was refused after all; another will have its place.
    pub(crate) fn forget(&mut self, index: usize) {
        self.next_hops.remove(&index);
        self.removed.remove(&index);
        self.added.retain(|(at, _)| *at != index);
        self.calls.forget(index);
    }
}

impl Mail {
    /// No transaction is under way: the session may be ended by a drain without the client losing work.
    pub(crate) fn is_idle(&self) -> bool {
        self.started.is_none()
    }

    /// Lets the callouts of incoming content run; pending if there are none.
    pub(crate) async fn drive_callouts(&mut self) {
        match &mut self.incoming {
            Some(incoming) => incoming.drive().await,
            None => std::future::pending().await,
        }
    }
}
