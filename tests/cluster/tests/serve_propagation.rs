//! How long a change of one rule takes to all edges: 1,000 rules, 20 edges, a real API server, and the operator in a process of its own.
//!
//! `cargo test --release -p opes-cluster --test serve_propagation -- --nocapture` gives the figures that are published; all edges
//! compile on the one machine of the test. Without optimisation that takes a hundred times as long: then there are fewer rules, and the
//! limit is only there to notice what hangs.

#[allow(dead_code, unreachable_pub)] // The operator's own tests need more of it.
#[path = "operator_core/bed.rs"]
mod bed;
#[allow(dead_code, unreachable_pub)]
#[path = "operator_core/edge.rs"]
mod edge;

mod control_plane {
    use std::time::{Duration, Instant};

    use anyhow::{Context as _, Result, ensure};
    use futures_util::{StreamExt as _, TryStreamExt as _};
    use opes_cluster::{ControlPlane, DEADLINE, eventually};

    use crate::bed::{self, Bed, Edge};

    const RULES: usize = if cfg!(debug_assertions) { 200 } else { 1_000 };
    const EDGES: usize = 20;
    /// Changes that are measured.
    const CHANGES: usize = if cfg!(debug_assertions) { 5 } else { 50 };
    /// The goal that is published, and one that holds without optimisation on a busy machine.
    const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 100 } else { 1 });
    /// Rules that are made at once.
    const AT_ONCE: usize = 8;

    /// Not a test of its own: [`Bed::process`] runs it.
    #[tokio::test]
    async fn an_operator_that_can_be_killed() -> Result<()> {
        bed::be_a_process().await
    }

    fn rule(number: usize, version: usize) -> String {
        if number.is_multiple_of(10) {
            return format!(
                "{{ at: [content], match: {{ recipientDomains: [d{number}.example.com], cel: 'size < {}' }}, \
                 callout: {{ serviceRef: {{ name: scan }}, onFailure: tempfail }} }}",
                1_000_000 + version
            );
        }
        format!(
            "{{ at: [rcptTo], match: {{ recipientDomains: [d{number}.example.com], senderDomains: [s{version}.example.com] }}, action: {{ accept: {{}} }} }}"
        )
    }

    /// Waits until all run the same table, another than `before`.
    async fn all_run(edges: &mut [Edge], before: &str) -> Result<String> {
        let mut revision = String::new();
        for edge in edges {
            let now = edge.runs_other_than(before).await?;
            ensure!(
                revision.is_empty() || revision == now,
                "two tables: {revision}, {now}"
            );
            revision = now;
        }
        Ok(revision)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_change_reaches_all_edges_in_time() -> Result<()> {
        let plane = ControlPlane::start().await?;
        let bed = Bed::new(&plane).await?;
        let filter = "{ class: adapt, endpoint: 'https://filter.example.com:9000' }";
        bed.service("scan", filter).await?;
        futures_util::stream::iter(0..RULES)
            .map(|number| {
                let bed = &bed;
                async move { bed.rule(&format!("r{number:04}"), &rule(number, 0)).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await?;
        let operator = bed.process("a").await?;
        let mut edges = Vec::new();
        for number in 0..EDGES {
            edges.push(
                bed.edge(&format!("edge-{number:02}"), operator.routing)
                    .await?,
            );
        }
        let complete = |edge: &Edge| *edge.objects.borrow() == RULES + 1;
        eventually("all edges run all rules", DEADLINE, || async {
            Ok(edges.iter().all(complete).then_some(()))
        })
        .await?;
        bed.wait_for_leader("a").await?;
        let mut revision = all_run(&mut edges, "").await?;
        let mut times = Vec::new();
        for change in 1..=CHANGES {
            let number = change * 37 % RULES;
            let applied = Instant::now();
            bed.rule(&format!("r{number:04}"), &rule(number, change))
                .await?;
            revision = all_run(&mut edges, &revision).await?;
            times.push(applied.elapsed());
        }
        times.sort_unstable();
        let at = |share: usize| {
            times
                .get((times.len() * share).div_ceil(100) - 1)
                .context("no times")
        };
        let (p50, p90, p99) = (*at(50)?, *at(90)?, *at(99)?);
        println!(
            "apply → in force on {EDGES} edges, {RULES} rules, {CHANGES} changes: p50 {} ms, p90 {} ms, p99 {} ms; RSS of the operator {} MiB",
            p50.as_millis(),
            p90.as_millis(),
            p99.as_millis(),
            operator.resident()? >> 20
        );
        assert!(p99 < LIMIT, "p99 is {p99:?}");
        Ok(())
    }
}
