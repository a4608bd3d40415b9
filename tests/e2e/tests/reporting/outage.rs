//! The database stopped, too slow, and the service itself gone: mail goes on as if nothing was, and the counts say what is missing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{Listener, ServerConfig, serve};
use opes_e2e::eventually;
use opes_e2e::postgres::Postgres;
use opes_reporting::{Metrics, Report, Reporting};
use opes_telemetry::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::setup::{Setup, report_of};

/// What half of the messages may take at most with a database that does not answer. Without one it takes some milliseconds; waiting for
/// the database would take seconds, for each of them.
const MESSAGE_MAX: Duration = Duration::from_secs(2);

/// Of what is counted: an answer and a delivery.
const EVENTS_PER_MESSAGE: u64 = 2;

fn config(postgres: &Postgres, queue_max: usize) -> Value {
    json!({
        "database": { "postgres": { "url": postgres.url() } },
        "addresses": "domains",
        "flushMs": 20,
        "queueMax": queue_max,
        "batchMax": 10,
    })
}

async fn send(setup: &Setup, messages: usize) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..messages {
        let started = Instant::now();
        let said = setup.send("fine", "now@example.com").await?;
        ensure!(said.starts_with("250"), "{said}");
        took.push(started.elapsed());
    }
    // A busy machine makes some of them wait.
    took.sort_unstable();
    let median = took.get(messages / 2).context("no message")?;
    ensure!(messages < 5 || *median < MESSAGE_MAX, "{took:?}");
    Ok(())
}

fn events(report: &Report) -> u64 {
    let messages: u64 = report.volume.iter().map(|row| row.messages).sum();
    let attempts: u64 = report.attempts.iter().map(|row| row.attempts).sum();
    messages + attempts
}

fn lost(report: &Report) -> u64 {
    report.losses.iter().map(|row| row.events).sum()
}

/// The figure of a metric.
fn figure(registry: &Registry, line: &str) -> Result<u64> {
    let text = registry.encode()?;
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    Ok(found.context("no such line")?.trim().parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_loses_nothing() -> Result<()> {
    let mut postgres = Postgres::start().await?;
    let config = config(&postgres, 10_000);
    let setup = Setup::start(Reporting::from_config(&config)?).await?;
    send(&setup, 5).await?;
    report_of(&config, |report| events(report) == 10).await;
    postgres.stop();
    send(&setup, 20).await?;
    eventually("delivered", || setup.hop.arrivals().len() == 25).await;
    postgres.resume().await?;
    let report = report_of(&config, |report| events(report) == 50).await;
    ensure!(lost(&report) == 0, "{:?}", report.losses);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_outage_costs_events_that_are_counted() -> Result<()> {
    const MESSAGES: usize = 60;
    let mut postgres = Postgres::start().await?;
    let config = config(&postgres, 15);
    let registry = Registry::new();
    let reporting = Reporting::with_metrics(&config, registry.with(Metrics::register))?;
    let setup = Setup::start(reporting).await?;
    send(&setup, 1).await?;
    report_of(&config, |report| events(report) == 2).await;
    postgres.stop();
    send(&setup, MESSAGES).await?;
    eventually("delivered", || setup.hop.arrivals().len() == MESSAGES + 1).await;
    let told = (MESSAGES as u64 + 1) * EVENTS_PER_MESSAGE;
    let has_all =
        || figure(&registry, "opes_reporting_events_total").is_ok_and(|figure| figure == told);
    eventually("all events were told", has_all).await;
    let dropped = || figure(&registry, "opes_reporting_dropped_total{reason=\"Full\"}");
    // One batch in the writer's hands, one queue full.
    ensure!(
        (told - 2 - 25..told - 2 - 14).contains(&dropped()?),
        "{} of {told}",
        dropped()?
    );
    postgres.resume().await?;
    let report = report_of(&config, |report| events(report) + lost(report) >= told).await;
    // Only now: an event is counted before it is dropped.
    let dropped = dropped()?;
    ensure!(
        lost(&report) == dropped && events(&report) == told - dropped,
        "{report:?}"
    );
    println!(
        "{told} events, {dropped} dropped and counted, {} written",
        events(&report)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_does_not_delay_mail() -> Result<()> {
    let postgres = Postgres::start().await?;
    let config = config(&postgres, 10_000);
    let setup = Setup::start(Reporting::from_config(&config)?).await?;
    send(&setup, 1).await?;
    report_of(&config, |report| events(report) == 2).await;
    let mut other = postgres
        .psql("BEGIN; LOCK TABLE report_events, report_attempts IN SHARE ROW EXCLUSIVE MODE;")?;
    let started = Instant::now();
    send(&setup, 20).await?;
    let took = started.elapsed();
    eventually("delivered", || setup.hop.arrivals().len() == 21).await;
    let locked = crate::setup::read(&config).await;
    ensure!(events(&locked) == 2, "the lock did not hold: {locked:?}");
    println!("20 messages in {took:?} while no row could be written");
    other.run("COMMIT;")?;
    let report = report_of(&config, |report| events(report) == 42).await;
    ensure!(lost(&report) == 0, "{:?}", report.losses);
    Ok(())
}

/// The service itself: told to go in the middle it writes what it has; mail goes on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_writes_first_and_mail_goes_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Nothing would be written for a minute.
    let config =
        json!({ "database": { "sqlite": folder.path().join("r.sqlite") }, "flushMs": 60_000 });
    let listener = Listener::bind("127.0.0.1:0").await?;
    let target = format!("http://{}", listener.address());
    let (stop, registry) = (CancellationToken::new(), Registry::new());
    let reporting = Reporting::with_metrics(&config, registry.with(Metrics::register))?;
    let server = ServerConfig::default();
    let serving = tokio::spawn(serve(Arc::new(reporting), listener, server, stop.clone()));
    let setup = Setup::at(&target, 1).await?;
    send(&setup, 10).await?;
    let has_all =
        || figure(&registry, "opes_reporting_events_total").is_ok_and(|figure| figure == 20);
    eventually("all events were told", has_all).await;
    stop.cancel();
    serving.await??;
    let report = report_of(&config, |report| events(report) == 20).await;
    ensure!(lost(&report) == 0, "{:?}", report.losses);
    send(&setup, 5).await?;
    eventually("delivered", || setup.hop.arrivals().len() == 15).await;
    Ok(())
}
