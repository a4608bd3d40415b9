//! What goes over the wire between edge and service: not a content that nobody asked for, and not back what did not change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{Answer, Description, Message, Service};
use opes_e2e::counting::Counting;
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::eventually;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::{Dialog, sample};
use opes_e2e::trace::as_services_see_it;
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_proto::smtp::ContextField;

/// The bound for a service that wants metadata only, in octets to the service for one message.
const METADATA_OCTETS_MAX: u64 = 2048;

/// The bound for one added header field, in octets back from the service for one message.
const ONE_HEADER_OCTETS_MAX: u64 = 1024;

struct Setup {
    _folder: tempfile::TempDir,
    _edge: Embedded,
    hop: Hop,
    wire: Counting,
    dialog: Dialog,
}

async fn start(tested: impl Service, class: &str, wants: &str, allow: &str) -> Result<Setup> {
    let rule = format!(
        "at: [content]\n  callout: {{ serviceRef: {{ name: tested }}, wants: {{ content: {wants} }}, allow: [{allow}], onFailure: tempfail }}"
    );
    start_with(tested, class, &rule).await
}

/// With the rest of a rule.
async fn start_with(tested: impl Service, class: &str, rule: &str) -> Result<Setup> {
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(Manners::default()).await?;
    let wire = Counting::start(&service(tested).await?).await?;
    let rules = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: tested }}\nspec: {{ class: {class}, endpoint: 'http://{}', limits: {{ connectTimeout: 20s }} }}\n---\n\
         apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: tested }}\nspec:\n  {rule}\n",
        wire.address
    );
    let config = EdgeConfig {
        listeners: vec![ListenerConfig::new(
            "mx",
            "127.0.0.1:0".parse()?,
            ListenerProtocol::Smtp,
        )],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
    };
    let edge = Embedded::start(config, &rules).await?;
    let dialog = Dialog::open(edge.address("mx")?, false).await?;
    Ok(Setup {
        _folder: folder,
        _edge: edge,
        hop,
        wire,
        dialog,
    })
}

impl Setup {
    /// Sends a small message first, so that connection, negotiation and service group are there, then measures `content`.
    async fn measure(&mut self, content: &[u8]) -> Result<(u64, u64)> {
        self.send(&sample("warm", 4096)).await?;
        // What is told of its delivery belongs to it.
        eventually("delivered", || self.hop.arrivals().len() == 1).await;
        self.wire.quiet().await;
        let reply = self
            .dialog
            .message("steve@example.org", &["paul@example.com"], content);
        let (sent, returned, reply) = self.wire.during(reply).await?;
        ensure!(reply.starts_with("250"), "{reply}");
        eventually("delivered", || self.hop.arrivals().len() == 2).await;
        Ok((sent, returned))
    }

    async fn send(&mut self, content: &[u8]) -> Result<()> {
        let reply = self
            .dialog
            .message("steve@example.org", &["paul@example.com"], content)
            .await?;
        ensure!(reply.starts_with("250"), "{reply}");
        Ok(())
    }

    /// The large message as it arrived.
    fn arrived(&self) -> Result<Vec<u8>> {
        let arrivals = self.hop.arrivals();
        Ok(arrivals
            .into_iter()
            .max_by_key(|arrival| arrival.content.len())
            .context("no arrival")?
            .content)
    }
}

/// Decides by size and envelope; keeps what it was told.
#[derive(Default)]
struct Metadata {
    size: Arc<AtomicU64>,
}

