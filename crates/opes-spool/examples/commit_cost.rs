//! What does a durable message cost? `commit_cost [TASKS] [MESSAGES_PER_TASK] [OCTETS] [DIR]` stores and settles messages from many tasks at once
//! and prints messages a second, `fdatasync` calls and CPU time a message.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opes_content::{Budget, Limits, View};
use opes_spool::{Envelope, Recipient, Settlement, Spool, SpoolConfig};

#[derive(Clone, Copy)]
struct Load {
    tasks: usize,
    messages: usize,
    octets: usize,
}

fn main() {
    let argument = |index: usize| std::env::args().nth(index);
    let number = |index, default| {
        argument(index).map_or(default, |text| {
            text.parse().expect("arguments 1 to 3 are numbers")
        })
    };
    let load = Load {
        tasks: number(1, 20),
        messages: number(2, 1000),
        octets: number(3, 4096),
    };
    let dir = argument(4).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).expect("DIR must be writable");
    let (spool, _) = Spool::open(dir.path(), SpoolConfig::default()).expect("a new spool opens");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let (cpu, start) = (cpu_time(), Instant::now());
    runtime.block_on(run(&spool, load));
    report(
        &spool,
        load,
        start.elapsed(),
        cpu_time().saturating_sub(cpu),
    );
}

async fn run(spool: &Spool, load: Load) {
    let tasks = (0..load.tasks).map(|_| tokio::spawn(client(spool.clone(), load)));
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no task panics");
    }
}

async fn client(spool: Spool, load: Load) {
    let budget = Budget::new(1 << 30);
    let limits = Arc::new(Limits::in_dir(std::env::temp_dir()));
    let octets = Bytes::from(vec![b'x'; load.octets]);
    for _ in 0..load.messages {
        let (mut writer, content) = opes_content::create(&budget, &limits);
        writer.append(octets.clone()).await.expect("content fits");
        writer.finish();
        let view = View::original(content);
        let queued = spool.store(envelope(), &view).await.expect("disk works");
        let outcome = [(0, Settlement::Delivered)];
        spool
            .settle(&queued.id, &outcome)
            .await
            .expect("disk works");
    }
}

fn envelope() -> Envelope {
    Envelope {
        reverse_path: "sender@example.com".to_owned(),
        recipients: vec![Recipient {
            address: "recipient@example.org".to_owned(),
            ..Recipient::default()
        }],
        client: "192.0.2.1:40000".to_owned(),
        helo: "client.example.com".to_owned(),
        ..Envelope::default()
    }
}

fn report(spool: &Spool, load: Load, elapsed: Duration, cpu: Duration) {
    let count = u32::try_from(load.tasks * load.messages).expect("fewer than 2^32 messages");
    let stats = spool.stats();
    println!(
        "{count} messages of {} octets from {} tasks in {elapsed:.2?}: {:.0} messages/s, {} fdatasync, {:.1} µs CPU a message",
        load.octets,
        load.tasks,
        f64::from(count) / elapsed.as_secs_f64(),
        stats.commits,
        cpu.as_secs_f64() * 1e6 / f64::from(count),
    );
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    // Fields 14 and 15; the command in parentheses may contain spaces.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}
