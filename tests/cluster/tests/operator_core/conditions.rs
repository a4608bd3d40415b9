//! What is said of rules and services, and of what has changed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use opes_cluster::{ControlPlane, eventually};

use super::{ACCEPTS, ELSEWHERE, REJECTS, RULE, SERVICE, calls};
use crate::bed::{Bed, Edge};
use crate::edge::Answer;

/// How long it may take until something is said of a new object, on a machine that is busy with other things.
const SAID: Duration = Duration::from_secs(30);

// kubectl blocks its thread; operator and edge need another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::too_many_lines, reason = "one story, told in order")]
async fn conditions_of_rules_say_what_is_so_and_why() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    let operator = bed.start("a").await?;
    bed.service("there", ELSEWHERE).await?;
    bed.rule("good", &calls("there")).await?;
    let begun = std::time::Instant::now();
    for type_ in ["Accepted", "ResolvedRefs", "Programmed"] {
        eventually(type_, SAID, || async {
            bed.condition(RULE, "good", type_).await
        })
        .await?;
    }
    for type_ in [
        "Accepted",
        "Available",
        "Progressing",
        "ScalingActive",
        "Ready",
    ] {
        eventually(type_, SAID, || async {
            bed.condition(SERVICE, "there", type_).await
        })
        .await?;
    }
    println!("all conditions after {:.1?}", begun.elapsed());
    bed.expect(RULE, "good", "Accepted", "True", "Accepted")
        .await?;
    bed.expect(RULE, "good", "ResolvedRefs", "True", "ResolvedRefs")
        .await?;
    bed.expect(SERVICE, "there", "Ready", "True", "Ready")
        .await?;
    bed.expect(SERVICE, "there", "Available", "Unknown", "NotManaged")
        .await?;
    // Nobody runs it.
    bed.expect(RULE, "good", "Programmed", "Unknown", "NoEdges")
        .await?;

    let mut edge = bed.edge("edge-1", operator.routing).await?;
    let revision = edge.runs_other_than("").await?;
    bed.expect(RULE, "good", "Programmed", "True", "Programmed")
        .await?;

    bed.rule("orphan", &calls("missing")).await?;
    let said = bed
        .expect(RULE, "orphan", "ResolvedRefs", "False", "BackendNotFound")
        .await?;
    assert!(
        said.message.starts_with("spec.callout.serviceRef"),
        "{said:?}"
    );
    bed.expect(RULE, "orphan", "Accepted", "True", "Accepted")
        .await?;
    bed.expect(RULE, "orphan", "Programmed", "False", "StandIn")
        .await?;

    bed.rule(
        "cel",
        "{ at: [rcptTo], match: { cel: 'nonsense(rcpt)' }, action: { accept: {} } }",
    )
    .await?;
    let said = bed
        .expect(RULE, "cel", "Accepted", "False", "Invalid")
        .await?;
    assert!(
        said.message.starts_with("spec.match.cel: ") && said.message.ends_with("it does not run"),
        "{said:?}"
    );
    bed.expect(RULE, "cel", "Programmed", "False", "NotAccepted")
        .await?;

    bed.rule("first", ACCEPTS).await?;
    bed.expect(RULE, "first", "Programmed", "True", "Programmed")
        .await?;
    // Creation times have seconds; of one second the name decides, and this is the later name.
    bed.rule("second", REJECTS).await?;
    let said = bed
        .expect(RULE, "second", "Accepted", "False", "Conflicted")
        .await?;
    assert!(
        said.message.contains(&format!("{}/first", bed.namespace)),
        "{said:?}"
    );

    // An edge that says nothing, and one that says no.
    edge.runs_other_than(&revision).await?;
    edge.answer.send_replace(Answer::Hold);
    bed.rule(
        "slow",
        "{ at: [rcptTo], match: { recipientDomains: [slow.example.com] }, action: { accept: {} } }",
    )
    .await?;
    bed.expect(RULE, "slow", "Programmed", "Unknown", "Pending")
        .await?;
    let said = bed
        .expect(RULE, "slow", "Programmed", "False", "Pending")
        .await?;
    assert!(said.message.contains("edge-1"), "{said:?}");
    // What it runs is still so.
    bed.expect(RULE, "first", "Programmed", "True", "Programmed")
        .await?;
    edge.answer
        .send_replace(Answer::Refuse(format!("{}/refused", bed.namespace)));
    bed.rule("refused", "{ at: [rcptTo], match: { recipientDomains: [refused.example.com] }, action: { accept: {} } }").await?;
    let said = bed
        .expect(RULE, "refused", "Programmed", "False", "Refused")
        .await?;
    assert!(
        said.message.contains("edge-1") && said.message.contains("does not know it"),
        "{said:?}"
    );
    edge.answer.send_replace(Answer::Take);
    bed.rule(
        "wake",
        "{ at: [rcptTo], match: { recipientDomains: [wake.example.com] }, action: { accept: {} } }",
    )
    .await?;
    for name in ["slow", "refused", "wake"] {
        bed.expect(RULE, name, "Programmed", "True", "Programmed")
            .await?;
    }
    waiting_is_for_the_newest_generation(&bed, &edge).await?;
    events_of_transitions(&bed)?;
    operator.stop().await
}

