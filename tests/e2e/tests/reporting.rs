//! Reporting behind a real edge (RFC 4496 §4.3): what is counted, on SQLite and PostgreSQL, and what becomes of mail and counts while the
//! database is away.

#[path = "reporting/outage.rs"]
mod outage;
#[path = "reporting/setup.rs"]
mod setup;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::behind::ANN;
use opes_e2e::postgres::Postgres;
use opes_e2e::{eventually, opes_program};
use opes_reporting::{Report, Reporting};
use serde_json::{Value, json};
use setup::{Setup, read, report_of};

/// Messages and one refused command, and what became of each.
async fn send_all(setup: &Setup) -> Result<()> {
    for (subject, to, reply) in [
        ("fine", "now@example.com", "250"),
        ("fine", "now@example.com", "250"),
        ("fine", "now@example.com", "250"),
        ("refuse", "now@example.com", "550"),
        ("refuse", "now@example.com", "550"),
        ("later", "now@example.com", "451"),
        ("fine", "busy@example.com", "250"),
        ("fine", "gone@example.com", "250"),
    ] {
        let said = setup.send(subject, to).await?;
        ensure!(said.starts_with(reply), "{subject} {to}: {said}");
    }
    let mut dialog = setup.dialog().await?;
    dialog.command(&format!("MAIL FROM:<{ANN}>")).await?;
    let said = dialog.command("RCPT TO:<blocked@example.com>").await?;
    ensure!(said.starts_with("550"), "{said}");
    Ok(())
}

/// Deliveries: three fine messages and the report about the one that was given up; one put off; one given up.
const ATTEMPTS: u64 = 6;

fn attempts(report: &Report) -> u64 {
    report.attempts.iter().map(|row| row.attempts).sum()
}

/// Of one message: its answer and its delivery are told apart from each other, in either order.
fn is_whole(report: &Report) -> bool {
    attempts(report) == 1 && !report.volume.is_empty()
}

fn check(report: &Report) -> Result<()> {
    let [volume] = report.volume.as_slice() else {
        anyhow::bail!("{:?}", report.volume)
    };
    ensure!(
        (volume.direction.as_str(), volume.messages, volume.accepted) == ("inbound", 8, 5),
        "{volume:?}"
    );
    ensure!(
        (volume.recipients, volume.refused_commands) == (8, 1),
        "{volume:?}"
    );
    ensure!(volume.octets == setup::octets_sent(), "{volume:?}");
    let fates: Vec<_> = report
        .fates
        .iter()
        .map(|row| {
            (
                row.fate.as_str(),
                row.at.as_str(),
                row.events,
                row.recipients,
            )
        })
        .collect();
    let expected = [
        ("queued", "content", 5, 5),
        ("rejected", "content", 2, 2),
        ("rejected", "rcptTo", 1, 1),
        ("tempfailed", "content", 1, 1),
    ];
    ensure!(fates == expected, "{fates:?}");
    let attempts: Vec<_> = report
        .attempts
        .iter()
        .map(|row| (row.outcome.as_str(), row.attempts))
        .collect();
    ensure!(
        attempts == [("delivered", 4), ("bounced", 1), ("deferred", 1)],
        "{attempts:?}"
    );
    check_judge(report)?;
    let rules = report.rules.as_deref().unwrap_or_default();
    let rules: Vec<_> = rules
        .iter()
        .map(|row| (row.rule.as_str(), row.runs))
        .collect();
    ensure!(
        rules == [("default/judge", 8), ("default/nobody-is-blocked", 1)],
        "{rules:?}"
    );
    let domains = report.domains.as_deref().unwrap_or_default();
    let domains: Vec<_> = domains
        .iter()
        .map(|row| {
            (
                row.domain.as_str(),
                row.messages,
                row.delivered,
                row.deferred,
                row.bounced,
            )
        })
        .collect();
    // The report about the bounce went to example.org, which no client sent to.
    ensure!(domains == [("example.com", 8, 3, 1, 1)], "{domains:?}");
    ensure!(report.losses.is_empty(), "{:?}", report.losses);
    Ok(())
}

fn check_judge(report: &Report) -> Result<()> {
    let services = report.services.as_deref().unwrap_or_default();
    let [judge] = services else {
        anyhow::bail!("{services:?}")
    };
    let results = [("accept", 5), ("reject", 2), ("tempfail", 1)]
        .map(|(word, count)| (word.to_owned(), count));
    ensure!(
        judge.service == "default/judge" && judge.calls == 8,
        "{judge:?}"
    );
    ensure!(judge.results == results, "{judge:?}");
    let latency = judge.latency_us;
    ensure!(
        latency.p50 > Some(0) && latency.p50 <= latency.p90 && latency.p90 <= latency.p99,
        "{latency:?}"
    );
    Ok(())
}

