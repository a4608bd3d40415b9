//! A message while it arrives: what may be moved goes to the store at once, texts that may get a link are kept.
//!
//! Owns at most one part that is being stored (they come one after the other), [`HELD_OCTETS_MAX`] of it before it is known to be large, a
//! few short texts, and [`LOOKAHEAD_OCTETS`] of the message: memory is bounded whatever the message. What was stored belongs to a [`Stored`],
//! which removes it again unless it is told to [keep](Stored::keep) it: the handler of a transaction can end at any `.await`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::digest;
use bytes::{Buf as _, BytesMut};
use opes_mime::decode::Decoder;
use opes_mime::structure::DELIMITER_OCTETS_MAX;
use opes_mime::{Encoding, Part, Scanner, Structure};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::choose::{is_untouchable, may_be_moved};
use crate::config::Settings;
use crate::link::Key;
use crate::metrics::{Failure, Metrics};
use crate::store::{About, Store, StoreError, Upload};

/// An octet that is followed by so many more is not part of a delimiter that is still to be seen, nor of the line end before it.
const LOOKAHEAD_OCTETS: u64 = DELIMITER_OCTETS_MAX as u64 + 2 + 24;
/// Decoded octets of a part that are held before the store is asked.
const HELD_OCTETS_MAX: usize = 256 * 1024;
/// Most texts kept for a link, and most octets of one; longer ones get none.
const TEXTS_MAX: usize = 4;
const TEXT_OCTETS_MAX: usize = 256 * 1024;
/// How long a part waits for one of the places in which parts are stored.
const PLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where parts go; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Depot {
    pub(crate) store: Store,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
}

/// A part that is in the store.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    /// Index in the structure.
    pub(crate) index: usize,
    pub(crate) key: Key,
    pub(crate) about: About,
}

/// Everything that was stored for one message.
#[derive(Debug)]
pub(crate) struct Stored {
    store: Store,
    keys: Vec<Key>,
}

/// A text that may get a link: index in the structure, body as it came.
pub(crate) type Text = (usize, Vec<u8>);

/// What a message came to.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) structure: Structure,
    pub(crate) moved: Vec<Moved>,
    pub(crate) texts: Vec<Text>,
    pub(crate) stored: Stored,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake<'a> {
    scanner: Scanner,
    window: Window,
    mover: Mover<'a>,
}

/// The last octets of the message, and how far they were looked at.
#[derive(Debug, Default)]
struct Window {
    octets: BytesMut,
    /// Where they are in the message.
    start: u64,
    /// Up to here they were handed on.
    done: u64,
    /// The entity whose octets come next.
    next: usize,
}

/// What becomes of the parts.
#[derive(Debug)]
struct Mover<'a> {
    depot: &'a Depot,
    settings: &'a Settings,
    /// Second in which everything expires.
    expires: u64,
    current: Current,
    moved: Vec<Moved>,
    texts: Vec<Text>,
    stored: Stored,
}

#[derive(Debug)]
enum Current {
    /// Between parts.
    None,
    /// Of no interest.
    Passed,
    Text(Vec<u8>),
    File(Box<Incoming>),
}

/// A part that may turn out to be large.
#[derive(Debug)]
struct Incoming {
    key: Key,
    decoder: Decoder,
    digest: Digest,
    size: u64,
    held: Vec<u8>,
    upload: Option<(Upload, OwnedSemaphorePermit)>,
}

struct Digest(digest::Context);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

// === impl Stored ===

impl Stored {
    /// The message has links to it.
    pub(crate) fn keep(mut self) {
        self.keys.clear();
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        let (false, Ok(runtime)) = (keys.is_empty(), Handle::try_current()) else {
            return;
        };
        let store = self.store.clone();
        runtime.spawn(async move {
            for key in keys {
                if let Err(error) = store.delete(key).await {
                    // It has no link, and expires as all do.
                    tracing::warn!(%error, "what was stored for a message that failed is still there");
                }
            }
        });
    }
}

// === impl Intake ===