impl Service for Metadata {
    fn describe(&self) -> Description {
        Description::new("metadata").message_context([
            ContextField::Size,
            ContextField::MailFrom,
            ContextField::Recipients,
        ])
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let context = message.context();
        let from = context.mail_from.as_ref().map(|path| path.address.as_str());
        ensure!(from == Some("steve@example.org"), "reverse-path {from:?}");
        ensure!(
            context
                .recipients
                .iter()
                .map(|path| path.address.as_str())
                .eq(["paul@example.com"]),
            "{:?}",
            context.recipients
        );
        self.size
            .store(context.size.context("no size")?, Ordering::SeqCst);
        Ok(Answer::accept())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_10_mb_are_less_than_2_kb_on_the_wire() -> Result<()> {
    let tested = Metadata::default();
    let size = Arc::clone(&tested.size);
    let mut setup = start(tested, "analyze", "none", "reject").await?;
    let content = sample("ten", 10_000_000);
    let (sent, returned) = setup.measure(&content).await?;
    println!("10 MB, metadata only: {sent} octets to the service, {returned} back");
    let arrived = setup.arrived()?;
    ensure!(
        size.load(Ordering::SeqCst) == as_services_see_it(&arrived).len() as u64,
        "the service was told {size:?} octets"
    );
    ensure!(sent > 0, "the second message did not pass the counter");
    ensure!(sent < METADATA_OCTETS_MAX, "{sent} octets to the service");
    ensure!(arrived.ends_with(&content), "octets differ");
    Ok(())
}

/// The reporting service: the answer and the delivery of a message.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_10_mb_is_less_than_2_kb_on_the_wire() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = serde_json::json!({ "database": { "sqlite": folder.path().join("r.sqlite") } });
    let reporting = opes_reporting::Reporting::from_config(&config)?;
    let rule =
        "at: [answered, delivered, deferred, bounced]\n  callout: { serviceRef: { name: tested } }";
    let mut setup = start_with(reporting, "observe", rule).await?;
    let content = sample("ten", 10_000_000);
    let (sent, returned) = setup.measure(&content).await?;
    println!("10 MB, reported: {sent} octets to the service, {returned} back");
    ensure!(sent > 0, "the second message did not pass the counter");
    ensure!(sent < METADATA_OCTETS_MAX, "{sent} octets to the service");
    Ok(())
}

/// Reads everything and adds one field.
struct Stamp;

impl Service for Stamp {
    fn describe(&self) -> Description {
        Description::new("stamp").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        while message.chunk().await?.is_some() {}
        Ok(Answer::accept().add_header("X-Stamp", "seen"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_header_added_to_20_mib_sends_back_less_than_1_kb() -> Result<()> {
    let mut setup = start(Stamp, "adapt", "all", "header").await?;
    let content = sample("twenty", 20 << 20);
    let (sent, returned) = setup.measure(&content).await?;
    println!("20 MiB, one header added: {sent} octets to the service, {returned} back");
    ensure!(
        sent >= content.len() as u64,
        "the service cannot have read it all: {sent} octets"
    );
    let arrived = setup.arrived()?;
    ensure!(arrived.ends_with(&content), "octets differ");
    let head = String::from_utf8_lossy(arrived.get(..2048).unwrap_or(&arrived)).into_owned();
    ensure!(head.contains("X-Stamp: seen\r\n"), "{head}");
    ensure!(returned < ONE_HEADER_OCTETS_MAX, "{returned} octets back");
    Ok(())
}

/// Adds one field without looking at the content.
struct Blind;

impl Service for Blind {
    fn describe(&self) -> Description {
        Description::new("blind")
    }

    async fn message(&self, _message: &mut Message) -> Result<Answer> {
        Ok(Answer::accept().add_header("X-Stamp", "seen"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_header_added_unseen_is_small_both_ways() -> Result<()> {
    let mut setup = start(Blind, "adapt", "none", "header").await?;
    let content = sample("twenty", 20 << 20);
    let (sent, returned) = setup.measure(&content).await?;
    println!("20 MiB, one header added unseen: {sent} octets to the service, {returned} back");
    ensure!(
        sent < METADATA_OCTETS_MAX && returned < ONE_HEADER_OCTETS_MAX,
        "{sent} there, {returned} back"
    );
    ensure!(setup.arrived()?.ends_with(&content), "octets differ");
    Ok(())
}
