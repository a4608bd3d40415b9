//! Notifications: short mails that callout services want somebody to read about a message (RFC 4496 §5).
//!
//! Who may get one is [`policy`], how many is [`limits`]; here they are written, stored and queued like other mail, with the null
//! reverse-path, so that nothing ever comes back. Fails quietly: a notification that cannot be sent costs the message nothing, is
//! counted by reason, and logged once in a while.

pub(crate) mod facts;
pub(crate) mod limits;
pub(crate) mod policy;

use bytes::Bytes;
use opes_dsn::{Author, Notice};
use opes_proto::smtp;
use opes_spool::{Envelope, Recipient};
use tokio::time::Instant;

use self::facts::MessageFacts;
use self::limits::Limits;
use self::policy::{Circumstances, Refusal};
use crate::config::NotificationsConfig;
use crate::dialog::Dialog;
use crate::edge::Edge;
use crate::metrics::{ByNotification, NotificationLabel};

/// Notifications of one message; what is beyond was not meant for people.
const NOTIFICATIONS_MAX: usize = 32;

/// What a service asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// `namespace/name` of the rule that ran it.
    pub(crate) rule: String,
    /// `namespace/name`.
    pub(crate) service: String,
    /// Recipients of the message that it is about.
    pub(crate) recipients: Vec<String>,
    pub(crate) notification: smtp::Notification,
}

/// The message it is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) facts: MessageFacts,
    /// Its client was answered 4xx or 5xx: it knows already, and nobody will get the message.
    pub(crate) refused: bool,
}

/// What one edge keeps of its notifications.
#[derive(Debug)]
pub(crate) struct Notifier {
    limits: Limits,
}

// === impl Notifier ===

impl Notifier {
    pub(crate) fn new(config: &NotificationsConfig) -> Self {
        Self {
            limits: Limits::new(config.per_recipient_per_hour, config.per_rule_per_hour),
        }
    }
}

/// Sends what the policy lets through. Waits for the spool; whoever must not wait spawns it.
pub(crate) async fn send(edge: &Edge, dialog: &Dialog, about: &About, wanted: Vec<Wanted>) {
    for wanted in wanted.into_iter().take(NOTIFICATIONS_MAX) {
        let circumstances = circumstances(edge, dialog, about);
        let to = wanted.notification.to();
        for addressee in policy::addressees(to, &wanted.recipients, &circumstances) {
            let result = match addressee {
                Ok(address) => deliver(edge, dialog, about, &wanted, &address).await,
                Err(refusal) => refusal.into(),
            };
            count(edge, result, &wanted);
        }
    }
}

fn circumstances<'a>(edge: &'a Edge, dialog: &'a Dialog, about: &'a About) -> Circumstances<'a> {
    let sender = dialog.mail_from.as_ref();
    Circumstances {
        sender: sender.map_or("", |path| path.address.as_str()),
        authenticated: dialog.auth.is_some(),
        relayed: edge.may_relay(dialog.client.ip(), false),
        refused: about.refused,
        facts: &about.facts,
        domains: &edge.config.domains,
        administrator: edge.config.notifications.administrator.as_deref(),
    }
}

async fn deliver(
    edge: &Edge,
    dialog: &Dialog,
    about: &About,
    wanted: &Wanted,
    address: &str,
) -> NotificationLabel {
    let limits = &edge.notifier.limits;
    if let Err(refusal) = limits.take(address, &wanted.rule, Instant::now()) {
        return refusal.into();
    }
    let (envelope, octets) = compose(edge, dialog, about, wanted, address);
    match edge.spool.store_octets(envelope, octets).await {
        Ok(queued) => {
            tracing::info!(session_id = dialog.id, queue_id = %queued.id, rule = wanted.rule, service = wanted.service, "notification queued");
            edge.relay.enqueue(queued);
            NotificationLabel::Stored
        }
        Err(error) => {
            tracing::warn!(session_id = dialog.id, rule = wanted.rule, %error, "a notification cannot be stored");
            NotificationLabel::Failed
        }
    }
}

fn compose(
    edge: &Edge,
    dialog: &Dialog,
    about: &About,
    wanted: &Wanted,
    address: &str,
) -> (Envelope, Bytes) {
    let since = edge.host.clock.since_epoch();
    let composed = Notice {
        author: Author {
            hostname: &edge.config.hostname,
            system: &edge.config.system,
            trace: &dialog.id,
        },
        to: address,
        id: &format!("N{}", edge.next_session_id()),
        now: since.as_secs(),
        subject: &wanted.notification.subject,
        text: &wanted.notification.text,
        about: about.facts.message_id.as_deref(),
    }
    .compose();
    let envelope = Envelope {
        smtputf8: composed.smtputf8,
        recipients: vec![Recipient {
            address: address.to_owned(),
            params: vec!["NOTIFY=NEVER".to_owned()],
            next_hop: None,
        }],
        received_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        session_id: dialog.id.clone(),
        ..Envelope::default()
    };
    (envelope, composed.octets.into())
}

fn count(edge: &Edge, result: NotificationLabel, wanted: &Wanted) {
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
            rule = wanted.rule,
            service = wanted.service,
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
