//! Incidents that callout services report (permission `report`): one structured log event each, and, as configured, a line in a file and a
//! request to a [`webhook`].
//!
//! What a service says is checked to be a JSON object of bounded size, and written in one line. The file is opened anew for each batch, so
//! that it can be rotated by renaming. Fails quietly: a line that cannot be written is counted, and the log has it all the same.

mod webhook;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use opes_host::Clock;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::webhook::Webhook;
use crate::config::IncidentsConfig;
use crate::metrics::{ByIncident, IncidentLabel, Metrics};

/// Longest report, octets.
const REPORT_OCTETS_MAX: usize = 64 * 1024;

/// Lines that wait for the file, and incidents for the webhook; more are dropped. With the longest reports this is 16 MiB.
const WAITING_MAX: usize = 256;

/// A report, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incident<'a> {
    /// `namespace/name`.
    pub(crate) rule: &'a str,
    /// `namespace/name`.
    pub(crate) service: &'a str,
    pub(crate) session: &'a str,
    /// As the service gave it.
    pub(crate) json: &'a str,
}

/// Where incidents go.
#[derive(Debug)]
pub(crate) struct Incidents {
    file: Option<mpsc::Sender<String>>,
    webhook: Option<Webhook>,
    /// Incidents so far.
    count: AtomicU64,
    /// No more will be recorded.
    closing: CancellationToken,
    tasks: TaskTracker,
    clock: Clock,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Unique, so that whoever is told twice can know.
    id: String,
    /// Milliseconds since 1970.
    time: u64,
    rule: &'a str,
    service: &'a str,
    session: &'a str,
    incident: &'a Map<String, Value>,
}

// === impl Incidents ===

impl Incidents {
    /// Opens the file, so that a wrong path is an error at the start. Must be called within a tokio runtime.
    pub(crate) async fn start(
        config: &IncidentsConfig,
        clock: Clock,
        metrics: &Metrics,
    ) -> Result<Self> {
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let webhook = config.webhook.as_ref().map(|webhook| {
            let engine = webhook.engine().context("incidents.webhook")?;
            let (count, closing) = (metrics.webhook.clone(), closing.clone());
            anyhow::Ok(Webhook::start(engine, count, &tasks, closing))
        });
        let webhook = webhook.transpose()?;
        let file = match &config.file {
            Some(path) => Some(file(path, &tasks, closing.clone()).await?),
            None => None,
        };
        Ok(Self {
            file,
            webhook,
            count: AtomicU64::new(0),
            closing,
            tasks,
            clock,
        })
    }

    /// Logs the incident and hands it to the file. Never waits.
    pub(crate) fn record(&self, incident: &Incident<'_>, metrics: &Metrics) {
        let result = self.log(incident);
        let count = metrics.incidents.get_or_create(&ByIncident { result });
        count.inc();
    }

