//! Observers at `answered`: told what became of a message for each recipient, and what ran for it.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail, ensure};
use opes_callout_server::{Answer, Description, Message, Service};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::eventually;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_edge::config::{Acceptance, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_proto::smtp::fate::Kind;
use opes_proto::smtp::step::Result as StepResult;
use opes_proto::smtp::{Context, ContextField, Point};

const CONTENT: &[u8] = b"Subject: a\r\n\r\nbody\r\n";

type Told = Arc<Mutex<Vec<Context>>>;

/// Keeps what it is told.
struct Watcher(Told);

impl Service for Watcher {
    fn describe(&self) -> Description {
        Description::new("watcher").message_context([
            ContextField::Recipients,
            ContextField::Size,
            ContextField::Annotations,
            ContextField::Answer,
        ])
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        ensure!(message.point() == Point::Answered);
        let told = message.context().clone();
        self.0.lock().expect("no test panics there").push(told);
        Ok(Answer::accept())
    }
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

fn rules(watcher: &str, noter: &str) -> String {
    let head = "---\napiVersion: opes.dev/v1alpha1\nkind:";
    format!(
        "{head} CalloutService\nmetadata: {{ name: watcher }}\nspec: {{ class: observe, endpoint: '{watcher}', limits: {{ connectTimeout: 20s }} }}\n\
         {head} OpesRule\nmetadata: {{ name: watch }}\nspec:\n  at: [answered]\n  match: {{ listener: [in] }}\n  callout: {{ serviceRef: {{ name: watcher }} }}\n\
         {head} CalloutService\nmetadata: {{ name: noter }}\nspec: {{ class: analyze, endpoint: '{noter}', limits: {{ connectTimeout: 20s }} }}\n\
         {head} OpesRule\nmetadata: {{ name: note }}\nspec:\n  at: [content]\n  callout: {{ serviceRef: {{ name: noter }} }}\n\
         {head} OpesRule\nmetadata: {{ name: nobody }}\nspec:\n  at: [rcptTo]\n  match: {{ cel: 'rcpt == \"nobody@example.com\"' }}\n  action: {{ tempfail: {{}} }}\n"
    )
}

/// A message for two, of whom one is full, and a recipient that a rule refuses.
async fn send(edge: &Embedded) -> Result<()> {
    let mut dialog = Dialog::open(edge.address("in")?, true).await?;
    let to = ["paul@example.com", "full@example.com"];
    let first = dialog.message("ann@example.org", &to, CONTENT).await?;
    let second = dialog.reply().await?;
    ensure!(
        first.starts_with("250") && second.starts_with("552"),
        "{first} {second}"
    );
    dialog.command("MAIL FROM:<ann@example.org>").await?;
    dialog.command("RCPT TO:<paul@example.com>").await?;
    let refused = dialog.command("RCPT TO:<nobody@example.com>").await?;
    ensure!(refused.starts_with("451"), "{refused}");
    Ok(())
}

fn find(told: &[Context], at: Point) -> Result<&Context> {
    let is_it = |context: &&Context| {
        context
            .answer
            .as_ref()
            .is_some_and(|answer| answer.at() == at)
    };
    told.iter().find(is_it).context("not told")
}

fn fates(context: &Context) -> Vec<(Kind, u32, u32)> {
    let fates = context.answer.iter().flat_map(|answer| &answer.fates);
    fates
        .map(|fate| (fate.kind(), fate.recipients, fate.code))
        .collect()
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
    let edge = Embedded::start(config, &rules(&watcher, &noter)).await?;
    send(&edge).await?;
    let told = || told.lock().expect("no test panics there").clone();
    eventually("two answers", || told().len() >= 2).await;
    let told = told();
    check_message(find(&told, Point::Content)?)?;
    let command = find(&told, Point::RcptTo)?;
    let to: Vec<_> = command
        .recipients
        .iter()
        .map(|to| to.address.as_str())
        .collect();
    ensure!(to == ["nobody@example.com"], "{to:?}");
    ensure!(fates(command) == [(Kind::Refused, 1, 451)], "{command:?}");
    let ids: Vec<_> = told
        .iter()
        .map(|context| context.event_id.as_str())
        .collect();
    ensure!(
        ids.len() == 2 && ids[0] != ids[1] && !ids.contains(&""),
        "{ids:?}"
    );
    Ok(())
}

fn check_message(message: &Context) -> Result<()> {
    let size = CONTENT.len() as u64;
    ensure!(message.size == Some(size), "{:?}", message.size);
    let noted = message.annotations.get("noted").map(String::as_str);
    ensure!(noted == Some("yes"), "{message:?}");
    let expected = [(Kind::Relayed, 1, 250), (Kind::Refused, 1, 552)];
    ensure!(fates(message) == expected, "{message:?}");
    let steps = message.answer.iter().flat_map(|answer| &answer.steps);
    let steps: Vec<_> = steps.collect();
    let [step] = steps.as_slice() else {
        bail!("{steps:?}")
    };
    ensure!(
        step.rule == "default/note" && step.service == "default/noter",
        "{step:?}"
    );
    ensure!(
        step.result() == StepResult::Accept && step.elapsed_us > 0 && step.failure.is_empty(),
        "{step:?}"
    );
    Ok(())
}
