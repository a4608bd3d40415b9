//! Observers at `answered`, `delivered`, `deferred` and `bounced`: told what the client was answered and how each attempt for each recipient
//! ended, and without a say in it.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{Answer, Description, Message, Service};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::eventually;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_edge::config::{Acceptance, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_proto::smtp::fate::Kind;
use opes_proto::smtp::step::Result as StepResult;
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
            ContextField::Size,
            ContextField::Annotations,
            ContextField::Answer,
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
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: watcher }}\nspec: {{ class: observe, endpoint: '{target}' }}\n---\n\
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

/// Looks at the message and leaves a note.
struct Noter;

impl Service for Noter {
    fn describe(&self) -> Description {
        Description::new("noter")
    }

    async fn message(&self, _message: &mut Message) -> Result<Answer> {
        Ok(Answer::accept().annotate("noted", "yes"))
    }
}

fn answer_rules(watcher: &str, noter: &str) -> String {
    let head = "---\napiVersion: opes.dev/v1alpha1\nkind:";
    format!(
        "{head} CalloutService\nmetadata: {{ name: watcher }}\nspec: {{ class: observe, endpoint: '{watcher}' }}\n\
         {head} OpesRule\nmetadata: {{ name: watch }}\nspec:\n  at: [answered]\n  match: {{ listener: [in] }}\n  callout: {{ serviceRef: {{ name: watcher }} }}\n\
         {head} CalloutService\nmetadata: {{ name: noter }}\nspec: {{ class: analyze, endpoint: '{noter}' }}\n\
         {head} OpesRule\nmetadata: {{ name: note }}\nspec:\n  at: [content]\n  callout: {{ serviceRef: {{ name: noter }} }}\n\
         {head} OpesRule\nmetadata: {{ name: nobody }}\nspec:\n  at: [rcptTo]\n  match: {{ cel: 'rcpt == \"nobody@example.com\"' }}\n  action: {{ tempfail: {{}} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_told_with_the_fate_of_each_recipient_and_what_ran() -> Result<()> {
    let told = Told::default();
    let watcher = service(Watcher(Arc::clone(&told))).await?;
    let noter = service(Noter).await?;
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(Manners {
        lmtp: true,
        content: vec!["250 2.0.0 Ok".into(), "552 5.2.2 full".into()],
        ..Manners::default()
    })
    .await?;
    let listener = ListenerConfig::new("in", "127.0.0.1:0".parse()?, ListenerProtocol::Lmtp);
    let config = EdgeConfig {
        listeners: vec![ListenerConfig {
            delivery: Acceptance::CutThrough,
            ..listener
        }],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            lmtp: true,
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
    };
    let edge = Embedded::start(config, &answer_rules(&watcher, &noter)).await?;
    let mut dialog = Dialog::open(edge.address("in")?, true).await?;
    let content = b"Subject: a\r\n\r\nbody\r\n";
    let to = ["paul@example.com", "full@example.com"];
    let first = dialog.message("ann@example.org", &to, content).await?;
    let second = dialog.reply().await?;
    ensure!(
        first.starts_with("250") && second.starts_with("552"),
        "{first} {second}"
    );
    dialog.command("MAIL FROM:<ann@example.org>").await?;
    dialog.command("RCPT TO:<paul@example.com>").await?;
    let refused = dialog.command("RCPT TO:<nobody@example.com>").await?;
    ensure!(refused.starts_with("451"), "{refused}");

    let told = || told.lock().expect("no test panics there").clone();
    eventually("two answers", || told().len() >= 2).await;
    let contexts: Vec<Context> = told().into_iter().map(|(_, context)| context).collect();
    let of = |at: Point| {
        let is_it = |context: &&Context| {
            context
                .answer
                .as_ref()
                .is_some_and(|answer| answer.at() == at)
        };
        contexts.iter().find(is_it).context("not told")
    };
    let (message, command) = (of(Point::Content)?, of(Point::RcptTo)?);
    ensure!(!message.event_id.is_empty() && message.event_id != command.event_id);
    ensure!(
        message.size == Some(content.len() as u64),
        "{:?}",
        message.size
    );
    ensure!(
        message
            .annotations
            .get("noted")
            .is_some_and(|noted| noted == "yes")
    );
    let answer = message.answer.as_ref().context("no answer")?;
    let fates: Vec<_> = answer
        .fates
        .iter()
        .map(|fate| (fate.kind(), fate.recipients, fate.code))
        .collect();
    ensure!(
        fates == [(Kind::Relayed, 1, 250), (Kind::Refused, 1, 552)],
        "{fates:?}"
    );
    let [step] = answer.steps.as_slice() else {
        anyhow::bail!("{:?}", answer.steps)
    };
    ensure!(
        step.rule == "default/note" && step.service == "default/noter",
        "{step:?}"
    );
    ensure!(
        step.result() == StepResult::Accept && step.elapsed_us > 0 && step.failure.is_empty(),
        "{step:?}"
    );
    let to: Vec<_> = command
        .recipients
        .iter()
        .map(|to| to.address.as_str())
        .collect();
    ensure!(to == ["nobody@example.com"], "{to:?}");
    let answer = command.answer.as_ref().context("no answer")?;
    let fates: Vec<_> = answer
        .fates
        .iter()
        .map(|fate| (fate.kind(), fate.recipients, fate.code))
        .collect();
    ensure!(fates == [(Kind::Refused, 1, 451)], "{fates:?}");
    Ok(())
}
