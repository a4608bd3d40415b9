//! The task that writes: batches by number or time, failures repeated with growing pauses, retention in between.
//!
//! While the database is away one batch is in its hands and the rest in the queue; it is the queue that drops. Once told to stop it has a
//! deadline, and counts what it has to leave behind.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::event::Event;
use crate::metrics::{Metrics, Reason};
use crate::queue::{Queue, Waiting, queue};
use crate::rows::Loss;
use crate::service::random_id;
use crate::store::{Store, StoreError};
use crate::text::signed;

/// Pauses after a failure, the first and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Rows in one transaction: a few messages to very many recipients are a batch, too.
const BATCH_ROWS_MAX: usize = 20_000;

/// Notes of losses that wait; what is dropped beyond is noted later.
const LOSSES_MAX: usize = 100;

/// Between two looks for old rows; between two steps while there are some.
const EXPIRE_INTERVAL: Duration = Duration::from_hours(1);
const EXPIRE_STEP: Duration = Duration::from_millis(200);

/// A writer at work.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) queue: Queue,
    stop: Stop,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// The order to end, and until when.
#[derive(Debug, Clone)]
struct Stop {
    told: CancellationToken,
    time: Duration,
    deadline: Arc<OnceLock<Instant>>,
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    batch_max: usize,
    flush: Duration,
    keep: Duration,
}

struct Work {
    store: Arc<Store>,
    waiting: Waiting,
    metrics: Metrics,
    settings: Settings,
    stop: Stop,
    expire_due: Instant,
    /// Told to the database already, or in `losses`.
    noted: [u64; 3],
    losses: Vec<Loss>,
}

// === impl Writer ===

impl Writer {
    pub(crate) fn start(config: &Config, store: Arc<Store>, metrics: &Metrics) -> Self {
        let (queue, waiting) = queue(config.queue_max, metrics);
        let stop = Stop {
            told: CancellationToken::new(),
            time: Duration::from_millis(config.stop_ms),
            deadline: Arc::default(),
        };
        let work = Work {
            store,
            waiting,
            metrics: metrics.clone(),
            settings: Settings {
                batch_max: config.batch_max,
                flush: Duration::from_millis(config.flush_ms),
                keep: config.keep(),
            },
            stop: stop.clone(),
            expire_due: Instant::now(),
            noted: [0; 3],
            losses: Vec::new(),
        };
        Self {
            queue,
            stop,
            task: Mutex::new(Some(tokio::spawn(work.run()))),
        }
    }

    /// Writes what waits, as far as the time for it goes.
    pub(crate) async fn stop(&self) {
        self.stop.tell();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the writer of reports has failed");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The task ends by itself.
        self.stop.tell();
    }
}

// === impl Stop ===

impl Stop {
    fn tell(&self) {
        self.deadline();
        self.told.cancel();
    }

    fn is_told(&self) -> bool {
        self.told.is_cancelled()
    }

    /// Counts from the first call.
    fn deadline(&self) -> Instant {
        *self.deadline.get_or_init(|| Instant::now() + self.time)
    }

    /// The order came, and its time is over.
    async fn over(&self) {
        self.told.cancelled().await;
        tokio::time::sleep_until(self.deadline()).await;
    }
}

// === impl Work ===

