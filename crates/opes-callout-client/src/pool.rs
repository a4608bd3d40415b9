//! The connections of one service: opened when needed, never more than configured, forgotten when they end.
//!
//! A failed attempt holds the next one off for a moment; whoever waited for an attempt shares its result, so a dead
//! service costs one attempt, not one per waiting message. Nothing else is remembered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::config::ServiceClientConfig;
use crate::connection::{self, Handle};
use crate::error::CalloutError;
use crate::naming::Naming;

/// Pause after a failed attempt: doubles up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Pool {
    config: ServiceClientConfig,
    naming: Arc<Naming>,
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    handle: Mutex<Option<Arc<Handle>>>,
    attempts: tokio::sync::Mutex<Option<FailedAttempt>>,
}

#[derive(Debug)]
struct FailedAttempt {
    started: Instant,
    ended: Instant,
    backoff: Duration,
    error: CalloutError,
}

impl Slot {
    fn open_handle(&self) -> Option<Arc<Handle>> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.as_ref().is_some_and(|h| !h.is_open()) {
            *handle = None;
        }
        handle.clone()
    }
}

impl Pool {
    pub(crate) fn new(config: ServiceClientConfig, naming: Arc<Naming>) -> Self {
        let slots = (0..config.connections.max(1))
            .map(|_| Slot::default())
            .collect();
        Self {
            config,
            naming,
            slots,
        }
    }

    /// A place on a connection. Waits for one to become free when all connections are full.
    pub(crate) async fn place(&self) -> Result<(Arc<Handle>, OwnedSemaphorePermit), CalloutError> {
        loop {
            if let Some(place) = self.free_place() {
                return Ok(place);
            }
            if let Some(slot) = self.slots.iter().find(|slot| slot.open_handle().is_none()) {
                self.connect(slot).await?;
            } else if let Some(place) = self.wait_for_place().await {
                return Ok(place);
            }
        }
    }

    /// An open connection, whether it has a free place or not.
    pub(crate) async fn any(&self) -> Result<Arc<Handle>, CalloutError> {
        match self.slots.iter().find_map(Slot::open_handle) {
            Some(handle) => Ok(handle),
            None => match self.slots.first() {
                Some(slot) => self.connect(slot).await,
                None => Err(self.naming.unavailable("no connections are configured")),
            },
        }
    }

    fn free_place(&self) -> Option<(Arc<Handle>, OwnedSemaphorePermit)> {
        self.slots
            .iter()
            .filter_map(Slot::open_handle)
            .find_map(|handle| {
                let permit = Arc::clone(&handle.places).try_acquire_owned().ok()?;
                Some((handle, permit))
            })
    }

    /// On the connection with the shortest queue we know of: the first.
    async fn wait_for_place(&self) -> Option<(Arc<Handle>, OwnedSemaphorePermit)> {
        let waits = self
            .slots
            .iter()
            .filter_map(Slot::open_handle)
            .map(|handle| {
                Box::pin(async move {
                    let permit = Arc::clone(&handle.places).acquire_owned().await.ok()?;
                    handle.is_open().then_some((handle, permit))
                })
            });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return None;
        }
        futures_util::future::select_all(waits).await.0
    }

    async fn connect(&self, slot: &Slot) -> Result<Arc<Handle>, CalloutError> {
        let arrived = Instant::now();
        let mut last = slot.attempts.lock().await;
        if let Some(handle) = slot.open_handle() {
            return Ok(handle);
        }
        let mut backoff = BACKOFF_MIN;
        if let Some(failed) = last.as_ref() {
            if failed.started >= arrived {
                return Err(failed.error.clone());
            }
            tokio::time::sleep_until(failed.ended + failed.backoff).await;
            backoff = (failed.backoff * 2).min(BACKOFF_MAX);
        }
        let started = Instant::now();
        match self.attempt().await {
            Ok(handle) => {
                *last = None;
                let mut place = slot.handle.lock().unwrap_or_else(PoisonError::into_inner);
                *place = Some(Arc::clone(&handle));
                Ok(handle)
            }
            Err(error) => {
                tracing::warn!(service = %self.naming.service, %error, "callout connection failed");
                let ended = Instant::now();
                *last = Some(FailedAttempt {
                    started,
                    ended,
                    backoff,
                    error: error.clone(),
                });
                Err(error)
            }
        }
    }

    async fn attempt(&self) -> Result<Arc<Handle>, CalloutError> {
        let limit = self.config.connect_timeout;
        let attempt = connection::open(&self.config, &self.naming);
        tokio::time::timeout(limit, attempt)
            .await
            .unwrap_or_else(|_| {
                let reason = format!("no OCP connection within {} ms", limit.as_millis());
                Err(self.naming.unavailable(reason))
            })
    }
}
