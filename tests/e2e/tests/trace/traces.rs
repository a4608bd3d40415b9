use anyhow::{Context as _, Result, ensure};
use opes_e2e::smtp::Dialog;
use opes_e2e::trace::{fields, without_trace};
use opes_edge::config::{EdgeConfig, ListenerProtocol};

use crate::setup::{BYPASSABLE, CLAIM, MESSAGE, SYSTEM, only, start, trace_id};

#[tokio::test(flavor = "multi_thread")]
async fn c_59_every_message_names_system_processor_and_services() -> Result<()> {
    let rules = [
        ("entry", "analyze", "rcptTo", "nothing", ""),
        ("watch", "observe", "content", "nothing", ""),
        ("mark", "adapt", "content", "look", BYPASSABLE),
    ];
    let setup = start(&rules, |_| Ok(())).await?;
    let arrival = setup.send("", MESSAGE).await?;
    let id = trace_id(&arrival)?;
    ensure!(
        only(&arrival, "Received")?.contains(&format!("id {id};"))
            || only(&arrival, "Received")?.contains(&format!("id {id} ")),
        "Received has another id"
    );
    ensure!(
        setup
            .edge
            .reports()
            .last()
            .is_some_and(|report| report.session == id),
        "the report has another id"
    );
    let via = only(&arrival, "OPES-Via")?;
    let expected = format!(
        "{SYSTEM}/processor/mail.example.com; id={id}, {SYSTEM}/service/default/entry, {SYSTEM}/service/default/watch, https://translate.example.net/"
    );
    ensure!(via == expected, "{via}");
    // The service saw our field as the first line.
    ensure!(
        only(&arrival, "X-Seen")? == "traced",
        "a service saw a message without trace"
    );
    ensure!(arrival.content.ends_with(MESSAGE), "octets differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_there_is_no_trace() -> Result<()> {
    let setup = start(&[], |_| Ok(())).await?;
    let arrival = setup.send("", MESSAGE).await?;
    ensure!(
        fields(&arrival.content, "OPES-System").is_empty()
            && fields(&arrival.content, "OPES-Via").is_empty(),
        "trace without rules"
    );
    ensure!(without_trace(&arrival.content) == MESSAGE, "octets differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_60_no_service_takes_our_trace_out_or_writes_in_our_name() -> Result<()> {
    for does in ["delete", "forge"] {
        let setup = start(&[("bad", "adapt", "content", does, "")], |_| Ok(())).await?;
        let arrival = setup.send("", MESSAGE).await?;
        let id = trace_id(&arrival)?;
        let via = only(&arrival, "OPES-Via")?;
        ensure!(
            via == format!(
                "{SYSTEM}/processor/mail.example.com; id={id}, {SYSTEM}/service/default/bad"
            ),
            "{does}: {via}"
        );
        ensure!(
            without_trace(&arrival.content) == MESSAGE,
            "{does}: octets differ"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_name_is_believed_of_our_own_only_and_others_keep_theirs() -> Result<()> {
    let other = "OPES-System: https://mail.example.net/opes; id=1\r\nOPES-Via: https://mail.example.net/x\r\n";
    let theirs = [CLAIM.as_bytes(), other.as_bytes(), MESSAGE].concat();
    let rules = [("look", "adapt", "content", "look", "")];
    let setup = start(&rules, |_| Ok(())).await?;
    let arrival = setup.send("", &theirs).await?;
    ensure!(
        arrival
            .content
            .ends_with(&[other.as_bytes(), MESSAGE].concat()),
        "fields of others were touched"
    );
    let systems = fields(&arrival.content, "OPES-System");
    ensure!(
        systems.len() == 2 && !systems[0].contains("forged"),
        "{systems:?}"
    );
    let relay = |config: &mut EdgeConfig| {
        config.relay_networks = vec!["127.0.0.0/8".parse()?];
        Ok(())
    };
    let setup = start(&rules, relay).await?;
    let arrival = setup.send("", &theirs).await?;
    ensure!(
        arrival.content.ends_with(&theirs),
        "a peer's fields were touched"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_61_refusals_say_who_refused() -> Result<()> {
    let setup = start(&[("guard", "analyze", "rcptTo", "refuse", "")], |_| Ok(())).await?;
    let mut dialog = Dialog::open(setup.address()?, false).await?;
    dialog.command("MAIL FROM:<a@example.org>").await?;
    let reply = dialog.command("RCPT TO:<b@example.com>").await?;
    let session = setup
        .edge
        .reports()
        .last()
        .context("no report")?
        .session
        .clone();
    ensure!(
        reply == format!("550 5.7.1 Not from there ({SYSTEM}; id={session})"),
        "{reply}"
    );
    // What no rule refuses keeps its text.
    let reply = dialog.command("RCPT TO:<b@example.net>").await?;
    ensure!(
        reply.starts_with("550") && !reply.contains(SYSTEM),
        "{reply}"
    );
    for (protocol, lmtp) in [
        (ListenerProtocol::Smtp, false),
        (ListenerProtocol::Lmtp, true),
    ] {
        let rules = [("guard", "analyze", "content", "refuse", "")];
        let setup = start(&rules, |config| {
            config.listeners[0].protocol = protocol;
            Ok(())
        })
        .await?;
        let mut dialog = Dialog::open(setup.address()?, lmtp).await?;
        let to = ["b@example.com", "c@example.com"];
        let mut replies = vec![dialog.message("a@example.org", &to, MESSAGE).await?];
        if lmtp {
            replies.push(dialog.reply().await?);
        }
        for reply in replies {
            ensure!(
                reply.starts_with(&format!("550 5.7.1 Not this ({SYSTEM}; id=")),
                "{reply}"
            );
        }
    }
    Ok(())
}
