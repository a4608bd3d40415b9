//! Incidents told to another tool over HTTP, each in a POST of its own.
//!
//! Owns a bounded queue and one task that sends, one incident after the other, again and slower if that fails. What a full queue cannot
//! take, what is refused, and what failed every time is counted; mail never waits for it. An incident may arrive twice, so each has an id.

use std::time::Duration;

use opes_http::{AskError, Engine};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::WAITING_MAX;
use crate::metrics::{ByWebhook, WebhookLabel};

/// How often one incident is tried.
const ATTEMPTS_MAX: u32 = 6;
/// Between the first two attempts; doubles each time, 31 s all together.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Webhook {
    queue: mpsc::Sender<String>,
    count: Family<ByWebhook, Counter>,
}

struct Task {
    engine: Engine,
    queue: mpsc::Receiver<String>,
    count: Family<ByWebhook, Counter>,
    closing: CancellationToken,
    delay: Duration,
    /// The last one failed: the log has that already.
    failing: bool,
}

// === impl Webhook ===

impl Webhook {
    pub(super) fn start(
        engine: Engine,
        count: Family<ByWebhook, Counter>,
        tasks: &TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        Self::start_with(engine, count, tasks, closing, RETRY_DELAY)
    }

    fn start_with(
        engine: Engine,
        count: Family<ByWebhook, Counter>,
        tasks: &TaskTracker,
        closing: CancellationToken,
        delay: Duration,
    ) -> Self {
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        let task = Task {
            engine,
            queue,
            count: count.clone(),
            closing,
            delay,
            failing: false,
        };
        tasks.spawn(task.run());
        Self {
            queue: sender,
            count,
        }
    }

    /// Never waits.
    pub(super) fn tell(&self, incident: String) {
        if self.queue.try_send(incident).is_err() {
            inc(&self.count, WebhookLabel::Dropped);
        }
    }
}

fn inc(count: &Family<ByWebhook, Counter>, result: WebhookLabel) {
    count.get_or_create(&ByWebhook { result }).inc();
}

// === impl Task ===

impl Task {
    /// Once it is closing, what waits is tried once each.
    async fn run(mut self) {
        loop {
            let incident = tokio::select! {
                biased;
                incident = self.queue.recv() => incident,
                () = self.closing.cancelled() => self.queue.try_recv().ok(),
            };
            let Some(incident) = incident else { return };
            let result = self.send(&incident).await;
            inc(&self.count, result);
        }
    }

    async fn send(&mut self, incident: &str) -> WebhookLabel {
        let mut delay = self.delay;
        for attempt in 1..=ATTEMPTS_MAX {
            let told = self.engine.tell("application/json", incident.to_owned());
            let Err(error) = told.await else {
                self.failing = false;
                return WebhookLabel::Delivered;
            };
            let result = if error.is_final() {
                WebhookLabel::Refused
            } else {
                WebhookLabel::Failed
            };
            if error.is_final() || attempt == ATTEMPTS_MAX || self.closing.is_cancelled() {
                self.complain(&error);
                return result;
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.closing.cancelled() => {}
            }
            delay *= 2;
        }
        WebhookLabel::Failed
    }

    fn complain(&mut self, error: &AskError) {
        if !self.failing {
            tracing::error!(%error, "incidents.webhook: an incident could not be told; it is in the log");
        }
        self.failing = true;
    }
}

#[cfg(test)]
mod tests {
    use opes_http::{Credential, Settings};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request after the other with these, then no more. Gives the bodies.
    async fn tool(
        answers: &'static [&'static str],
    ) -> (Engine, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            ca_file: None,
            insecure_plaintext: false,
            credential: Credential::None,
            timeout: Duration::from_secs(30),
            response_size_max: 1024,
        };
        let served = tokio::spawn(async move {
            let mut bodies = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                while !request.ends_with('}') {
                    let mut part = [0; 4096];
                    let octets = stream.read(&mut part).await.unwrap();
                    assert!(octets > 0, "{request}");
                    request.push_str(std::str::from_utf8(&part[..octets]).unwrap());
                }
                bodies.push(request.rsplit("\r\n").next().unwrap_or_default().to_owned());
                let answer =
                    format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            bodies
        });
        (Engine::new(settings).unwrap(), served)
    }

    async fn told(engine: Engine, incidents: &[&str]) -> Family<ByWebhook, Counter> {
        let (count, tasks, closing) = (
            Family::default(),
            TaskTracker::new(),
            CancellationToken::new(),
        );
        let webhook = Webhook::start_with(
            engine,
            count.clone(),
            &tasks,
            closing.clone(),
            Duration::from_millis(5),
        );
        for incident in incidents {
            webhook.tell((*incident).to_owned());
        }
        // The task ends with the queue.
        drop(webhook);
        tasks.close();
        tasks.wait().await;
        count
    }

    fn counted(count: &Family<ByWebhook, Counter>, result: WebhookLabel) -> u64 {
        count.get_or_create(&ByWebhook { result }).get()
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_and_what_is_refused_is_not() {
        let (engine, tool) = tool(&[
            "503 Later",
            "429 Slow down",
            "202 Accepted",
            "400 No",
            "204 Fine",
        ])
        .await;
        let count = told(engine, &["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"]).await;
        let bodies = tool.await.unwrap();
        assert_eq!(
            bodies,
            [
                "{\"n\":1}",
                "{\"n\":1}",
                "{\"n\":1}",
                "{\"n\":2}",
                "{\"n\":3}"
            ]
        );
        assert_eq!(counted(&count, WebhookLabel::Delivered), 2);
        assert_eq!(counted(&count, WebhookLabel::Refused), 1);
    }

    #[tokio::test]
    async fn a_tool_that_is_away_costs_a_bounded_queue() {
        let (engine, tool) = tool(&[]).await;
        tool.await.unwrap();
        let many = vec!["{}"; WAITING_MAX + 3];
        let (count, tasks, closing) = (
            Family::default(),
            TaskTracker::new(),
            CancellationToken::new(),
        );
        let webhook = Webhook::start(engine, count.clone(), &tasks, closing.clone());
        for incident in many {
            webhook.tell(incident.to_owned());
        }
        // The task has not run yet: nothing was awaited.
        assert_eq!(counted(&count, WebhookLabel::Dropped), 3);
        closing.cancel();
        tasks.close();
        tasks.wait().await;
        assert_eq!(counted(&count, WebhookLabel::Failed), WAITING_MAX as u64);
    }
}
