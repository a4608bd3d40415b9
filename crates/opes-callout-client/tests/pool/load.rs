//! A steady load, and how long its transactions took by when they began.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opes_callout_client::{CalloutError, ServiceClient};
use tokio::task::JoinSet;

use crate::worker::{PATIENCE, request};

const CALLERS: usize = 30;

pub(crate) struct Load {
    began: Instant,
    callers: JoinSet<()>,
    stop: Arc<std::sync::atomic::AtomicBool>,
    done: Arc<Mutex<Vec<Done>>>,
}

struct Done {
    began: Duration,
    took: Duration,
    error: Option<CalloutError>,
}

/// What was measured.
pub(crate) struct Figures(Vec<Done>);

impl Load {
    pub(crate) fn start(client: &ServiceClient) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let done = Arc::<Mutex<Vec<Done>>>::default();
        let mut callers = JoinSet::new();
        let request = request(PATIENCE);
        for _ in 0..CALLERS {
            let (client, stop, done) = (client.clone(), Arc::clone(&stop), Arc::clone(&done));
            let request = request.clone();
            callers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let at = began.elapsed();
                    let error = client.run(request.clone()).await.err();
                    let took = began.elapsed().saturating_sub(at);
                    done.lock().unwrap().push(Done {
                        began: at,
                        took,
                        error,
                    });
                }
            });
        }
        Self {
            began,
            callers,
            stop,
            done,
        }
    }

    pub(crate) async fn run_until(&self, time: Duration) {
        tokio::time::sleep_until((self.began + time).into()).await;
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) async fn finish(mut self) -> Figures {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
        Figures(std::mem::take(&mut self.done.lock().unwrap()))
    }
}

impl Figures {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        let errors = self.0.iter().filter_map(|done| done.error.as_ref());
        errors.map(ToString::to_string).collect()
    }

    /// Of what began in this time.
    pub(crate) fn p99(&self, from: Duration, to: Duration) -> Duration {
        let in_time = self.0.iter().filter(|d| (from..to).contains(&d.began));
        let mut took: Vec<_> = in_time.map(|done| done.took).collect();
        took.sort_unstable();
        assert!(
            took.len() > 100,
            "only {} between {from:?} and {to:?}",
            took.len()
        );
        took[took.len() * 99 / 100]
    }
}