    fn log(&self, incident: &Incident<'_>) -> IncidentLabel {
        let Some(object) = object(incident.json) else {
            tracing::warn!(
                rule = incident.rule,
                service = incident.service,
                session_id = incident.session,
                octets = incident.json.len(),
                "a service's incident report is no JSON object of at most 64 KiB; it was dropped"
            );
            return IncidentLabel::Invalid;
        };
        let json = serde_json::to_string(&object).unwrap_or_default();
        tracing::warn!(
            rule = incident.rule,
            service = incident.service,
            session_id = incident.session,
            report = json,
            "incident"
        );
        if self.file.is_none() && self.webhook.is_none() {
            return IncidentLabel::Logged;
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let line = Line {
            id: format!("{}-{number:x}", incident.session),
            time: self.clock.epoch_ms(),
            rule: incident.rule,
            service: incident.service,
            session: incident.session,
            incident: &object,
        };
        let line = serde_json::to_string(&line).unwrap_or_default();
        if let Some(webhook) = &self.webhook {
            webhook.tell(line.clone());
        }
        let Some(file) = &self.file else {
            return IncidentLabel::Logged;
        };
        match file.try_send(line + "\n") {
            Ok(()) => IncidentLabel::Logged,
            Err(_) => IncidentLabel::Dropped,
        }
    }

    /// Writes what waits, and tells it once more. No more gets anywhere afterwards.
    pub(crate) async fn finish(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn file(
    path: &Path,
    tasks: &TaskTracker,
    closing: CancellationToken,
) -> Result<mpsc::Sender<String>> {
    append(path, "").await.with_context(|| {
        format!(
            "incidents.file: cannot write {}\n  help: create the folder, or give it to the user that runs the edge",
            path.display()
        )
    })?;
    let (sender, lines) = mpsc::channel(WAITING_MAX);
    tasks.spawn(write(path.to_owned(), lines, closing));
    Ok(sender)
}

fn object(json: &str) -> Option<Map<String, Value>> {
    if json.len() > REPORT_OCTETS_MAX {
        return None;
    }
    // Depth is bounded by the parser: 128.
    match serde_json::from_str(json) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

async fn write(path: PathBuf, mut lines: mpsc::Receiver<String>, closing: CancellationToken) {
    let mut failing = false;
    loop {
        let line = tokio::select! {
            biased;
            line = lines.recv() => line,
            () = closing.cancelled() => None,
        };
        let Some(mut batch) = line else { return };
        while let Ok(line) = lines.try_recv() {
            batch.push_str(&line);
        }
        let written = append(&path, &batch).await;
        if let Err(error) = &written
            && !failing
        {
            tracing::error!(path = %path.display(), %error, "incidents cannot be written to their file; they are in the log only");
        }
        failing = written.is_err();
    }
}

async fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    // Others must not read what services found in people's mail.
    let mut file = options
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .await?;
    file.write_all(text.as_bytes()).await?;
    file.flush().await
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn incident(json: &str) -> Incident<'_> {
        Incident {
            rule: "default/scan",
            service: "default/scanner",
            session: "18f3a-2",
            json,
        }
    }

    fn to_file(path: &Path) -> IncidentsConfig {
        IncidentsConfig {
            file: Some(path.to_owned()),
            webhook: None,
        }
    }

    #[tokio::test]
    async fn a_report_is_one_line_in_the_file_whatever_its_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("incidents.jsonl");
        let metrics = Metrics::register(&mut Registry::default());
        let config = to_file(&path);
        let started = Incidents::start(&config, Clock::System, &metrics).await;
        let incidents = started.unwrap();
        incidents.record(&incident("{\n  \"virus\": \"eicar\\n\"\n}"), &metrics);
        for wrong in [
            "",
            "[]",
            "{",
            "\"x\"",
            &format!("{{\"x\": \"{}\"}}", "y".repeat(REPORT_OCTETS_MAX)),
        ] {
            incidents.record(&incident(wrong), &metrics);
        }
        incidents.record(&incident("{\"deep\": ".repeat(500).as_str()), &metrics);
        incidents.record(&incident("{}"), &metrics);
        incidents.finish().await;
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["incident"]["virus"], "eicar\n");
        assert_eq!(lines[0]["rule"], "default/scan");
        let count = |result| {
            metrics
                .incidents
                .get_or_create(&ByIncident { result })
                .get()
        };
        assert_eq!(
            (count(IncidentLabel::Logged), count(IncidentLabel::Invalid)),
            (2, 6)
        );
    }

    #[tokio::test]
    async fn more_than_the_file_can_take_is_dropped_and_counted() {
        let (sender, _lines) = mpsc::channel(1);
        let incidents = Incidents {
            file: Some(sender),
            webhook: None,
            count: AtomicU64::new(0),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            clock: Clock::System,
        };
        assert_eq!(incidents.log(&incident("{}")), IncidentLabel::Logged);
        assert_eq!(incidents.log(&incident("{}")), IncidentLabel::Dropped);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_named_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/incidents.jsonl");
        let metrics = Metrics::register(&mut Registry::default());
        let error = format!(
            "{:#}",
            Incidents::start(&to_file(&path), Clock::System, &metrics)
                .await
                .unwrap_err()
        );
        assert!(
            error.contains("missing/incidents.jsonl") && error.contains("help:"),
            "{error}"
        );
    }
}
