//! `cargo xtask bench`: Postfix with a no-op milter against our edge with one gRPC callout, the same load, interleaved rounds, one table.
//!
//! The callout reads all content and adds a header; the milter reads all content and changes nothing. Both acknowledge durably
//! (Postfix by fsync, ours by group commit) and deliver to the same kind of sink over SMTP. CPU is that of everything that serves,
//! read from /proc: edge + service, or every Postfix process + milter; the load generator and the sink are not counted.

mod load;
mod milter;
mod postfix;
mod process;
mod sink;
mod system;

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{cache, install, step};

use self::load::{Load, Outcome};
use self::sink::Sink;
use self::system::System;

pub(crate) use self::milter::serve as serve_milter;

/// What is measured.
struct Scenario {
    name: &'static str,
    load: Load,
    rounds: usize,
}

/// Figures of one round.
#[derive(Clone, Default)]
struct Figures {
    accepted_per_s: f64,
    delivered_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_s_per_1000: f64,
    rss_mib: f64,
}

/// What a callout may cost at most, both ends together: 4 KiB, 20 in flight. Microseconds of CPU.
const CALLOUT_MICROSECONDS_MAX: &str = "40";

/// Measures callouts alone, and fails if they cost more than we promise.
fn callout_cost(target: &Path) -> Result<()> {
    let example = "run --release --locked --quiet -p opes-callout-client --example cost --";
    for figures in [
        ["200000", "4096", "20", CALLOUT_MICROSECONDS_MAX],
        ["2000", "1048576", "20", "10000"],
    ] {
        let mut arguments: Vec<&str> = example.split(' ').collect();
        arguments.extend(figures);
        step::cargo("CPU of a callout", target, &arguments)?;
    }
    Ok(())
}

/// `cargo xtask bench`.
pub(crate) fn command(quick: bool) -> Result<()> {
    install::packages()?;
    let target = cache::target_folder()?;
    step::release_build(&target)?;
    callout_cost(&target)?;
    run(&target.join("release"), quick)
}

/// Runs everything and prints the table.
fn run(binaries: &Path, quick: bool) -> Result<()> {
    let rounds = if quick { 1 } else { 5 };
    let load = |connections, messages, octets, pipelining| Load {
        connections,
        messages,
        octets,
        pipelining,
    };
    let scenarios = [
        Scenario {
            name: "4 KiB, command by command",
            load: load(20, 100, 4 << 10, false),
            rounds,
        },
        Scenario {
            name: "4 KiB, pipelining client",
            load: load(20, 100, 4 << 10, true),
            rounds,
        },
        Scenario {
            name: "1 MiB, command by command",
            load: load(20, 5, 1 << 20, false),
            rounds,
        },
    ];
    for scenario in &scenarios {
        let [mut edge, mut postfix] = [Vec::new(), Vec::new()];
        for _ in 0..scenario.rounds {
            edge.push(round(scenario, |sink| system::edge(binaries, sink))?);
            postfix.push(round(scenario, system::postfix)?);
        }
        print(scenario, &median(&edge), &median(&postfix));
    }
    Ok(())
}

fn round(scenario: &Scenario, start: impl Fn(&Sink) -> Result<System>) -> Result<Figures> {
    let sink = Sink::start()?;
    let system = start(&sink)?;
    // Connections, pools and page cache are warm before the clock starts, for both.
    load::run(
        system.address,
        &Load {
            messages: 5,
            ..scenario.load
        },
    )?;
    let warm = scenario.load.connections * 5;
    sink.wait_for(warm).context("warm-up was not delivered")?;
    let before = system.cpu_seconds()?;
    let outcome = load::run(system.address, &scenario.load)?;
    let total = scenario.load.connections * scenario.load.messages;
    let delivered = sink.wait_for(warm + total)?;
    // What serves goes on a little after the last delivery (settling, commits): it belongs to the work.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let cpu = system.cpu_seconds()? - before;
    Ok(figures(
        &outcome,
        total,
        delivered,
        cpu,
        system.peak_rss_octets(),
    ))
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn figures(
    outcome: &Outcome,
    total: usize,
    delivered: std::time::Instant,
    cpu: f64,
    rss: u64,
) -> Figures {
    let total = total as f64;
    Figures {
        accepted_per_s: total / outcome.elapsed.as_secs_f64(),
        delivered_per_s: total / delivered.duration_since(outcome.started).as_secs_f64(),
        p50_ms: outcome.percentile(0.50).as_secs_f64() * 1e3,
        p99_ms: outcome.percentile(0.99).as_secs_f64() * 1e3,
        cpu_s_per_1000: cpu / total * 1e3,
        rss_mib: rss as f64 / f64::from(1 << 20),
    }
}

/// Median of each figure by itself.
fn median(rounds: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Figures {
        accepted_per_s: of(|f| f.accepted_per_s),
        delivered_per_s: of(|f| f.delivered_per_s),
        p50_ms: of(|f| f.p50_ms),
        p99_ms: of(|f| f.p99_ms),
        cpu_s_per_1000: of(|f| f.cpu_s_per_1000),
        rss_mib: of(|f| f.rss_mib),
    }
}

fn print(scenario: &Scenario, edge: &Figures, postfix: &Figures) {
    let Load {
        connections,
        messages,
        ..
    } = scenario.load;
    println!(
        "\n{} – {connections} connections × {messages} messages, median of {} interleaved rounds",
        scenario.name, scenario.rounds
    );
    println!(
        "{:24}{:>14}{:>18}{:>10}",
        "", "edge+callout", "Postfix+milter", "ratio"
    );
    for (name, ours, theirs) in [
        ("accepted/s", edge.accepted_per_s, postfix.accepted_per_s),
        ("delivered/s", edge.delivered_per_s, postfix.delivered_per_s),
        ("p50 ms", edge.p50_ms, postfix.p50_ms),
        ("p99 ms", edge.p99_ms, postfix.p99_ms),
        (
            "CPU s / 1,000 messages",
            edge.cpu_s_per_1000,
            postfix.cpu_s_per_1000,
        ),
        ("peak RSS MiB", edge.rss_mib, postfix.rss_mib),
    ] {
        println!("{name:24}{ours:>14.2}{theirs:>18.2}{:>10.2}", ours / theirs);
    }
}
