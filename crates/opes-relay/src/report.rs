//! Delivery reports: who is told of what became of a recipient, and the one write that settles it and stores the report.
//!
//! Reports arise only for what was answered 250 (RFC 5321 §6.1); the message that a report makes is queued like any other. A report on
//! a report would go in circles: nothing with the null reverse-path is ever reported to its sender. Fails with the spool's error, and
//! then nothing is settled.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use opes_dsn::{Action, Author, RETURNED_OCTETS_MAX, Report, Returned, Told, notify};
use opes_spool::{Envelope, QueueId, Recipient, ReportsOn, SpoolError};

use crate::job::{Fate, Job, Verdict};
use crate::lane::Target;
use crate::relay::Shared;
use crate::source::Source;

/// Which senders get reports. A sender's address may be forged: then the report goes to somebody who sent nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Senders {
    /// All of them, as RFC 5321 §6.1 demands.
    #[default]
    All,
    /// Those who sent with AUTH, and addresses of these domains.
    Known {
        /// Without subdomains.
        domains: Vec<String>,
    },
    /// None. Failed mail is found in the log only.
    Nobody,
}

/// Who was told of one recipient that failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportResult {
    /// The sender, or of a report the postmaster: it is stored.
    Stored,
    /// Nobody: NOTIFY without FAILURE.
    NotWanted,
    /// Nobody: the message came with the null reverse-path.
    NullSender,
    /// Nobody: [`Senders`] leaves this one out.
    OtherSender,
    /// Nobody: it was a report of ours.
    DoubleBounce,
    /// Nobody yet: it cannot be stored, and the recipient is tried again.
    Postponed,
}

/// Receives the result for each recipient that failed.
pub type OnReport = Arc<dyn Fn(ReportResult) + Send + Sync>;

/// How reports are made.
#[derive(Clone)]
pub struct Reports {
    /// Who gets them.
    pub senders: Senders,
    /// Gets the reports of ours that cannot be delivered; `None` = they are logged.
    pub postmaster: Option<String>,
    /// Absolute URI of the OPES system (RFC 4902 §4); empty = none.
    pub system: String,
    /// Must not block.
    pub on_result: OnReport,
}

/// Whom to tell, and of which of the job's recipients.
#[derive(Debug, Default)]
pub(crate) struct Due {
    to: String,
    /// Places in the job's list of recipients.
    pub(crate) places: Vec<usize>,
}

// === impl Reports ===

impl Default for Reports {
    fn default() -> Self {
        Self {
            senders: Senders::default(),
            postmaster: None,
            system: String::new(),
            on_result: Arc::new(|_| ()),
        }
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports")
            .field("senders", &self.senders)
            .field("postmaster", &self.postmaster)
            .field("system", &self.system)
            .finish_non_exhaustive()
    }
}

impl Reports {
    /// Who is to be told of failures of a message with this envelope.
    fn addressee<'a>(&'a self, envelope: &'a Envelope) -> Result<&'a str, ReportResult> {
        let sender = envelope.reverse_path.as_str();
        if sender.is_empty() {
            return match (&envelope.reports_on, self.postmaster.as_deref()) {
                (None, _) => Err(ReportResult::NullSender),
                // The copy for the postmaster is a report too; it must not beget another.
                (Some(_), Some(to)) if !is_to(envelope, to) => Ok(to),
                (Some(_), _) => Err(ReportResult::DoubleBounce),
            };
        }
        let is_known = |domains: &[String]| {
            let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain);
            envelope.auth.is_some() || domains.iter().any(|ours| ours.eq_ignore_ascii_case(domain))
        };
        match &self.senders {
            Senders::All => Ok(sender),
            Senders::Known { domains } if is_known(domains) => Ok(sender),
            Senders::Known { .. } | Senders::Nobody => Err(ReportResult::OtherSender),
        }
    }
}

fn is_to(envelope: &Envelope, address: &str) -> bool {
    let mut recipients = envelope.recipients.iter();
    recipients.any(|recipient| recipient.address.eq_ignore_ascii_case(address))
}

/// Which recipients a report is due for after an attempt. Counts the failed ones that nobody is told of.
pub(crate) fn due(job: &Job, verdicts: &[Verdict], fates: &[Fate], shared: &Shared) -> Due {
    let reports = &shared.config.reports;
    let addressee = reports.addressee(&job.envelope);
    let mut places = Vec::new();
    for (place, recipient) in job.recipients().enumerate() {
        let (Some(verdict), Some(fate)) = (verdicts.get(place), fates.get(place)) else {
            continue;
        };
        let wanted = notify(&recipient.params);
        // Whoever is told instead of the sender did not choose.
        let failure = wanted.failure || job.envelope.reverse_path.is_empty();
        match (fate, &addressee) {
            (Fate::Failed, Ok(_)) if failure => places.push(place),
            (Fate::Failed, Ok(_)) => (reports.on_result)(ReportResult::NotWanted),
            (Fate::Failed, Err(why)) => (reports.on_result)(*why),
            (Fate::Delivered, Ok(_)) if wanted.success && !verdict.reports => places.push(place),
            (Fate::Delivered | Fate::Again, _) => {}
        }
    }
    if addressee == Err(ReportResult::DoubleBounce) && fates.contains(&Fate::Failed) {
        tracing::error!(queue_id = ?job.queue_id().map(|id| id.to_string()), "a delivery report of ours cannot be delivered; nobody is told of it");
    }
    Due {
        to: addressee.unwrap_or_default().to_owned(),
        places,
    }
}

