//! `opes dev --demo`: sends the samples and prints what each service said and what the recipient got.

mod client;
mod inbox;
mod samples;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use opes_edge::report::MessageReport;
use tokio::sync::mpsc;

use crate::dev::Event;
use crate::line::shortened;

/// How long a sample's report and its deliveries may take.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What serves without a foreign engine has been shown.
const MISSING: &str = "
reporting has counted all of it: opes report

What real engines add; rules for each are in examples/with-external-services, and docs/services says how
    spam-filter      rspamd: content, statistics, fuzzy hashes (here GTUBE passes)
    security-filter  clamd: signatures of viruses (here EICAR and what runs when it is opened)
    rerouting        an LDAP directory in place of a map
    access-control   an LDAP directory or an SQL database beside the policy
    secure-mail      keys of yours: OpenPGP and S/MIME (here DKIM, with a key that was made for it)
    attachment-links a bucket in place of a folder
    milter-bridge    any milter, such as opendkim: it has no engine of its own, so it is not shown here
";

/// Sends everything; returns the table.
pub(crate) async fn run(
    server: SocketAddr,
    maildir: Option<&Path>,
    events: &mut mpsc::Receiver<Event>,
) -> Result<String> {
    let samples = samples::all();
    let mut table =
        String::from("\nWhat was sent, what each service said, what the recipient got\n");
    for (number, sample) in samples.iter().enumerate() {
        while events.try_recv().is_ok() {}
        let answer = client::send(server, sample).await?;
        let reports = reports(events, &answer).await;
        table.push_str(&format!("\n{:2}. {}\n", number + 1, sample.title));
        table.push_str(&format!(
            "    from {}  to {}\n",
            sample.from,
            shortened(&sample.to.join(", "))
        ));
        for step in reports.iter().flat_map(|report| &report.steps) {
            let reason = if step.reason.is_empty() {
                String::new()
            } else {
                format!(" – {}", step.reason)
            };
            let service = step.service.rsplit('/').next().unwrap_or(&step.service);
            table.push_str(&format!(
                "    {service:16} {} ({:.1} ms){reason}\n",
                step.verdict,
                step.elapsed.as_secs_f64() * 1e3
            ));
        }
        table.push_str(&format!("    reply            {}\n", answer.decisive));
        for got in inbox::received(maildir, &reports) {
            table.push_str(&format!("    got              {got}\n"));
        }
    }
    table.push_str(MISSING);
    Ok(table)
}

/// Reports of one sample: until the message that was accepted is delivered, or at once if nothing was.
async fn reports(
    events: &mut mpsc::Receiver<Event>,
    answer: &client::Answer,
) -> Vec<MessageReport> {
    let mut reports: Vec<MessageReport> = Vec::new();
    let mut delivered = 0;
    let accepted = answer.decisive.starts_with('2');
    let complete = |reports: &[MessageReport], delivered: usize| {
        let queued = reports
            .iter()
            .find(|report| report.queue_ids().next().is_some());
        match queued {
            Some(report) => delivered >= report.to.len(),
            None => !accepted || reports.iter().any(|report| !report.is_refused()),
        }
    };
    let collect = async {
        // A refusal by the core itself has no report; one by a rule has been sent before the client got its reply.
        loop {
            while let Ok(event) = events.try_recv() {
                note(event, &mut reports, &mut delivered);
            }
            if complete(&reports, delivered) {
                return;
            }
            match events.recv().await {
                Some(event) => note(event, &mut reports, &mut delivered),
                None => return,
            }
        }
    };
    // A timeout shows as a sample that nobody got; the table says so.
    let _ = tokio::time::timeout(SAMPLE_TIMEOUT, collect).await;
    reports
}

fn note(event: Event, reports: &mut Vec<MessageReport>, delivered: &mut usize) {
    match event {
        Event::Message(report) => reports.push(*report),
        Event::Delivered(_) => *delivered += 1,
    }
}
