//! `spoolDurable: false`: nothing is answered 250 because it is in a spool that may be gone any moment.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::{Dialog, sample};
use opes_edge::config::{
    Acceptance, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol, MixedVerdicts,
    PostgresConfig, S3Config,
};
use opes_edge::{EdgeHandle, Endpoints, Fate, Held, Hooks, Metrics, Quarantine, Release, Routing};
use opes_telemetry::Registry;
use tempfile::TempDir;

const FROM: &str = "steve@example.org";
const BOB: &str = "bob@example.com";
const EVE: &str = "eve@example.net";

/// Holds what is for [`EVE`].
const HOLD: &str = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: hold }\nspec: { at: [content], match: { recipientDomains: [example.net] }, action: { quarantine: { reason: test } } }\n";

/// An edge that keeps nothing, in front of a next hop.
struct Strict {
    edge: EdgeHandle,
    registry: Registry,
    hop: Hop,
    folder: TempDir,
}

/// A quarantine that other edges share, as this one sees it.
#[derive(Default)]
struct Shared {
    held: Mutex<Vec<Held>>,
    away: AtomicBool,
}

type Later<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl Quarantine for Shared {
    fn hold<'a>(&'a self, _edge: &'a str, held: &'a Held, content: &'a Path) -> Later<'a, ()> {
        Box::pin(async move {
            if self.away.load(Ordering::Relaxed) {
                bail!("it is away");
            }
            ensure!(content.exists(), "the octets are there");
            let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(held.clone());
            Ok(())
        })
    }

    fn unfinished<'a>(&'a self, _edge: &'a str) -> Later<'a, Vec<Release>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn finish<'a>(&'a self, _release: &'a str) -> Later<'a, Fate> {
        Box::pin(async { Ok(Fate::Withdraw) })
    }
}

