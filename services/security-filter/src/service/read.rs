//! The message as it comes in.

use bytes::{Bytes, BytesMut};
use opes_callout_server::Message;
use tokio::sync::OwnedSemaphorePermit;

use super::SecurityFilter;

/// Messages up to this size are read at once, octets.
const SMALL_OCTETS_MAX: usize = 1024 * 1024;

/// What there is of a message.
pub(super) enum Content {
    /// All of it, and the place it takes if it is large.
    Whole(Bytes, Option<OwnedSemaphorePermit>),
    TooLarge,
}

impl SecurityFilter {
    /// Waits for a place, without reading on, if the message is large.
    pub(super) async fn read(&self, message: &mut Message) -> anyhow::Result<Content> {
        let size_max = self.config.settings.size_max;
        let too_large = |octets: u64| octets > size_max;
        let mut place = None;
        let mut octets = BytesMut::new();
        let mut first = Bytes::new();
        while let Some(chunk) = message.chunk().await? {
            let so_far = first.len() + octets.len() + chunk.len();
            if too_large(so_far as u64) || message.size().is_some_and(too_large) {
                message.stop_receiving().await?;
                return Ok(Content::TooLarge);
            }
            if so_far > SMALL_OCTETS_MAX && place.is_none() {
                place = Some(self.large.clone().acquire_owned().await?);
            }
            // A message in one fragment is not copied.
            if first.is_empty() && octets.is_empty() {
                first = chunk;
                continue;
            }
            octets.extend_from_slice(&std::mem::take(&mut first));
            octets.extend_from_slice(&chunk);
        }
        let whole = if octets.is_empty() {
            first
        } else {
            octets.freeze()
        };
        Ok(Content::Whole(whole, place))
    }
}
