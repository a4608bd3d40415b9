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
use opes_access_control::AccessControl;
use opes_attachment_links::AttachmentLinks;
use opes_callout_client::{
    Answer, ContentWant, Group, Request, ServiceClient, ServiceClientConfig,
};
use opes_callout_server::{Answer as ServiceAnswer, Description, Message, Service};
use opes_content::{Budget, Limits, View, create};
use opes_content_block::ContentBlock;
use opes_e2e::counting::Counting;
use opes_e2e::embedded::service;
use opes_normalizer::Normalizer;
use opes_proto::smtp::{Address, Client, Context, Permission, Point};
use opes_reporting::Reporting;
use opes_rerouting::Rerouting;
use opes_secure_mail::SecureMail;
use opes_security_filter::SecurityFilter;
use opes_spam_filter::SpamFilter;
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
    point: Point,
}

impl<S> Case<S> {
    fn at(self, point: Point) -> Self {
        Self { point, ..self }
    }
}

/// The processor's side of one case.
struct Processor {
    point: Point,
    client: ServiceClient,
    group: Arc<Group>,
    context: Arc<Context>,
    budget: Budget,
    limits: Arc<Limits>,
}

impl Processor {
    fn new(target: &str, parameters: &Value, point: Point, size: usize) -> Self {
        let limits = Limits::in_dir(std::env::temp_dir());
        Self {
            point,
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
            point: self.point,
            command_line: match self.point {
                Point::MailFrom => Some("MAIL FROM:<ann@example.org>".into()),
                Point::RcptTo => Some("RCPT TO:<bob@example.com>".into()),
                _ => None,
            },
            context: Arc::clone(&self.context),
            content: (self.point == Point::Content).then(|| View::original(content)),
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
    for (size, octets, messages) in SIZES {
        // Without content a large message costs what a small one does.
        if case.point != Point::Content && size != SIZES[0].0 {
            row.push_str(" – | – | – |");
            continue;
        }
        let mail = mail(octets);
        let target = service((case.make)(&case.config)?).await?;
        let processor = Arc::new(Processor::new(
            &target,
            &case.parameters,
            case.point,
            mail.len(),
        ));
        processor.many(&mail, IN_FLIGHT).await.context(case.name)?;
        let before = cpu()?;
        processor.many(&mail, messages).await?;
        let spent = cpu()?.saturating_sub(before);
        let micros = spent.as_micros() / messages as u128;
        let counting = Counting::start(&target).await?;
        let processor = Processor::new(
            &format!("http://{}", counting.address),
            &case.parameters,
            case.point,
            mail.len(),
        );
        processor.ask(&mail).await?;
        let (there, back, _) = counting.during(processor.ask(&mail)).await?;
        row.push_str(&format!(" {micros} | {there} | {back} |"));
    }
    println!("{row}");
    Ok(())
}

/// A case whose service takes no surprises.
fn case<S>(
    name: &'static str,
    make: fn(&Value) -> Result<S>,
    config: Value,
    parameters: Value,
) -> Case<S> {
    Case {
        name,
        make,
        config,
        parameters,
        point: Point::Content,
    }
}

/// Reads everything and accepts: what the protocol costs by itself.
struct Nothing;

impl Service for Nothing {
    fn describe(&self) -> Description {
        Description::new("nothing").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<ServiceAnswer> {
        while message.chunk().await?.is_some() {}
        Ok(ServiceAnswer::accept())
    }
}

#[expect(clippy::too_many_lines, reason = "a list")]
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("keys"))?;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    std::fs::write(at("keys/dkim.key"), key.serialize_pem())?;
    println!(
        "| use case | 4 KiB: CPU µs | octets there | back | 1 MiB: CPU µs | octets there | back |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    measure(case(
        "(a service that reads all and does nothing)",
        |_| Ok(Nothing),
        json!({}),
        json!({}),
    ))
    .await?;
    measure(case(
        "4.1 security-filter",
        SecurityFilter::from_config,
        json!({}),
        json!({}),
    ))
    .await?;
    let own = json!({ "engine": { "own": { "authservId": "mail.example.com", "trustedNetworks": ["192.0.2.0/24"] } } });
    measure(case(
        "4.2 spam-filter, own engine, a trusted client: no DNS",
        SpamFilter::from_config,
        own,
        json!({}),
    ))
    .await?;
    let database = json!({ "database": { "sqlite": at("reporting.sqlite") } });
    measure(case("4.3 reporting", Reporting::from_config, database, json!({})).at(Point::Answered))
        .await?;
    let policy = json!({ "default": "allow", "rules": [{ "name": "no", "action": "deny", "sender": "spammer@example.net" }] });
    measure(
        case(
            "4.4 access-control, MAIL",
            AccessControl::from_config,
            policy,
            json!({}),
        )
        .at(Point::MailFrom),
    )
    .await?;
    let dkim = json!({ "keys": at("keys"), "dkim": [{ "domain": "example.org", "selector": "fit", "file": "dkim.key" }] });
    measure(case(
        "4.5 secure-mail, DKIM with Ed25519",
        SecureMail::from_config,
        dkim,
        json!({ "operation": "dkimSign" }),
    ))
    .await?;
    measure(case(
        "4.6 normalizer",
        Normalizer::from_config,
        json!({}),
        json!({}),
    ))
    .await?;
    let map = json!({ "map": { "bob@example.com": "bob@fr.example.com" } });
    measure(
        case(
            "4.7 rerouting, RCPT",
            Rerouting::from_config,
            map,
            json!({}),
        )
        .at(Point::RcptTo),
    )
    .await?;
    let words = json!({ "words": ["casino bonus"], "patterns": ["\\bwin \\d+ euros?\\b"] });
    measure(case(
        "4.8 content-block",
        ContentBlock::from_config,
        words,
        json!({}),
    ))
    .await?;
    let store = json!({ "baseUrl": "https://files.example.com", "store": { "folder": at("store") }, "sizeMin": 100_000 });
    measure(case(
        "4.9 attachment-links, folder",
        AttachmentLinks::from_config,
        store,
        json!({}),
    ))
    .await
}