/// `kubectl wait` does not come back for what was true of an older generation.
async fn waiting_is_for_the_newest_generation(bed: &Bed<'_>, edge: &Edge) -> Result<()> {
    let wait = |seconds: &str| {
        let timeout = format!("--timeout={seconds}s");
        let arguments = ["wait", "opesrule/first", "--for=condition=Programmed", "-n"];
        bed.plane
            .kubectl(&[&arguments[..], &[&bed.namespace, &timeout]].concat())
    };
    wait("120").context("it is programmed")?;
    edge.answer.send_replace(Answer::Hold);
    let changed = ACCEPTS.replace("match:", "priority: 7, match:");
    bed.rule("first", &changed).await?;
    let early = wait("3");
    assert!(early.is_err(), "no edge has acknowledged it: {early:?}");
    edge.answer.send_replace(Answer::Take);
    bed.rule("wake-again", "{ at: [rcptTo], match: { recipientDomains: [again.example.com] }, action: { accept: {} } }").await?;
    wait("120").context("acknowledged")?;
    Ok(())
}

/// Of what has turned bad, once each; none of what is new and good.
fn events_of_transitions(bed: &Bed<'_>) -> Result<()> {
    let text = bed.plane.kubectl(&[
        "get",
        "events.events.k8s.io",
        "-n",
        &bed.namespace,
        "-o",
        "json",
    ])?;
    let events: serde_json::Value = serde_json::from_str(&text)?;
    let items = events["items"].as_array().context("no items")?;
    let of = |name: &str, reason: &str| {
        items
            .iter()
            .filter(|event| event["regarding"]["name"] == name && event["reason"] == reason)
            .count()
    };
    assert_eq!(of("cel", "Invalid"), 1, "{text}");
    assert_eq!(of("second", "Conflicted"), 1, "{text}");
    assert_eq!(of("orphan", "BackendNotFound"), 1, "{text}");
    assert_eq!(of("refused", "Refused"), 1, "{text}");
    let about_good = items
        .iter()
        .filter(|event| event["regarding"]["name"] == "good")
        .count();
    assert_eq!(about_good, 0, "{text}");
    Ok(())
}

#[tokio::test]
async fn a_bad_edit_leaves_the_last_accepted_version_also_after_a_restart() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    let operator = bed.start("a").await?;
    bed.rule("r", ACCEPTS).await?;
    bed.rule("other", "{ at: [mailFrom], action: { continue: {} } }")
        .await?;
    let mut edge = bed.edge("edge-1", operator.routing).await?;
    bed.expect(RULE, "r", "Programmed", "True", "Programmed")
        .await?;
    let revision = edge.runs_other_than("").await?;
    bed.rule("s", REJECTS).await?;
    let lost = bed
        .expect(RULE, "s", "Accepted", "False", "Conflicted")
        .await?;
    bed.rule(
        "r",
        "{ at: [rcptTo], match: { cel: 'nonsense(rcpt)' }, action: { accept: {} } }",
    )
    .await?;
    let said = bed
        .expect(RULE, "r", "Accepted", "False", "Invalid")
        .await?;
    assert!(said.message.ends_with("generation 1 runs"), "{said:?}");
    bed.expect(RULE, "r", "Programmed", "False", "LastAccepted")
        .await?;
    bed.expect(RULE, "other", "Programmed", "True", "Programmed")
        .await?;
    assert_eq!(
        *edge.running.borrow(),
        revision,
        "a bad edit changes nothing"
    );
    operator.stop().await?;
    let again = bed.start("b").await?;
    let metrics = again.metrics().await?;
    assert!(
        metrics.contains(&format!("revision=\"{revision}\"")),
        "{metrics}"
    );
    bed.wait_for_leader("b").await?;
    bed.rule("later", "{ at: [mailFrom], action: { continue: {} } }")
        .await?;
    bed.expect(RULE, "later", "Accepted", "True", "Accepted")
        .await?;
    let still = bed.condition(RULE, "s", "Accepted").await?;
    assert_eq!(
        still,
        Some(lost),
        "the same rule wins, and nothing has moved"
    );
    again.stop().await
}

#[tokio::test]
async fn a_tenant_may_do_something_with_its_own_domains_only() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    let tenants = format!(
        "tenants: [{{ namespace: {}, domains: [example.com] }}]\n",
        bed.namespace
    );
    let operator = bed.start_with("a", &tenants).await?;
    bed.rule("own", ACCEPTS).await?;
    bed.rule("greedy", "{ at: [rcptTo], action: { reject: {} } }")
        .await?;
    bed.expect(RULE, "own", "Accepted", "True", "Accepted")
        .await?;
    let said = bed
        .expect(RULE, "greedy", "Accepted", "False", "NotPermitted")
        .await?;
    assert!(
        said.message.starts_with("spec.match: ") && said.message.contains("example.com"),
        "{said:?}"
    );
    bed.expect(RULE, "greedy", "Programmed", "False", "NotAccepted")
        .await?;
    operator.stop().await
}
