//! What services want people to be told: incidents, which go to the log, and notifications, short mails about a message (RFC 4496 §5).
//!
//! Who may get one is [`policy`], how many is [`limits`]; here they are written, stored and queued like other mail, with the null
//! reverse-path, so that nothing ever comes back. Fails quietly: a notification that cannot be sent costs the message nothing, is
//! counted by reason, and logged once in a while.

mod facts;
mod limits;
mod policy;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use opes_content::View;
use opes_dsn::{Author, Notice};
use opes_proto::smtp;
use opes_spool::{Envelope, Recipient};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::facts::MessageFacts;
use self::limits::Limits;
use self::policy::{Circumstances, Refusal};
use crate::config::NotificationsConfig;
use crate::dialog::Dialog;
use crate::edge::Edge;
use crate::engine::Advice;
use crate::incidents::Incident;
use crate::metrics::{ByNotification, NotificationLabel};

/// Notifications in one answer of a service; what is beyond was not meant for people.
const NOTIFICATIONS_MAX: usize = 32;

/// Messages whose notifications are being stored at once; those of more are dropped.
const UNDER_WAY_MAX: usize = 64;

/// The message, its client, and what became of it.
struct About {
    dialog: Dialog,
    facts: Option<MessageFacts>,
    /// Its client was answered 4xx or 5xx: it knows already, and nobody will get the message.
    refused: bool,
}

/// What one edge keeps of its notifications.
#[derive(Debug)]
pub(crate) struct Notifier {
    limits: Limits,
    under_way: Arc<Semaphore>,
}

// === impl Notifier ===

impl Notifier {
    pub(crate) fn new(config: &NotificationsConfig) -> Self {
        Self {
            limits: Limits::new(config.per_recipient_per_hour, config.per_rule_per_hour),
            under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
        }
    }
}

/// Passes on what services want people to be told of a command, or of the message `original`. Does not wait for the disk: incidents are
/// written at once, mail is stored by a task that a drain waits for.
pub(crate) async fn advise(
    edge: &Arc<Edge>,
    dialog: &Dialog,
    original: Option<&View>,
    refused: bool,
    advice: Vec<Advice>,
) {
    for advice in advice.iter().filter(|advice| !advice.incident.is_empty()) {
        let incident = Incident {
            rule: &advice.rule,
            service: &advice.service,
            session: &dialog.id,
            json: &advice.incident,
        };
        edge.incidents.record(&incident, &edge.metrics);
    }
    if advice.iter().all(|advice| advice.notifications.is_empty()) {
        return;
    }
    let Ok(permit) = Arc::clone(&edge.notifier.under_way).try_acquire_owned() else {
        for advice in &advice {
            count(edge, NotificationLabel::Failed, advice);
        }
        return;
    };
    let about = About {
        dialog: dialog.clone(),
        facts: match original {
            Some(view) => Some(MessageFacts::read(view).await),
            None => None,
        },
        refused,
    };
    let edge = Arc::clone(edge);
    let tasks = edge.sessions.clone();
    tasks.spawn(async move {
        for advice in &advice {
            send(&edge, &about, advice).await;
        }
        drop(permit);
    });
}

/// Sends what the policy lets through, to all addressees at once, so that they share the spool's commits.
async fn send(edge: &Edge, about: &About, advice: &Advice) {
    let circumstances = circumstances(edge, about);
    for notification in advice.notifications.iter().take(NOTIFICATIONS_MAX) {
        let to = notification.to();
        let each = policy::addressees(to, &advice.recipients, &circumstances);
        let each = each.into_iter().map(async |addressee| {
            let result = match addressee {
                Ok(address) => deliver(edge, about, advice, notification, &address).await,
                Err(refusal) => refusal.into(),
            };
            count(edge, result, advice);
        });
        join_all(each).await;
    }
}

fn circumstances<'a>(edge: &'a Edge, about: &'a About) -> Circumstances<'a> {
    let dialog = &about.dialog;
    Circumstances {
        sender: dialog.mail_from.as_ref().map(|path| path.address.as_str()),
        authenticated: dialog.auth.is_some(),
        relayed: edge.may_relay(dialog.client.ip(), false),
        refused: about.refused,
        facts: about.facts.as_ref(),
        domains: &edge.config.domains,
        administrator: edge.config.notifications.administrator.as_deref(),
    }
}

async fn deliver(
    edge: &Edge,
    about: &About,
    advice: &Advice,
    notification: &smtp::Notification,
    address: &str,
) -> NotificationLabel {
    let limits = &edge.notifier.limits;
    if let Err(refusal) = limits.take(address, &advice.rule, Instant::now()) {
        return refusal.into();
    }
    let session_id = &about.dialog.id;
    let (envelope, octets) = compose(edge, about, notification, address);
    match edge.spool.store_octets(envelope, octets).await {
        Ok(queued) => {
            tracing::info!(session_id, queue_id = %queued.id, rule = advice.rule, service = advice.service, "notification queued");
            edge.relay.enqueue(queued);
            NotificationLabel::Stored
        }
        Err(error) => {
            tracing::warn!(session_id, rule = advice.rule, %error, "a notification cannot be stored");
            NotificationLabel::Failed
        }
    }
}

fn compose(
    edge: &Edge,
    about: &About,
    notification: &smtp::Notification,
    address: &str,
) -> (Envelope, Bytes) {
    let now_ms = edge.host.clock.epoch_ms();
    let session_id = &about.dialog.id;
    let composed = Notice {
        author: Author {
            hostname: &edge.config.hostname,
            system: &edge.config.system,
            trace: session_id,
        },
        to: address,
        id: &format!("N{}", edge.next_session_id()),
        now: now_ms / 1000,
        subject: &notification.subject,
        text: &notification.text,
        about: about
            .facts
            .as_ref()
            .and_then(|facts| facts.message_id.as_deref()),
    }
    .compose();
    let envelope = Envelope {
        smtputf8: composed.smtputf8,
        recipients: vec![Recipient {
            address: address.to_owned(),
            params: vec!["NOTIFY=NEVER".to_owned()],
            ..Recipient::default()
        }],
        received_at_ms: now_ms,
        session_id: session_id.clone(),
        ..Envelope::default()
    };
    (envelope, composed.octets.into())
}

fn count(edge: &Edge, result: NotificationLabel, advice: &Advice) {
    edge.metrics
        .notifications
        .get_or_create(&ByNotification { result })
        .inc();
    if result == NotificationLabel::Stored {
        return;
    }
    if let Some(suppressed) = edge.notifier.limits.note(result, Instant::now()) {
        tracing::warn!(
            ?result,
            suppressed,
            rule = advice.rule,
            service = advice.service,
            "notifications are not sent"
        );
    }
}

impl From<Refusal> for NotificationLabel {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Automatic => Self::Automatic,
            Refusal::Daemon => Self::Daemon,
            Refusal::Outsider => Self::Outsider,
            Refusal::Refused => Self::Refused,
            Refusal::NoAddress => Self::NoAddress,
            Refusal::RecipientLimit => Self::RecipientLimit,
            Refusal::RuleLimit => Self::RuleLimit,
        }
    }
}
