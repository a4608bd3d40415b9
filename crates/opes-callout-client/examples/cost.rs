//! Measures what a callout costs: CPU of both ends together, per message, with a service that reads everything and adds a
//! header. `cargo run --release -p opes-callout-client --example cost -- [MESSAGES] [OCTETS] [IN_FLIGHT] [MICROSECONDS_MAX]`
//!
//! Ends with an error if a message costs more than that. `cargo xtask bench` runs it with what we promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use opes_callout_client::{ContentWant, Group, Request, ServiceClient, ServiceClientConfig};
use opes_callout_server::{Answer, Description, Listener, Message, ServerConfig, Service, serve};
use opes_content::{Budget, Limits, View, create};
use opes_proto::smtp::{Context, Point};
use tokio_util::sync::CancellationToken;

struct AddHeader;

impl Service for AddHeader {
    fn describe(&self) -> Description {
        Description::new("cost").whole_content()
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let mut octets = 0;
        while let Some(chunk) = message.chunk().await? {
            octets += chunk.len();
        }
        Ok(Answer::accept().add_header("X-Scanned-Octets", octets.to_string()))
    }
}

/// User and system time of this process so far, from `/proc/self/stat` (in hundredths of a second).
fn cpu() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat
        .rsplit_once(')')
        .context("/proc/self/stat has another form")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn argument(n: usize, default: usize) -> usize {
    std::env::args()
        .nth(n)
        .and_then(|a| a.parse().ok())
        .unwrap_or(default)
}

async fn message(octets: &Bytes, budget: &Budget, limits: &Arc<Limits>) -> anyhow::Result<View> {
    let (mut writer, content) = create(budget, limits);
    writer.append(octets.clone()).await?;
    writer.finish();
    Ok(View::original(content))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let (messages, octets, in_flight) = (argument(1, 200_000), argument(2, 4096), argument(3, 20));
    let listener = Listener::bind("127.0.0.1:0").await?;
    let target = format!("http://{}", listener.address());
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(
        Arc::new(AddHeader),
        listener,
        ServerConfig::default(),
        shutdown.clone(),
    ));
    let client = ServiceClient::new(ServiceClientConfig::new("cost", target));
    client.wants().await?;

    let mut mail = b"Subject: cost\r\n\r\n".to_vec();
    mail.resize(octets, b'x');
    let mail = Bytes::from(mail);
    let group = Arc::new(Group {
        rule: "default/cost".into(),
        ..Group::default()
    });
    let context = Arc::new(Context {
        dialog_id: "1".into(),
        ..Context::default()
    });
    let (budget, limits) = (
        Budget::new(256 << 20),
        Arc::new(Limits::in_dir(std::env::temp_dir())),
    );
    let left = Arc::new(AtomicUsize::new(messages));

    let (cpu_before, started) = (cpu()?, Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (client, group, context) = (client.clone(), Arc::clone(&group), Arc::clone(&context));
        let (mail, budget, limits, left) = (
            mail.clone(),
            budget.clone(),
            Arc::clone(&limits),
            Arc::clone(&left),
        );
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                let request = Request {
                    group: Arc::clone(&group),
                    point: Point::Content,
                    command_line: None,
                    context: Arc::clone(&context),
                    content: Some(message(&mail, &budget, &limits).await?),
                    content_want: ContentWant::All,
                    timeout: Duration::from_secs(30),
                    traceparent: String::new(),
                };
                client.run(request).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    let (cpu, wall) = (cpu()?.saturating_sub(cpu_before), started.elapsed());
    let per_message = cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(messages)?);
    println!(
        "{messages} messages of {octets} octets, {in_flight} in flight: {per_message:.1} µs CPU each, {:.2} s wall",
        wall.as_secs_f64()
    );
    shutdown.cancel();
    let most = argument(4, usize::MAX);
    #[allow(clippy::cast_precision_loss, reason = "a bound of some microseconds")]
    let within = per_message <= most as f64;
    anyhow::ensure!(within, "more than {most} µs of CPU for each message");
    Ok(())
}
