//! Hands the original over to the connection while it grows: waits for octets and for credit, never for the service.

use std::sync::Arc;
use std::time::Duration;

use opes_content::{Progress, View};
use tokio::time::Instant;

use crate::ask::{Data, Link, OriginalEnd};
use crate::error::CalloutError;
use crate::extent::{Cursor, Extent};
use crate::naming::Naming;

/// Octets of one fragment: small enough for neighbours to be served, large enough to be cheap.
const FRAGMENT_OCTETS_MAX: u64 = 64 * 1024;

/// Octets that travel with the start of the transaction, in one write.
const FIRST_OCTETS_MAX: u64 = 64 * 1024;

/// The original flow of one transaction.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    view: &'a View,
    cursor: Cursor,
    link: Arc<Link>,
    done: bool,
    waiting_since: Option<Instant>,
    waited: Duration,
}

impl<'a> Sender<'a> {
    pub(crate) fn new(view: &'a View, extent: Extent, link: Arc<Link>) -> Self {
        let cursor = Cursor::new(extent);
        Self {
            view,
            cursor,
            link,
            done: false,
            waiting_since: None,
            waited: Duration::ZERO,
        }
    }

    /// The end has been handed over.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// How long the mail client kept us waiting: not the service's fault.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
            + self
                .waiting_since
                .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What is there already, within credit and [`FIRST_OCTETS_MAX`].
    pub(crate) async fn first(&mut self, naming: &Naming) -> Result<Data, CalloutError> {
        let mut data = Data::default();
        while !self.end_reached(&mut data) && self.cursor.offset() < FIRST_OCTETS_MAX {
            if self.allowed() == 0 || !self.read(&mut data, naming).await? {
                break;
            }
        }
        Ok(data)
    }

    /// The next octets, once there are some and credit allows them. Cancel safe.
    pub(crate) async fn next(&mut self, naming: &Naming) -> Result<Data, CalloutError> {
        let mut data = Data::default();
        while !self.end_reached(&mut data) {
            self.link.wait_beyond(self.cursor.offset()).await;
            if self.read(&mut data, naming).await? {
                // The end often is known together with the last octets.
                let _end = self.end_reached(&mut data);
                break;
            }
            self.wait_for_growth(naming).await?;
        }
        Ok(data)
    }

    fn allowed(&self) -> u64 {
        self.link
            .limit()
            .saturating_sub(self.cursor.offset())
            .min(FRAGMENT_OCTETS_MAX)
    }

    fn end_reached(&mut self, data: &mut Data) -> bool {
        let whole = self.view.len() == Some(self.cursor.offset());
        let end = if whole {
            OriginalEnd::Whole
        } else {
            OriginalEnd::Partial
        };
        self.done = whole || self.cursor.is_satisfied();
        if self.done {
            data.end = Some(end);
        }
        self.done
    }

    /// Reads what is there; `false`: nothing further is there yet.
    async fn read(&mut self, data: &mut Data, naming: &Naming) -> Result<bool, CalloutError> {
        let max = self.allowed().min(self.cursor.wanted());
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let octets = self.view.read_at(self.cursor.offset(), max).await;
        let octets = octets.map_err(|error| naming.content(error.to_string()))?;
        let some = !octets.is_empty();
        data.fragments
            .extend(self.cursor.take(octets).into_iter().flatten());
        Ok(some)
    }

    async fn wait_for_growth(&mut self, naming: &Naming) -> Result<(), CalloutError> {
        self.waiting_since.get_or_insert_with(Instant::now);
        let progress = self.view.wait_beyond(self.cursor.offset()).await;
        self.waited += self
            .waiting_since
            .take()
            .map_or(Duration::ZERO, |since| since.elapsed());
        match progress {
            Progress::Ready | Progress::End => Ok(()),
            Progress::Aborted => Err(naming.content("the mail client left before its end")),
        }
    }
}
