//! The points `delivered`, `deferred` and `bounced`: observers are told how each attempt for each recipient ended.
//!
//! Nothing waits for them and nothing they say counts: a delivery is never slower or different because somebody watches. An edge that is
//! killed, or has too many observers running, has told fewer; what must not be missed is in the log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use opes_host::Random;
use opes_proto::smtp;
use opes_relay::{DeliveryEvent, DeliveryOutcome, OnEvent};
use opes_rules::Point;
use opes_smtp::reply::Reply;
use opes_spool::Envelope;

use crate::callout::{Deadline, Live};
use crate::check::point_number;
use crate::dialog::{ContentFacts, Dialog, Path};
use crate::engine::{Annotations, Matter, Recipient};
use crate::metrics::Metrics;
use crate::routing::Routing;

/// What is told to whom.
#[derive(Clone)]
pub(crate) struct Fates {
    routing: Arc<ArcSwap<Routing>>,
    metrics: Arc<Metrics>,
    random: Random,
}

impl Fates {
    pub(crate) fn new(
        routing: &Arc<ArcSwap<Routing>>,
        metrics: &Arc<Metrics>,
        random: &Random,
    ) -> Self {
        Self {
            routing: Arc::clone(routing),
            metrics: Arc::clone(metrics),
            random: random.clone(),
        }
    }

    /// For the relay: `next` is told too.
    pub(crate) fn and_then(self, next: Option<OnEvent>) -> OnEvent {
        Arc::new(move |event| {
            self.tell(event);
            if let Some(next) = &next {
                next(event);
            }
        })
    }

    /// Starts the observers of the rules that match.
    fn tell(&self, event: &DeliveryEvent) {
        let point = point_of(&event.outcome);
        if !self.routing.load().table.has_rules(point) {
            return;
        }
        let routing = self.routing.load_full();
        let dialog = dialog(event);
        let plan = dialog.with_facts(point, ContentFacts::default(), |facts| {
            routing.table.plan(facts)
        });
        let context = smtp::Context {
            delivery: Some(delivery(event)),
            event_id: event_id(&self.random),
            ..dialog.context()
        };
        let matter = Matter {
            point: point_number(point),
            context: Arc::new(context),
        };
        let recipients = dialog.recipients.into_iter().map(|path| Recipient {
            address: path.address,
            parameters: path.parameters,
            next_hop: None,
            removed: false,
            added: false,
        });
        let run = Live::run_of(routing, &self.metrics, &Deadline::default());
        run.watch(
            &plan,
            &matter,
            recipients.collect(),
            &Annotations::default(),
        );
    }
}

fn point_of(outcome: &DeliveryOutcome) -> Point {
    match outcome {
        DeliveryOutcome::Delivered { .. } => Point::Delivered,
        DeliveryOutcome::Deferred { .. } => Point::Deferred,
        DeliveryOutcome::Failed { .. } => Point::Bounced,
    }
}

/// What the queue has kept of it.
fn dialog(event: &DeliveryEvent) -> Dialog {
    let Envelope {
        reverse_path,
        mail_params,
        recipients,
        client,
        helo,
        auth,
        session_id,
        ..
    } = event.envelope.as_ref();
    let recipient = recipients
        .iter()
        .find(|recipient| recipient.address == event.recipient);
    let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Dialog {
        id: session_id.clone(),
        listener: "".into(),
        client: SocketAddr::new(client.parse().unwrap_or(unknown), 0),
        helo: Some(helo.clone()).filter(|helo| !helo.is_empty()),
        tls: None,
        auth: auth.clone().map(|identity| smtp::Auth {
            mechanism: String::new(),
            identity,
        }),
        mail_from: Some(Path {
            address: reverse_path.clone(),
            parameters: mail_params.clone(),
        }),
        recipients: vec![Path {
            address: event.recipient.clone(),
            parameters: recipient.map_or_else(Vec::new, |recipient| recipient.params.clone()),
        }],
        annotations: Annotations::default(),
        bypass: None,
    }
}

fn delivery(event: &DeliveryEvent) -> smtp::Delivery {
    let (place, reply, detail, next) = match &event.outcome {
        DeliveryOutcome::Delivered { place, reply } => (Some(place), reply, None, None),
        DeliveryOutcome::Deferred {
            reply,
            detail,
            next_attempt,
        } => (None, reply, detail.as_ref(), *next_attempt),
        DeliveryOutcome::Failed { reply, detail } => (None, reply, detail.as_ref(), None),
    };
    smtp::Delivery {
        queue_id: event.queue_id.map(|id| id.to_string()).unwrap_or_default(),
        place: place.cloned().unwrap_or_default(),
        reply: Some(to_proto(reply)),
        detail: detail.cloned().unwrap_or_default(),
        elapsed_ms: milliseconds(event.elapsed),
        next_attempt_ms: next.map(milliseconds),
    }
}

/// Names what observers are told of, once for all edges: 96 random bits.
pub(crate) fn event_id(random: &Random) -> String {
    format!("{:016x}{:08x}", random.next_u64(), random.below(1 << 32))
}

fn to_proto(reply: &Reply) -> smtp::Reply {
    smtp::Reply {
        code: u32::from(reply.code()),
        enhanced: reply
            .enhanced()
            .map(|code| code.to_string())
            .unwrap_or_default(),
        lines: reply.lines().map(str::to_owned).collect(),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
