//! What each use case costs on the wire and on the processor: `cargo run --release -p opes-e2e --example fit`.
//!
//! A service and the processor's client for it in this process, over gRPC on loopback, 8 messages in flight. CPU is that of both ends and of the
//! service's own work; foreign engines run elsewhere and are not counted. The wire is counted in a run of its own, through a proxy, with HTTP/2
//! and all. `docs/protocol-fit.md` quotes the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use opes_callout_client::{
    Answer, ContentWant, Group, Request, ServiceClient, ServiceClientConfig,
};
use opes_callout_server::Service;
use opes_content::{Budget, Limits, View, create};
use opes_e2e::counting::Counting;
use opes_e2e::embedded::service;
use opes_proto::smtp::{Address, Client, Context, Permission, Point};
use serde_json::{Value, json};

const IN_FLIGHT: usize = 8;

/// Octets of a message, and how many are sent for the CPU's figure.
const SIZES: [(&str, usize, usize); 2] = [("4 KiB", 4 << 10, 4000), ("1 MiB", 1 << 20, 80)];

/// A service with the parameters of its rule.
struct Case<S> {
    name: &'static str,
    make: fn(&Value) -> Result<S>,
    config: Value,
    parameters: Value,
}

/// The processor's side of one case.
struct Processor {
    client: ServiceClient,
    group: Arc<Group>,
    context: Arc<Context>,
    budget: Budget,
    limits: Arc<Limits>,
}

impl Processor {
    fn new(target: &str, parameters: &Value, size: usize) -> Self {
        let limits = Limits::in_dir(std::env::temp_dir());
        Self {
            client: ServiceClient::new(ServiceClientConfig::new("fit", target)),
            group: Arc::new(Group {
                rule: "default/fit".into(),
                revision: "0".into(),
                parameters_json: parameters.to_string(),
                allow: (1..).map_while(|n| Permission::try_from(n).ok()).collect(),
            }),
            context: Arc::new(context(size)),
            budget: Budget::new(512 << 20),
            limits: Arc::new(limits),
        }
    }

    async fn ask(&self, mail: &Bytes) -> Result<Answer> {
        let (mut writer, content) = create(&self.budget, &self.limits);
        writer.append(mail.clone()).await?;
        writer.finish();
        let request = Request {
            group: Arc::clone(&self.group),
            point: Point::Content,
            command_line: None,
            context: Arc::clone(&self.context),
            content: Some(View::original(content)),
            content_want: ContentWant::Unspecified,
            timeout: Duration::from_mins(1),
            traceparent: String::new(),
        };
        Ok(self.client.run(request).await?)
    }

    async fn many(self: &Arc<Self>, mail: &Bytes, messages: usize) -> Result<()> {
        let left = Arc::new(AtomicUsize::new(messages));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (this, mail, left) = (Arc::clone(self), mail.clone(), Arc::clone(&left));
            tasks.spawn(async move {
                let next = |n: usize| n.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
                    .is_ok()
                {
                    this.ask(&mail).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(result) = tasks.join_next().await {
            result??;
        }
        Ok(())
    }
}

fn context(size: usize) -> Context {
    let path = |address: &str| Address {
        address: address.into(),
        ..Address::default()
    };
    Context {
        dialog_id: "6614d96f8c160-1".into(),
        listener: "mx".into(),
        client: Some(Client {
            ip: "192.0.2.7".into(),
            ..Client::default()
        }),
        helo: "mail.example.org".into(),
        mail_from: Some(path("ann@example.org")),
        recipients: vec![path("bob@example.com")],
        size: Some(size as u64),
        ..Context::default()
    }
}

/// A text and an attachment of that size together; nothing that anybody would object to.
fn mail(octets: usize) -> Bytes {
    let head = "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: figures\r\nDate: Sat, 28 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"mix\"\r\n\r\n--mix\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\nThe figures are attached.\r\n--mix\r\nContent-Type: application/octet-stream\r\n\
         Content-Disposition: attachment; filename=\"figures.dat\"\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let end = "--mix--\r\n";
    let line = format!("{}\r\n", "QUJD".repeat(19));
    let lines = octets.saturating_sub(head.len() + end.len()) / line.len();
    format!("{head}{}{end}", line.repeat(lines)).into()
}

/// User and system time of this process so far, from `/proc/self/stat` (in hundredths of a second).
fn cpu() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat
        .rsplit_once(')')
        .context("/proc/self/stat has another form")?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = times.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// A row of the table.
async fn measure<S: Service>(case: Case<S>) -> Result<()> {
    let mut row = format!("| {} |", case.name);
    for (_, octets, messages) in SIZES {
        let mail = mail(octets);
        let target = service((case.make)(&case.config)?).await?;
        let processor = Arc::new(Processor::new(&target, &case.parameters, mail.len()));
        processor.many(&mail, IN_FLIGHT).await.context(case.name)?;
        let before = cpu()?;
        processor.many(&mail, messages).await?;
        let spent = cpu()?.saturating_sub(before);
        let micros = spent.as_micros() / messages as u128;
        let counting = Counting::start(&target).await?;
        let processor = Processor::new(
            &format!("http://{}", counting.address),
            &case.parameters,
            mail.len(),
        );
        processor.ask(&mail).await?;
        let (sent, back, _) = counting.during(processor.ask(&mail)).await?;
        row.push_str(&format!(" {micros} | {sent} | {back} |"));
    }
    println!("{row}");
    Ok(())
}