impl Work {
    async fn run(mut self) {
        let stop = self.stop.told.clone();
        while !stop.is_cancelled() {
            let mut batch = Vec::new();
            let max = self.settings.batch_max;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(self.expire_due) => self.expire().await,
                open = self.waiting.take(&mut batch, max) => if !open { break },
            }
            if !batch.is_empty() {
                self.fill(&mut batch).await;
                self.write(batch).await;
            }
        }
        self.finish().await;
    }

    /// Waits for more, until there are enough or the first has waited long enough.
    async fn fill(&mut self, batch: &mut Vec<Event>) {
        let due = Instant::now() + self.settings.flush;
        let stop = self.stop.told.clone();
        while batch.len() < self.settings.batch_max {
            let missing = self.settings.batch_max - batch.len();
            tokio::select! {
                () = stop.cancelled() => return,
                taken = timeout_at(due, self.waiting.take(batch, missing)) => if !matches!(taken, Ok(true)) { return },
            }
        }
    }

    async fn finish(&mut self) {
        self.stop.tell();
        self.waiting.close();
        loop {
            let mut batch = Vec::new();
            self.waiting.take_now(&mut batch, self.settings.batch_max);
            if batch.is_empty() {
                break;
            }
            self.write(batch).await;
        }
        let left = self.metrics.dropped(Reason::Stopped);
        if left > 0 {
            tracing::warn!(
                events = left,
                "reports that could not be written before the end are lost"
            );
        }
    }

    /// Until all of it is in the database, or dropped for a reason.
    async fn write(&mut self, batch: Vec<Event>) {
        let mut pending = batch;
        let mut pause = PAUSE_MIN;
        let mut one_by_one = false;
        while !pending.is_empty() {
            self.note_losses();
            let count = if one_by_one { 1 } else { fitting(&pending) };
            let now = pending.get(..count).unwrap_or(&pending);
            match self.insert(now).await {
                Ok(()) => {
                    self.metrics.written.inc_by(count as u64);
                    self.losses.clear();
                    pending.drain(..count);
                    pause = PAUSE_MIN;
                }
                Err(error) if error.is_about_rows() && count == 1 => {
                    tracing::error!(%error, "the database does not take an event");
                    self.metrics.drop_events(Reason::Rejected, 1);
                    pending.drain(..1);
                }
                Err(error) if error.is_about_rows() => one_by_one = true,
                Err(error) => {
                    self.metrics.failures.inc();
                    tracing::warn!(%error, waiting = pending.len(), "reports cannot be written, trying again");
                    if !self.rest(pause).await {
                        self.metrics
                            .drop_events(Reason::Stopped, pending.len() as u64);
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn insert(&self, events: &[Event]) -> Result<(), StoreError> {
        tokio::select! {
            written = self.store.insert(events, &self.losses) => written,
            () = self.stop.over() => Err(StoreError::Timeout),
        }
    }

    /// False: there is no time left.
    async fn rest(&self, pause: Duration) -> bool {
        if !self.stop.is_told() {
            let pause = tokio::time::sleep(pause);
            let rested = self.stop.told.run_until_cancelled(pause).await.is_some();
            // Told meanwhile: one more attempt at once.
            return rested || Instant::now() < self.stop.deadline();
        }
        if Instant::now() + pause >= self.stop.deadline() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    /// What was dropped since is written with the next batch. A note is never changed: the batch may have been committed without our knowing.
    fn note_losses(&mut self) {
        if self.losses.len() >= LOSSES_MAX {
            return;
        }
        for (noted, reason) in self.noted.iter_mut().zip(Reason::ALL) {
            let dropped = self.metrics.dropped(reason);
            let events = dropped.saturating_sub(*noted);
            if events > 0 {
                *noted = dropped;
                self.losses.push(Loss {
                    id: random_id(),
                    at_ms: signed(now_ms()),
                    reason: reason.word(),
                    events: signed(events),
                });
            }
        }
    }

    async fn expire(&mut self) {
        let keep = u64::try_from(self.settings.keep.as_millis()).unwrap_or(u64::MAX);
        let expire = self.store.expire(now_ms().saturating_sub(keep));
        let Some(expired) = self.stop.told.run_until_cancelled(expire).await else {
            return;
        };
        let pause = match expired {
            Ok(expired) => {
                self.metrics.expired.inc_by(expired.rows);
                if expired.more {
                    EXPIRE_STEP
                } else {
                    EXPIRE_INTERVAL
                }
            }
            Err(error) => {
                self.metrics.failures.inc();
                tracing::warn!(%error, "old reports cannot be removed");
                PAUSE_MAX
            }
        };
        self.expire_due = Instant::now() + pause;
    }
}

/// So many that their rows make one transaction; at least one.
fn fitting(events: &[Event]) -> usize {
    let mut rows = 0;
    let within = events.iter().take_while(|event| {
        rows += event.rows();
        rows <= BATCH_ROWS_MAX
    });
    within.count().max(1)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
