//! One transaction inside the connection's task: the original waiting for credit, the adapted flow being put together.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use opes_ocp::{CallError, Processor};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::ask::{Data, Link, Lost, OriginalEnd, Raw};
use crate::extent::Fragment;
use crate::negotiated::ADAPTED_CREDIT;
use crate::reassembly::{Adapted, Reassembly, Refused};

#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) link: Arc<Link>,
    pub(crate) reply: oneshot::Sender<Result<Raw, Lost>>,
    own: mpsc::UnboundedSender<Bytes>,
    own_octets_max: u64,
    /// Held until the transaction is over, so that places and transactions are the same number.
    _place: OwnedSemaphorePermit,
    /// Handed over and not sent yet: pauses only, as credit was looked at before.
    held: VecDeque<Fragment>,
    end: Option<OriginalEnd>,
    /// AME was sent; what is still handed over is of no use.
    ended: bool,
    /// DWSR: so many octets are enough.
    enough: Option<u64>,
    pub(crate) reassembly: Reassembly,
    received: u64,
    granted: u64,
    pub(crate) answer: Option<(Bytes, Adapted)>,
    /// AMS or AME of the service has come: it has begun.
    pub(crate) begun: bool,
    /// The service refused it with TE before it began.
    pub(crate) refused: bool,
    pub(crate) octets_sent: u64,
    pub(crate) octets_received: u64,
}

impl Transaction {
    pub(crate) fn new(
        link: Arc<Link>,
        reply: oneshot::Sender<Result<Raw, Lost>>,
        (own, own_octets_max): (mpsc::UnboundedSender<Bytes>, u64),
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            link,
            reply,
            own,
            own_octets_max,
            _place: place,
            held: VecDeque::new(),
            end: None,
            ended: false,
            enough: None,
            reassembly: Reassembly::default(),
            received: 0,
            granted: ADAPTED_CREDIT,
            answer: None,
            begun: false,
            refused: false,
            octets_sent: 0,
            octets_received: 0,
        }
    }

    pub(crate) fn hand_over(&mut self, data: Data) {
        if !self.ended {
            self.held.extend(data.fragments);
            self.end = self.end.or(data.end);
        }
    }

    pub(crate) fn stop_receiving(&mut self, size: u64) {
        self.enough = Some(self.enough.map_or(size, |enough| enough.min(size)));
    }

    /// Sends what may be sent now, and the end when all of it is gone.
    pub(crate) fn pump(&mut self, xid: u32, core: &mut Processor) -> Result<(), CallError> {
        while let Some(fragment) = self.held.pop_front() {
            let sendable = usize::try_from(core.sendable(xid)).unwrap_or(usize::MAX);
            if sendable == 0 {
                self.held.push_front(fragment);
                break;
            }
            let Fragment { part, mut octets } = fragment;
            if octets.len() > sendable {
                let octets = octets.split_off(sendable);
                self.held.push_front(Fragment { part, octets });
            }
            core.data(xid, i32::from(part).unsigned_abs(), octets)?;
        }
        self.link
            .raise_limit(core.sent(xid).saturating_add(core.sendable(xid)));
        self.finish(xid, core)
    }

    /// AME, once there is nothing further to send.
    fn finish(&mut self, xid: u32, core: &mut Processor) -> Result<(), CallError> {
        if self.ended {
            return Ok(());
        }
        let enough = self.enough.is_some_and(|enough| core.sent(xid) >= enough);
        let end = match (self.held.is_empty(), self.end) {
            (true, Some(end)) => end,
            _ if enough => OriginalEnd::Partial,
            _ => return Ok(()),
        };
        self.held.clear();
        self.ended = true;
        core.finish(xid, end == OriginalEnd::Whole)
    }

    /// DUM of the service's own octets. What the caller has not said to be held costs credit.
    pub(crate) fn mine(&mut self, octets: Bytes) -> Result<(), Refused> {
        self.reassembly
            .mine(octets.len() as u64, self.own_octets_max)?;
        // The caller may have gone; its cancellation follows.
        let _gone = self.own.send(octets);
        Ok(())
    }

    /// Adapted payload is held, or of no more use: more credit, long before it runs out.
    pub(crate) fn received(&mut self, xid: u32, octets: u64, core: &mut Processor) {
        self.received += octets;
        if self.granted - self.received < ADAPTED_CREDIT / 2 {
            self.granted = self.received + ADAPTED_CREDIT;
            // The transaction may just have ended; then nobody needs the credit.
            let _ended = core.grant(xid, self.granted);
        }
    }
}
