//! Delivery to Maildir files (https://cr.yp.to/proto/maildir.html): `DIR/<domain>/<local part>/{tmp,new,cur}`.
//!
//! A worker takes a batch, writes all its small files on one blocking thread and makes each folder durable once. The name of a
//! file follows from queue id and recipient, so that an attempt after a crash finds what an earlier one left, and no
//! message is in a mailbox twice. Fails with [`DepositError`], which names the path and the remedy, and is transient except for
//! addresses that no mailbox can be named after.

mod deposit;
mod mailbox;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use opes_smtp::reply::Reply;
use opes_spool::Recipient;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::deposit::{Body, Deposit, DepositError, deposit_all};
use self::mailbox::mailbox_of;
use crate::config::Route;
use crate::job::{Job, Origin, Verdict};
use crate::lane::{Lane, Seat};
use crate::relay::Shared;
use crate::source::Source;

/// Batches written at the same time: enough to keep a disk busy, few enough for the blocking pool.
pub(crate) const WORKERS: usize = 4;

/// Messages of one batch.
const BATCH_MESSAGES_MAX: usize = 32;

/// A message up to this size is read into memory; a larger one is streamed to its files.
const IN_MEMORY_OCTETS_MAX: u64 = 1024 * 1024;

/// Chunks of a streamed message between reader and writer.
const CHUNKS_AHEAD: usize = 4;

/// Writes to mailboxes, batch after batch.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    seat: Seat,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, lane: Arc<Lane>) -> Self {
        Self {
            shared,
            seat: Seat::new(Arc::clone(&lane)),
            lane,
        }
    }

    pub(crate) async fn run(mut self) {
        while !self.shared.stopping.is_cancelled() {
            let jobs = self.lane.take(BATCH_MESSAGES_MAX);
            if jobs.is_empty() {
                if self.idle().await.is_break() {
                    return;
                }
            } else {
                Box::pin(self.process(jobs)).await;
            }
        }
    }

    async fn idle(&mut self) -> ControlFlow<()> {
        let woken = timeout(self.shared.config.timeouts.idle, self.lane.work());
        let woken = self.shared.stopping.run_until_cancelled(woken).await;
        self.lane.awake();
        match woken {
            Some(Err(_)) if self.seat.leave_if_no_work() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Small messages together, large ones one by one.
    async fn process(&self, jobs: Vec<Job>) {
        let Route::Maildir { dir } = &self.shared.config.route else {
            return;
        };
        let mut batch = Batch::new(dir);
        for job in jobs {
            if job.is_abandoned() {
                continue;
            }
            match body_in_memory(&job.source).await {
                Ok(Some(body)) => batch.add(job, &body, &self.shared),
                Ok(None) => self.stream(dir, job).await,
                Err(verdict) => {
                    let verdicts = job.all(&verdict);
                    job.finish(verdicts, &self.shared).await;
                }
            }
        }
        batch.write(&self.shared).await;
    }

    /// A message that is large, or still growing, to each of its mailboxes in turn.
    async fn stream(&self, dir: &Path, job: Job) {
        let mut verdicts = Vec::new();
        let names = Names::of(&job, &self.shared);
        for (index, recipient) in job.recipients.iter().zip(job.recipients()) {
            let (chunks, body) = mpsc::channel(CHUNKS_AHEAD);
            let verdict = match names.deposit(&job, *index, recipient, Body::Stream(body)) {
                Ok(deposit) => {
                    let writing = write_all(dir.to_owned(), vec![deposit]);
                    let ((), mut written) = tokio::join!(feed(&job.source, chunks), writing);
                    written
                        .pop()
                        .map_or_else(|| verdict(Err(lost_thread())), verdict)
                }
                Err(error) => verdict(Err(error)),
            };
            verdicts.push(verdict);
        }
        job.finish(verdicts, &self.shared).await;
    }
}

/// Messages whose files are written together.
struct Batch<'a> {
    dir: &'a Path,
    jobs: Vec<(Job, Vec<Planned>)>,
    deposits: Vec<Deposit>,
}

/// What is to become of one recipient of a batch.
enum Planned {
    /// The next deposit that is not taken yet.
    Written,
    Refused(DepositError),
}