/// Makes the report and settles its recipients, in one write; then queues it.
pub(crate) async fn send(
    job: &Job,
    id: &QueueId,
    due: &Due,
    verdicts: &[Verdict],
    shared: &Arc<Shared>,
) -> Result<(), SpoolError> {
    let (envelope, octets) = compose(job, id, due, verdicts, shared).await;
    let stored = shared.spool.store_octets(envelope, octets).await;
    let result = match &stored {
        Ok(_) => ReportResult::Stored,
        Err(_) => ReportResult::Postponed,
    };
    for place in &due.places {
        if verdicts
            .get(*place)
            .is_some_and(|verdict| verdict.reply.is_refusal())
        {
            (shared.config.reports.on_result)(result);
        }
    }
    let report = stored?;
    tracing::info!(queue_id = %id, report = %report.id, recipients = due.places.len(), "the sender is told in a delivery report");
    shared.enqueue(&report, false);
    Ok(())
}

async fn compose(
    job: &Job,
    id: &QueueId,
    due: &Due,
    verdicts: &[Verdict],
    shared: &Shared,
) -> (Envelope, Bytes) {
    let envelope = &job.envelope;
    let now_ms = shared.config.host.clock.epoch_ms();
    let trace = match envelope.trace_id.as_str() {
        "" => &envelope.session_id,
        trace => trace,
    };
    let recipients: Vec<u32> = due
        .places
        .iter()
        .filter_map(|place| job.recipients.get(*place).copied())
        .collect();
    let told: Vec<_> = due
        .places
        .iter()
        .filter_map(|place| told(job, *place, verdicts.get(*place)?))
        .collect();
    let (octets, complete) = beginning(&job.source).await;
    let composed = Report {
        author: Author {
            hostname: &shared.config.hostname,
            system: &shared.config.reports.system,
            trace,
        },
        to: &due.to,
        // A recipient is told of once, so its place makes the report's name unique.
        id: &format!("{id}.R{}", recipients.first().copied().unwrap_or_default()),
        now: now_ms / 1000,
        arrived: envelope.received_at_ms / 1000,
        smtputf8: envelope.smtputf8,
        params: &envelope.mail_params,
        recipients: &told,
        returned: Returned {
            octets: &octets,
            complete,
        },
    }
    .compose();
    let report = Envelope {
        body_8bit: composed.body_8bit,
        smtputf8: composed.smtputf8,
        recipients: vec![Recipient {
            address: due.to.clone(),
            // RFC 3461 §6.1.
            params: vec!["NOTIFY=NEVER".to_owned()],
            next_hop: None,
        }],
        received_at_ms: now_ms,
        session_id: envelope.session_id.clone(),
        trace_id: envelope.trace_id.clone(),
        reports_on: Some(ReportsOn {
            id: *id,
            recipients,
        }),
        ..Envelope::default()
    };
    (report, composed.octets.into())
}

fn told<'a>(job: &'a Job, place: usize, verdict: &'a Verdict) -> Option<Told<'a>> {
    let recipient = job.recipients().nth(place)?;
    let next_hop = match &job.target {
        Target::NextHop { host, .. } => Some(host.as_str()),
        Target::Maildir => None,
    };
    let action = match (verdict.reply.is_positive(), next_hop) {
        (false, _) => Action::Failed,
        (true, None) => Action::Delivered,
        (true, Some(_)) => Action::Relayed,
    };
    Some(Told {
        address: &recipient.address,
        params: &recipient.params,
        action,
        reply: &verdict.reply,
        expired: verdict.reply.is_transient(),
        next_hop,
    })
}

/// What a report may return of the message, and whether that is all of it. What cannot be read is left out: the report matters more.
async fn beginning(source: &Source) -> (Vec<u8>, bool) {
    let mut octets = Vec::new();
    while octets.len() <= RETURNED_OCTETS_MAX {
        match source.read(octets.len() as u64).await {
            Ok(more) if more.is_empty() => return (octets, true),
            Ok(more) => octets.extend_from_slice(&more),
            Err(error) => {
                tracing::warn!(%error, "a delivery report returns nothing of its message, which cannot be read");
                break;
            }
        }
    }
    (octets, false)
}