async fn counts_are_right(database: Value, place: &str) -> Result<()> {
    let config = json!({ "database": database, "addresses": "domains", "flushMs": 20 });
    let setup = Setup::start(Reporting::from_config(&config)?).await?;
    send_all(&setup).await?;
    let mut report = read(&config).await;
    let started = std::time::Instant::now();
    // Each is told on its own, the refused command too.
    while attempts(&report) < ATTEMPTS
        || report.volume.iter().map(|row| row.messages).sum::<u64>() < 8
        || report.fates.iter().all(|row| row.at != "rcptTo")
    {
        ensure!(started.elapsed() < opes_e2e::DEADLINE, "{report:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        report = read(&config).await;
    }
    check(&report)?;
    let table = opes_report(&["--database", place, "--since", "1h"])?;
    for line in [
        "inbound    8         5",
        "queued      content  5       5",
        "rejected    content  2       2",
        "tempfailed  content  1       1",
        "rejected    rcptTo   1       1",
        "delivered  4 ",
        "deferred   1 ",
        "bounced    1 ",
        "5 accept, 2 reject, 1 tempfail",
    ] {
        ensure!(table.contains(line), "no `{line}` in\n{table}");
    }
    let by_domain = opes_report(&["--database", place, "--since", "1h", "--by", "domain"])?;
    ensure!(
        by_domain.contains("example.com  8         8           3          1         1"),
        "{by_domain}"
    );
    let by_hour = opes_report(&["--database", place, "--by", "hour", "--json"])?;
    let by_hour: Value = serde_json::from_str(&by_hour)?;
    let hours = by_hour["hours"].as_array().context("no hours")?;
    let messages: u64 = hours
        .iter()
        .filter_map(|hour| hour["messages"].as_u64())
        .sum();
    ensure!(messages == 8, "{by_hour}");
    Ok(())
}

fn opes_report(arguments: &[&str]) -> Result<String> {
    let output = Command::new(opes_program())
        .arg("report")
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_right_on_sqlite() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("reporting.sqlite");
    counts_are_right(json!({ "sqlite": file }), &file.display().to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_right_on_postgres() -> Result<()> {
    let postgres = Postgres::start().await?;
    let url = postgres.url();
    counts_are_right(json!({ "postgres": { "url": url } }), &url).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_a_hash_unless_it_is_to_be_more_or_less() -> Result<()> {
    for (mode, is_there) in [("hashed", false), ("full", true), ("domains", false)] {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("reporting.sqlite");
        let config = json!({ "database": { "sqlite": file }, "addresses": mode, "flushMs": 20 });
        let setup = Setup::start(Reporting::from_config(&config)?).await?;
        setup.send("fine", "now@example.com").await?;
        report_of(&config, is_whole).await;
        let octets: Vec<u8> = folder
            .path()
            .read_dir()?
            .flatten()
            .filter_map(|file| std::fs::read(file.path()).ok())
            .flatten()
            .collect();
        let has = |text: &[u8]| octets.windows(text.len()).any(|window| window == text);
        ensure!(has(b"example.com"), "{mode}: not even the domain");
        ensure!(has(b"now@example.com") == is_there, "{mode}");
        ensure!(!has(b"Subject") && !has(b"body of"), "{mode}: content");
    }
    Ok(())
}

#[test]
fn what_cannot_be_read_is_said_with_its_remedy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("missing.sqlite");
    let missing = missing.display().to_string();
    for (arguments, said) in [
        (vec!["--database", missing.as_str()], "--database FILE"),
        (
            vec!["--database", missing.as_str(), "--since", "yesterday"],
            "--since: `yesterday` is no time",
        ),
        (
            vec![
                "--database",
                missing.as_str(),
                "--since",
                "1h",
                "--until",
                "2h",
            ],
            "not before the second",
        ),
        (
            vec!["--database", "postgres://nobody@127.0.0.1:1/none"],
            "is the database up",
        ),
        (vec![], "which database?"),
        (vec!["--config", missing.as_str()], "missing.sqlite"),
        (
            vec!["--by", "colour"],
            "possible values: rule, service, domain, hour",
        ),
    ] {
        let output = Command::new(opes_program())
            .arg("report")
            .args(&arguments)
            .current_dir(folder.path())
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{arguments:?}");
        ensure!(error.contains(said), "{arguments:?}: {error}");
    }
    Ok(())
}

#[test]
fn opes_dev_keeps_its_reports_in_its_folder() -> Result<()> {
    let state = tempfile::tempdir()?;
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/rules");
    let free = "127.0.0.1:0";
    let output = Command::new(opes_program())
        .args(["dev", "--demo", "--exit", "-f", rules, "--smtp", free])
        .args(["--submission", free, "--lmtp", free, "--admin", free])
        .arg("--state")
        .arg(state.path())
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let file = state.path().join("reporting.sqlite");
    let table = opes_report(&["--database", &file.display().to_string()])?;
    for word in [
        "inbound",
        "queued",
        "delivered",
        "SERVICE",
        "RULE",
        "default/mail-access",
    ] {
        ensure!(table.contains(word), "no {word} in\n{table}");
    }
    println!("{table}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_comes_twice_counts_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = json!({ "database": { "sqlite": folder.path().join("r.sqlite") }, "flushMs": 20 });
    // Two rules call it with what is one event each.
    let setup = Setup::with(Reporting::from_config(&config)?, 2).await?;
    setup.send("fine", "now@example.com").await?;
    eventually("delivered", || setup.hop.arrivals().len() == 1).await;
    let report = report_of(&config, is_whole).await;
    ensure!(report.volume[0].messages == 1, "{report:?}");
    Ok(())
}
