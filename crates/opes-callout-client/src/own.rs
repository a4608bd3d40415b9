//! Octets that a service brings itself, on their way from the connection to where they are held.
//!
//! Those of mail data go where mail data goes, under the same budget, and the service is granted more only when they are there; so an
//! adapted message as large as the original costs as little memory. Those of a command line are few.

use bytes::{Bytes, BytesMut};
use opes_content::{Content, ContentError, Writer};
use tokio::sync::mpsc;

use crate::negotiated::ADAPTED_CREDIT;
use crate::request::Request;

/// Most octets of a new command line, far above what any command may have (RFC 5321 §4.5.3.1.4, RFC 4954 §4).
pub(crate) const LINE_OCTETS_MAX: u64 = 64 * 1024;

/// Octets after which the connection is told that they are held.
const STEP_OCTETS: u64 = ADAPTED_CREDIT / 4;

/// The caller's end of one transaction.
#[derive(Debug)]
pub(crate) struct Own {
    received: mpsc::UnboundedReceiver<Bytes>,
    place: Place,
    /// Held, and the connection has not been told.
    untold: u64,
}

#[derive(Debug)]
enum Place {
    Line(BytesMut),
    /// Beside this mail data; opened with the first octet.
    Beside(Content, Option<(Writer, Content)>),
}

/// All of them.
#[derive(Debug)]
pub(crate) enum Held {
    Line(Bytes),
    Content(Option<Content>),
}

impl Own {
    /// And the connection's end.
    pub(crate) fn of(request: &Request) -> (mpsc::UnboundedSender<Bytes>, Self) {
        let (sender, received) = mpsc::unbounded_channel();
        let place = match request.mail_data() {
            Some(view) => Place::Beside(view.content().clone(), None),
            None => Place::Line(BytesMut::new()),
        };
        let own = Self {
            received,
            place,
            untold: 0,
        };
        (sender, own)
    }

    /// The next octets; pending when the connection has none for now or is done. Cancel safe.
    pub(crate) async fn next(&mut self) -> Bytes {
        match self.received.recv().await {
            Some(octets) => octets,
            None => std::future::pending().await,
        }
    }

    /// Octets that are held by now and were not told of before, once that is worth a word.
    pub(crate) async fn hold(&mut self, octets: Bytes) -> Result<Option<u64>, ContentError> {
        self.untold = self.untold.saturating_add(octets.len() as u64);
        match &mut self.place {
            Place::Line(line) => line.extend_from_slice(&octets),
            Place::Beside(content, open) => {
                let (writer, _) = open.get_or_insert_with(|| content.sibling());
                writer.append(octets).await?;
            }
        }
        if self.untold < STEP_OCTETS {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.untold)))
    }

    /// The connection has handed over everything, or will shortly.
    pub(crate) async fn finish(mut self) -> Result<Held, ContentError> {
        while let Some(octets) = self.received.recv().await {
            self.hold(octets).await?;
        }
        Ok(match self.place {
            Place::Line(line) => Held::Line(line.freeze()),
            Place::Beside(_, None) => Held::Content(None),
            Place::Beside(_, Some((writer, content))) => {
                writer.finish();
                Held::Content(Some(content))
            }
        })
    }
}
