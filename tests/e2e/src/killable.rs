//! Callout servers of the test's own that can be killed as a process is: each has a runtime, and so threads and sockets, of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_callout_server::{Answer, Description, Listener, Message, ServerConfig, Service, serve};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// The field that tells which server a message went through.
pub const STAMP: &str = "X-Stamp";

/// Longest message that is read.
const CONTENT_MAX: usize = 1 << 20;

/// Reads the message, takes its time, and stamps it.
struct Stamper {
    number: usize,
    time: Duration,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

/// One server.
pub struct Killable {
    /// `http://HOST:PORT`.
    pub target: String,
    runtime: Option<Runtime>,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Service for Stamper {
    fn describe(&self) -> Description {
        Description::new("stamper").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        message.read_all(CONTENT_MAX).await?;
        tokio::time::sleep(self.time).await;
        self.ended.fetch_add(1, Ordering::Relaxed);
        Ok(Answer::accept().add_header(STAMP, self.number.to_string()))
    }
}

impl Killable {
    /// Starts one that takes `time` for each message.
    pub fn start(number: usize, time: Duration) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (begun, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let stamper = Arc::new(Stamper {
            number,
            time,
            begun: Arc::clone(&begun),
            ended: Arc::clone(&ended),
        });
        let handle = runtime.handle().clone();
        // The caller's runtime may not be blocked on.
        let bound = std::thread::spawn(move || handle.block_on(Listener::bind("127.0.0.1:0")));
        let listener = bound.join().ok().context("the listener panicked")??;
        let target = format!("http://{}", listener.address());
        let forever = CancellationToken::new();
        runtime.spawn(serve(stamper, listener, ServerConfig::default(), forever));
        Ok(Self {
            target,
            runtime: Some(runtime),
            begun,
            ended,
        })
    }

    /// Starts `count` of them.
    pub fn several(count: usize, time: Duration) -> Result<Vec<Self>> {
        (0..count).map(|number| Self::start(number, time)).collect()
    }

    /// No goodbye: handlers are gone where they stood, sockets are closed.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            crate::end(runtime);
        }
    }

    /// Messages whose handling it has begun.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Messages that it is at work on.
    pub fn running(&self) -> usize {
        let ended = self.ended.load(Ordering::Relaxed);
        self.begun().saturating_sub(ended)
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kill();
    }
}