impl<'a> Intake<'a> {
    pub(crate) fn new(depot: &'a Depot, settings: &'a Settings, now: u64) -> Self {
        let mover = Mover {
            depot,
            settings,
            expires: now.saturating_add(settings.lifetime.as_secs()),
            current: Current::None,
            moved: Vec::new(),
            texts: Vec::new(),
            stored: Stored {
                store: depot.store.clone(),
                keys: Vec::new(),
            },
        };
        Self {
            scanner: Scanner::new(),
            window: Window::default(),
            mover,
        }
    }

    /// Does the message go beyond a limit of the scanner? Then nothing of it can be moved.
    pub(crate) fn is_beyond_limits(&self) -> bool {
        self.scanner.so_far().truncated.is_some()
    }

    /// The next octets of the message.
    pub(crate) async fn push(&mut self, chunk: &[u8]) -> anyhow::Result<()> {
        self.scanner.push(chunk);
        self.window.octets.extend_from_slice(chunk);
        let structure = self.scanner.so_far();
        let sure = structure.len.saturating_sub(LOOKAHEAD_OCTETS);
        self.window
            .hand_on(structure, sure, &mut self.mover)
            .await?;
        self.window.forget(sure);
        Ok(())
    }

    /// The message is complete.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Taken> {
        let structure = self.scanner.finish();
        let end = structure.len;
        self.window
            .hand_on(&structure, end, &mut self.mover)
            .await?;
        let Mover {
            moved,
            texts,
            stored,
            ..
        } = self.mover;
        Ok(Taken {
            structure,
            moved,
            texts,
            stored,
        })
    }
}

// === impl Window ===

impl Window {
    /// Hands on what is known to be in a part; octets up to `sure` are in the part that is open, if one is.
    async fn hand_on(
        &mut self,
        structure: &Structure,
        sure: u64,
        mover: &mut Mover<'_>,
    ) -> anyhow::Result<()> {
        while let Some(part) = structure.parts.get(self.next) {
            if part.content_type.is_empty() {
                // Its header section is not complete.
                return Ok(());
            }
            if !part.is_container() {
                let is_closed = part.entity_end > 0;
                let end = if is_closed { part.body_end } else { sure };
                let from = self.done.max(part.body_start);
                mover.open(structure, self.next)?;
                if end > from {
                    mover.octets(self.between(from, end)?).await?;
                    self.done = end;
                }
                if !is_closed {
                    return Ok(());
                }
                mover.close(self.next, part).await?;
            }
            self.next += 1;
        }
        Ok(())
    }

    fn between(&self, from: u64, to: u64) -> anyhow::Result<&[u8]> {
        let at = |octet: u64| usize::try_from(octet.checked_sub(self.start)?).ok();
        let range = at(from).zip(at(to));
        let octets = range.and_then(|(from, to)| self.octets.get(from..to));
        octets.context("the scanner has gone back in the message: a bug, please report it")
    }

    fn forget(&mut self, until: u64) {
        let passed = until.saturating_sub(self.start);
        let passed =
            usize::try_from(passed).map_or(self.octets.len(), |n| n.min(self.octets.len()));
        self.octets.advance(passed);
        self.start += passed as u64;
    }
}

// === impl Mover ===