impl Shared {
    fn held(&self) -> usize {
        let held = self.held.lock();
        held.unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Strict {
    async fn start(rules: &str, quarantine: Option<Arc<Shared>>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let hop = Hop::start(Manners::default()).await?;
        let listener = ListenerConfig::new("mx", "127.0.0.1:0".parse()?, ListenerProtocol::Smtp);
        let mut config = EdgeConfig {
            listeners: vec![ListenerConfig {
                delivery: Acceptance::CutThrough,
                mixed_verdicts: MixedVerdicts::RejectAll,
                ..listener
            }],
            domains: vec!["example.com".into(), "example.net".into()],
            delivery: DeliveryConfig {
                next_hop: Some(hop.address.to_string()),
                ..DeliveryConfig::default()
            },
            spool_durable: false,
            ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
        };
        if quarantine.is_some() {
            config.quarantine.postgres = Some(PostgresConfig {
                url: "postgres://opes@db.example.com/quarantine".into(),
                password_file: None,
            });
            config.quarantine.s3 = Some(S3Config {
                endpoint: None,
                bucket: "held".into(),
                region: "us-east-1".into(),
                prefix: String::new(),
                access_key_id_file: None,
                secret_access_key_file: None,
            });
        }
        let (objects, wrong) = opes_rules::parse("rules of the test", rules);
        ensure!(wrong.is_empty(), "{wrong:?}");
        let table = opes_rules::compile(objects);
        let table = table.map_err(|wrong| anyhow::anyhow!("{wrong:?}"))?;
        let routing = Routing::new(table, &Endpoints::new(), &config.system)?;
        let registry = Registry::new();
        let metrics = Arc::new(registry.with(Metrics::register));
        let hooks = Hooks {
            quarantine: quarantine.map(|shared| shared as Arc<dyn Quarantine>),
            ..Hooks::default()
        };
        Ok(Self {
            edge: opes_edge::start(config, routing, metrics, hooks).await?,
            registry,
            hop,
            folder,
        })
    }

    async fn dialog(&self) -> Result<Dialog> {
        let (_, address) = self.edge.addresses().first().context("no listener")?;
        Dialog::open(*address, false).await
    }

    fn counted(&self, reason: &str) -> Result<bool> {
        let name = format!("opes_spool_needed_total{{reason=\"{reason}\"}} ");
        let metrics = self.registry.encode()?;
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        Ok(count.is_some_and(|count| count != "0"))
    }

    /// No message is in the spool, and no pair of the quarantine in its folder.
    fn ensure_nothing_is_kept(&self) -> Result<()> {
        ensure!(self.edge.load().messages == 0, "a message in the spool");
        let held = files(&self.folder.path().join("spool/quarantine"));
        ensure!(held.is_empty(), "{held:?}");
        Ok(())
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// RCPT for each; the replies.
async fn offered(dialog: &mut Dialog, to: &[&str]) -> Result<Vec<String>> {
    dialog.command(&format!("MAIL FROM:<{FROM}>")).await?;
    let mut replies = Vec::new();
    for recipient in to {
        replies.push(dialog.command(&format!("RCPT TO:<{recipient}>")).await?);
    }
    Ok(replies)
}

async fn content(dialog: &mut Dialog, name: &str) -> Result<String> {
    dialog.command("DATA").await?;
    dialog
        .send(&[sample(name, 500), b".\r\n".to_vec()].concat())
        .await?;
    dialog.reply().await
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_with_different_next_hops_are_asked_for_one_by_one() -> Result<()> {
    let other = Hop::start(Manners::default()).await?;
    let rules = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: elsewhere }}\nspec: {{ at: [rcptTo], match: {{ recipientDomains: [example.net] }}, action: {{ route: {{ host: 127.0.0.1, port: {} }} }} }}\n",
        other.address.port()
    );
    let strict = Strict::start(&rules, None).await?;
    let mut dialog = strict.dialog().await?;
    ensure!(
        dialog
            .message(FROM, &[BOB], &sample("alone", 500))
            .await?
            .starts_with("250"),
        "one"
    );
    let replies = offered(&mut dialog, &[BOB, EVE]).await?;
    ensure!(
        replies.iter().all(|reply| reply.starts_with("250")),
        "{replies:?}"
    );
    let reply = content(&mut dialog, "both").await?;
    ensure!(reply.starts_with("451 4.5.3"), "{reply}");
    ensure!(strict.counted("NextHops")?, "counted");
    // The client comes again, as it was told to.
    let replies = offered(&mut dialog, &[BOB, EVE]).await?;
    ensure!(
        replies[0].starts_with("250") && replies[1].starts_with("452"),
        "{replies:?}"
    );
    ensure!(
        content(&mut dialog, "both").await?.starts_with("250"),
        "bob's"
    );
    ensure!(
        dialog
            .message(FROM, &[EVE], &sample("both", 500))
            .await?
            .starts_with("250"),
        "eve's"
    );
    ensure!(
        strict.hop.arrivals().len() == 2 && other.arrivals().len() == 1,
        "each once"
    );
    strict.ensure_nothing_is_kept()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_held_is_refused_where_no_quarantine_outlives_the_pod() -> Result<()> {
    let strict = Strict::start(HOLD, None).await?;
    let mut dialog = strict.dialog().await?;
    let reply = dialog.message(FROM, &[EVE], &sample("held", 500)).await?;
    ensure!(reply.starts_with("451 4.3.5"), "{reply}");
    ensure!(strict.counted("Quarantine")?, "counted");
    ensure!(strict.hop.arrivals().is_empty(), "not delivered either");
    strict.ensure_nothing_is_kept()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_in_the_shared_store_before_the_client_is_answered() -> Result<()> {
    let shared = Arc::<Shared>::default();
    let strict = Strict::start(HOLD, Some(Arc::clone(&shared))).await?;
    let mut dialog = strict.dialog().await?;
    let reply = dialog.message(FROM, &[EVE], &sample("held", 500)).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    ensure!(shared.held() == 1, "it is there already");
    strict.ensure_nothing_is_kept()?;
    shared.away.store(true, Ordering::Relaxed);
    let reply = dialog.message(FROM, &[EVE], &sample("again", 500)).await?;
    ensure!(reply.starts_with("451 4.3.5"), "{reply}");
    strict.ensure_nothing_is_kept()
}