impl<'a> Batch<'a> {
    fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            jobs: Vec::new(),
            deposits: Vec::new(),
        }
    }

    fn add(&mut self, job: Job, body: &[Bytes], shared: &Shared) {
        let names = Names::of(&job, shared);
        let mut planned = Vec::with_capacity(job.recipients.len());
        for (index, recipient) in job.recipients.iter().zip(job.recipients()) {
            match names.deposit(&job, *index, recipient, Body::Memory(body.to_vec())) {
                Ok(deposit) => {
                    self.deposits.push(deposit);
                    planned.push(Planned::Written);
                }
                Err(error) => planned.push(Planned::Refused(error)),
            }
        }
        self.jobs.push((job, planned));
    }

    async fn write(self, shared: &Arc<Shared>) {
        let mut written = Vec::new().into_iter();
        if !self.deposits.is_empty() {
            written = write_all(self.dir.to_owned(), self.deposits)
                .await
                .into_iter();
        }
        for (job, planned) in self.jobs {
            let verdicts = planned
                .into_iter()
                .map(|planned| match planned {
                    Planned::Written => {
                        verdict(written.next().unwrap_or_else(|| Err(lost_thread())))
                    }
                    Planned::Refused(error) => verdict(Err(error)),
                })
                .collect();
            job.finish(verdicts, shared).await;
        }
    }
}

/// File names of one message.
struct Names<'a> {
    unique: String,
    suspect: bool,
    hostname: &'a str,
}

impl<'a> Names<'a> {
    /// A stored message keeps its names for life; in cut-through mode each attempt is a message of its own.
    fn of(job: &Job, shared: &'a Shared) -> Self {
        let (unique, suspect) = match &job.origin {
            Origin::Spool { id, suspect, .. } => (id.to_string(), *suspect),
            Origin::Client(_) => (format!("{:016x}", shared.random()), false),
        };
        Self {
            unique,
            suspect,
            hostname: &shared.config.hostname,
        }
    }

    fn deposit(
        &self,
        job: &Job,
        index: u32,
        recipient: &Recipient,
        body: Body,
    ) -> Result<Deposit, DepositError> {
        let mailbox = mailbox_of(&recipient.address, self.hostname)?;
        let seconds = job.envelope.received_at_ms / 1000;
        let host = mailbox::safe_component(self.hostname).unwrap_or_else(|| "localhost".into());
        let reverse_path = &job.envelope.reverse_path;
        Ok(Deposit {
            mailbox,
            name: format!("{seconds}.Q{}R{index}.{host}", self.unique),
            header: header(reverse_path, &recipient.address),
            body,
            suspect: self.suspect,
        })
    }
}

/// RFC 5321 §4.4 for the first. Addresses were checked when they came in; whatever a rule made of them since, they stay one line.
fn header(reverse_path: &str, recipient: &str) -> String {
    let line = |text: &str| text.replace(char::is_control, "?");
    format!(
        "Return-Path: <{}>\r\nDelivered-To: {}\r\n",
        line(reverse_path),
        line(recipient)
    )
}

async fn body_in_memory(source: &Source) -> Result<Option<Vec<Bytes>>, Verdict> {
    if let Some(chunks) = source.in_memory() {
        return Ok(Some(chunks));
    }
    let len = match source.len() {
        Some(len) if len <= IN_MEMORY_OCTETS_MAX => len,
        _ => return Ok(None),
    };
    let mut chunks = Vec::new();
    let mut offset = 0;
    while offset < len {
        let chunk = source
            .read(offset)
            .await
            .map_err(|error| unreadable(&error.to_string()))?;
        if chunk.is_empty() {
            return Err(unreadable("the message is shorter than it was"));
        }
        offset += chunk.len() as u64;
        chunks.push(chunk);
    }
    Ok(Some(chunks))
}

/// Sends the message to the blocking side; the writer going away is the writer's error to tell.
async fn feed(source: &Source, chunks: mpsc::Sender<Result<Bytes, String>>) {
    let mut offset = 0;
    loop {
        let chunk = source.read(offset).await.map_err(|error| error.to_string());
        let end = !matches!(&chunk, Ok(octets) if !octets.is_empty());
        offset += chunk.as_ref().map_or(0, Bytes::len) as u64;
        if chunks.send(chunk).await.is_err() || end {
            return;
        }
    }
}

async fn write_all(dir: PathBuf, deposits: Vec<Deposit>) -> Vec<Result<PathBuf, DepositError>> {
    let writing = tokio::task::spawn_blocking(move || deposit_all(&dir, deposits));
    writing.await.unwrap_or_default()
}

fn lost_thread() -> DepositError {
    DepositError::Source("the writing thread ended early".into())
}

fn unreadable(why: &str) -> Verdict {
    verdict(Err(DepositError::Source(why.to_owned())))
}

fn verdict(result: Result<PathBuf, DepositError>) -> Verdict {
    match result {
        Ok(path) => Verdict {
            reply: Reply::OK,
            detail: None,
            place: Some(path.display().to_string()),
            reports: false,
        },
        Err(error) => {
            let detail = error.to_string();
            tracing::warn!(reason = detail, "a mailbox cannot be written");
            Verdict {
                reply: error.reply(),
                detail: Some(detail),
                place: None,
                reports: false,
            }
        }
    }
}