impl Mover<'_> {
    /// Decides about a part, unless that was done.
    fn open(&mut self, structure: &Structure, index: usize) -> anyhow::Result<()> {
        if !matches!(self.current, Current::None) {
            return Ok(());
        }
        let is_wanted = may_be_moved(structure, index, self.settings);
        self.current = if is_wanted && self.moved.len() < self.settings.count_max {
            let part = structure.parts.get(index);
            let encoding = part.map(|part| part.encoding).unwrap_or_default();
            Current::File(Box::new(Incoming::new(
                Key::random(self.expires)?,
                encoding,
            )))
        } else if self.texts.len() < TEXTS_MAX && may_get_a_link(structure, index) {
            Current::Text(Vec::new())
        } else {
            Current::Passed
        };
        Ok(())
    }

    async fn octets(&mut self, octets: &[u8]) -> anyhow::Result<()> {
        match &mut self.current {
            Current::Text(text) if text.len() + octets.len() <= TEXT_OCTETS_MAX => {
                text.extend_from_slice(octets);
            }
            Current::File(file) => {
                let mut decoded = Vec::with_capacity(octets.len());
                file.decoder.push(octets, &mut decoded);
                file.take(decoded, self.depot).await?;
                if file.size > self.settings.size_max {
                    self.current = Current::Passed;
                }
            }
            Current::Text(_) | Current::Passed | Current::None => self.current = Current::Passed,
        }
        Ok(())
    }

    async fn close(&mut self, index: usize, part: &Part) -> anyhow::Result<()> {
        match std::mem::replace(&mut self.current, Current::None) {
            Current::Text(text) => self.texts.push((index, text)),
            Current::File(file) => self.store(index, part, *file).await?,
            Current::Passed | Current::None => {}
        }
        Ok(())
    }

    async fn store(&mut self, index: usize, part: &Part, mut file: Incoming) -> anyhow::Result<()> {
        let decoder = std::mem::replace(&mut file.decoder, Decoder::new(part.encoding));
        let mut last = Vec::new();
        decoder.finish(&mut last);
        file.take(last, self.depot).await?;
        if file.size < self.settings.size_min || file.size > self.settings.size_max {
            return Ok(());
        }
        // From now on there may be something of it, whatever happens.
        self.stored.keys.push(file.key);
        let (key, about) = file.finish(part, self.depot).await?;
        self.depot.metrics.stored(about.size);
        self.moved.push(Moved { index, key, about });
        Ok(())
    }
}

/// A text that people read, and that may be changed.
fn may_get_a_link(structure: &Structure, index: usize) -> bool {
    let part = structure.parts.get(index);
    part.is_some_and(|part| {
        matches!(part.content_type.as_str(), "text/plain" | "text/html")
            && part.disposition != "attachment"
    }) && !is_untouchable(structure, index)
}

// === impl Incoming ===

impl Incoming {
    fn new(key: Key, encoding: Encoding) -> Self {
        Self {
            key,
            decoder: Decoder::new(encoding),
            digest: Digest(digest::Context::new(&digest::SHA256)),
            size: 0,
            held: Vec::new(),
            upload: None,
        }
    }

    async fn take(&mut self, decoded: Vec<u8>, depot: &Depot) -> anyhow::Result<()> {
        self.digest.0.update(&decoded);
        self.size += decoded.len() as u64;
        if self.upload.is_none() && self.held.len() + decoded.len() <= HELD_OCTETS_MAX {
            self.held.extend_from_slice(&decoded);
            return Ok(());
        }
        self.upload(depot)
            .await?
            .write(decoded)
            .await
            .map_err(|error| failed(error, depot))
    }

    /// With all that was held.
    async fn upload(&mut self, depot: &Depot) -> anyhow::Result<&mut Upload> {
        if self.upload.is_none() {
            let place = Arc::clone(&depot.places).acquire_owned();
            let place = tokio::time::timeout(PLACE_TIMEOUT, place).await.with_context(|| {
                depot.metrics.failed(Failure::Busy);
                format!("no place to store a part within {PLACE_TIMEOUT:?}: the store is slow, or uploadsMax too small")
            })??;
            let failed = |error| failed(error, depot);
            let mut upload = depot.store.begin(self.key).await.map_err(failed)?;
            let held = std::mem::take(&mut self.held);
            upload.write(held).await.map_err(failed)?;
            self.upload = Some((upload, place));
        }
        let upload = self.upload.as_mut().map(|(upload, _)| upload);
        upload.context("no upload")
    }

    async fn finish(mut self, part: &Part, depot: &Depot) -> anyhow::Result<(Key, About)> {
        self.upload(depot).await?;
        let (upload, place) = self.upload.context("no upload")?;
        let sha256 = self.digest.0.finish();
        let about = About {
            name: part.name.clone(),
            kind: part.content_type.clone(),
            size: self.size,
            sha256: hex(sha256.as_ref()),
        };
        let finished = upload.finish(self.key, &about).await;
        finished.map_err(|error| failed(error, depot))?;
        drop(place);
        Ok((self.key, about))
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        text.push_str(&format!("{octet:02x}"));
        text
    })
}

fn failed(error: StoreError, depot: &Depot) -> anyhow::Error {
    depot.metrics.failed(Failure::Store);
    anyhow::Error::new(error).context("the attachment was not stored")
}

#[cfg(test)]
mod tests;
