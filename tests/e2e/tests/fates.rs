//! Observers at `delivered`, `deferred` and `bounced`: told how each attempt for each recipient ended, and without a say in it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{Answer, Description, Message, Service};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::eventually;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_proto::smtp::{Context, ContextField, Point};

type Told = Arc<Mutex<Vec<(Point, Context)>>>;

/// Keeps what it is told; refuses and fails in vain.
struct Watcher(Told);

impl Service for Watcher {
    fn describe(&self) -> Description {
        Description::new("watcher").message_context([
            ContextField::Client,
            ContextField::MailFrom,
            ContextField::Recipients,
            ContextField::Delivery,
        ])
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let told = (message.point(), message.context().clone());
        self.0.lock().expect("no test panics there").push(told);
        ensure!(message.chunk().await?.is_none(), "there is no content");
        ensure!(
            message.point() != Point::Deferred,
            "a failure counts for nothing"
        );
        Ok(Answer::reject(550, "5.7.1", "counts for nothing"))
    }
}

fn rules(target: &str) -> String {
    format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: watcher }}\nspec: {{ class: observe, endpoint: '{target}', limits: {{ connectTimeout: 20s }} }}\n---\n\
         apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: watch }}\nspec:\n  at: [delivered, deferred, bounced]\n  \
         match: {{ senderDomains: [example.org], clientNetworks: [127.0.0.0/8] }}\n  callout: {{ serviceRef: {{ name: watcher }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_for_each_recipient_is_told_and_nothing_that_is_said_counts() -> Result<()> {
    let told = Told::default();
    let target = service(Watcher(Arc::clone(&told))).await?;
    let folder = tempfile::tempdir()?;
    let replies = [
        ("later@example.com", "450 4.2.0 mailbox busy"),
        ("never@example.com", "550 5.1.1 no such mailbox"),
    ];
    let hop = Hop::start(Manners {
        recipients: replies
            .map(|(to, reply)| (to.to_owned(), reply.to_owned()))
            .into(),
        ..Manners::default()
    })
    .await?;
    let config = EdgeConfig {
        listeners: vec![ListenerConfig::new(
            "mx",
            "127.0.0.1:0".parse()?,
            ListenerProtocol::Smtp,
        )],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
    };
    let edge = Embedded::start(config, &rules(&target)).await?;
    let mut dialog = Dialog::open(edge.address("mx")?, false).await?;
    let to = ["now@example.com", "later@example.com", "never@example.com"];
    let said = dialog
        .message("ann@example.org", &to, b"Subject: a\r\n\r\nbody\r\n")
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    let told = || told.lock().expect("no test panics there").clone();
    eventually("three fates", || told().len() >= 3).await;

    for (point, recipient, code, place) in [
        (
            Point::Delivered,
            "now@example.com",
            250,
            hop.address.to_string(),
        ),
        (Point::Deferred, "later@example.com", 450, String::new()),
        (Point::Bounced, "never@example.com", 550, String::new()),
    ] {
        let found = told().into_iter().find(|(at, _)| *at == point);
        let (_, context) = found.with_context(|| format!("nobody was told of {point:?}"))?;
        let delivery = context.delivery.context("no delivery")?;
        let reply = delivery.reply.context("no reply")?;
        ensure!(
            reply.code == code && !reply.lines.is_empty(),
            "{point:?}: {reply:?}"
        );
        ensure!(
            delivery.place == place && !delivery.queue_id.is_empty(),
            "{point:?}"
        );
        ensure!(
            delivery.next_attempt_ms.is_some() == (point == Point::Deferred),
            "{point:?}"
        );
        let to: Vec<_> = context
            .recipients
            .iter()
            .map(|to| to.address.as_str())
            .collect();
        ensure!(to == [recipient], "{point:?}: {to:?}");
        ensure!(
            context
                .mail_from
                .is_some_and(|from| from.address == "ann@example.org"),
            "{point:?}"
        );
    }
    // Refused by the observer all the same: delivered once, and the report to the sender is on its way too.
    eventually("delivered, and reported", || hop.complete() >= 1).await;
    Ok(())
}

/// Takes its time.
struct Slow(Arc<AtomicUsize>);

impl Service for Slow {
    fn describe(&self) -> Description {
        Description::new("slow")
    }

    async fn message(&self, _message: &mut Message) -> Result<Answer> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Answer::accept())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_those_who_are_told_of_the_last_delivery() -> Result<()> {
    let told = Arc::<AtomicUsize>::default();
    let target = service(Slow(Arc::clone(&told))).await?;
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(Manners::default()).await?;
    let listener = ListenerConfig::new("mx", "127.0.0.1:0".parse()?, ListenerProtocol::Smtp);
    let config = EdgeConfig {
        listeners: vec![listener],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
    };
    let edge = Embedded::start(config, &rules(&target)).await?;
    let mut dialog = Dialog::open(edge.address("mx")?, false).await?;
    let said = dialog
        .message(
            "ann@example.org",
            &["bob@example.com"],
            b"Subject: a\r\n\r\nbody\r\n",
        )
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    eventually("delivered", || hop.arrivals().len() == 1).await;
    edge.drain().await;
    let told = told.load(Ordering::Relaxed);
    ensure!(told == 1, "{told} were told when the edge had ended");
    Ok(())
}
