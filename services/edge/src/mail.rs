//! The state of one SMTP transaction outside the core. Dropped as a whole when the transaction ends, so nothing can stick.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use opes_spool::NextHop;

use crate::content::Incoming;
use crate::report::StepReport;
use crate::routing::Routing;

/// See the module.
#[derive(Default)]
pub(crate) struct Mail {
    /// When MAIL came.
    pub(crate) started: Option<Instant>,
    /// The revision of the rules that this transaction runs under.
    pub(crate) routing: Option<Arc<Routing>>,
    /// Next hops that services named, by recipient index.
    pub(crate) next_hops: HashMap<usize, NextHop>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) steps: Vec<StepReport>,
    pub(crate) incoming: Option<Incoming>,
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
