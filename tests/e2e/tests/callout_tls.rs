//! Edge and service as processes under mutual TLS: mail passes, also while everything is replaced; what cannot be, is refused
//! with a reason. The certificates are made by the commands of docs/operate/callout-tls.md.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use opes_e2e::sink::Sink;
use opes_e2e::smtp::{Dialog, sample};
use opes_e2e::{Daemon, eventually, need, opes_program};
use tempfile::TempDir;

const PAGE: &str = include_str!("../../../docs/operate/callout-tls.md");

/// Runs the page's commands in `folder`: an authority, a pair for the service, a pair for the edge.
fn make_certificates(folder: &Path) -> Result<()> {
    need("openssl");
    fs::create_dir_all(folder)?;
    let commands = PAGE
        .split("```sh\n")
        .nth(1)
        .and_then(|rest| rest.split("\n```").next())
        .context("the page has no commands")?;
    let made = Command::new("sh")
        .args(["-ec", commands])
        .current_dir(folder)
        .output()?;
    ensure!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(())
}

/// Puts `text` in place of `path` by rename.
fn replace(path: &Path, text: &[u8]) -> Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, text)?;
    Ok(fs::rename(aside, path)?)
}

/// Everything in one folder: rules, configuration, and in `live` the files in force.
struct Place {
    folder: TempDir,
    sink: Sink,
}

impl Place {
    async fn new() -> Result<Self> {
        let (folder, sink) = (tempfile::tempdir()?, Sink::start().await?);
        make_certificates(&folder.path().join("live"))?;
        fs::create_dir(folder.path().join("rules"))?;
        fs::write(folder.path().join("filter.yaml"), "headerOnClean: true\n")?;
        Ok(Self { folder, sink })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn rules(&self, service: &str, transport: &str) -> Result<()> {
        let text = format!(
            "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: filter }}\nspec:\n  class: adapt\n  endpoint: \"{service}\"\n  \
             transport: {transport}\n  limits: {{ connectTimeout: 20s }}\n---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: scan }}\nspec:\n  at: [content]\n  \
             callout:\n    serviceRef: {{ name: filter }}\n    wants: {{ content: all }}\n    allow: [header, replacePart, subject]\n    timeout: 20s\n"
        );
        replace(&self.path("rules/filter.yaml"), text.as_bytes())
    }

    fn edge_command(&self, callouts: bool) -> Result<Command> {
        let live = self.path("live").display().to_string();
        let callouts = if callouts {
            format!(
                "callouts: {{ certificate: {live}/edge.crt, key: {live}/edge.key, ca: {live}/ca.crt }}\n"
            )
        } else {
            String::new()
        };
        let config = format!(
            "hostname: mail.example.com\nspool: {0}/spool\nrules: {0}/rules\n{callouts}domains: [example.com]\ndelivery: {{ nextHop: '{1}' }}\n\
             listeners:\n  - {{ name: mx, address: '127.0.0.1:0' }}\n",
            self.folder.path().display(),
            self.sink.address
        );
        fs::write(self.path("edge.yaml"), config)?;
        let mut command = Command::new(opes_program());
        command.args(["--log", "info", "edge", "--config"]);
        command.arg(self.path("edge.yaml"));
        Ok(command)
    }

    fn service_command(&self, listen: &str, tls: bool) -> Command {
        let mut command = Command::new(opes_program());
        command.args(["--log", "info", "service", "security-filter", "--config"]);
        command.arg(self.path("filter.yaml"));
        command.args(["--listen", listen]);
        if tls {
            for (option, file) in [
                ("--tls-certificate", "live/service.crt"),
                ("--tls-key", "live/service.key"),
                ("--tls-client-ca", "live/ca.crt"),
            ] {
                command.arg(option).arg(self.path(file));
            }
        }
        command
    }

    /// Starts it; its log goes to a file.
    fn start(&self, mut command: Command, log: &str) -> Result<Logged> {
        let log = self.path(log);
        command.stderr(File::create(&log)?);
        let daemon = Daemon::start(command, |line| {
            line == "ready" || line.starts_with("listening on ")
        })?;
        Ok(Logged { daemon, log })
    }
}

/// A program with its log.
struct Logged {
    daemon: Daemon,
    log: PathBuf,
}

impl Logged {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn taken(&self) -> usize {
        self.log().matches("file read again").count()
    }
}

async fn send(dialog: &mut Dialog, name: &str) -> Result<String> {
    let content = sample(name, 2000);
    dialog
        .message("steve@example.org", &["paul@example.com"], &content)
        .await
}

fn failure(output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it started: {said}");
    Ok(said)
}

/// Messages one after the other until `stop`; how many were accepted.
async fn steadily(mut dialog: Dialog, stop: Arc<AtomicBool>) -> Result<usize> {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = send(&mut dialog, &format!("steady-{sent}")).await?;
        ensure!(reply.starts_with("250"), "message {sent}: {reply}");
        sent += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_passes_while_certificates_and_authority_are_replaced() -> Result<()> {
    let place = Place::new().await?;
    let service = place.start(place.service_command("127.0.0.1:0", true), "service.log")?;
    let target = format!("https://{}", service.daemon.address("on"));
    place.rules(&target, "{ tls: mutual, serverName: filter.example.com }")?;
    let edge = place.start(place.edge_command(true)?, "edge.log")?;
    let stop = Arc::<AtomicBool>::default();
    let dialog = Dialog::open(edge.daemon.address("mx"), false).await?;
    let flow = tokio::spawn(steadily(dialog, Arc::clone(&stop)));
    eventually("mail flows", || {
        place.sink.count() > 5 || flow.is_finished()
    })
    .await;

    let live = place.path("live");
    let old = fs::read(live.join("ca.crt"))?;
    make_certificates(&place.path("next"))?;
    let next = fs::read(place.path("next/ca.crt"))?;
    let pairs = ["service.key", "service.crt", "edge.key", "edge.crt"];
    // In the order of the page: both authorities, certificates from the new one, the new one alone.
    for step in ["both", "pairs", "new"] {
        let before = (service.taken(), edge.taken());
        match step {
            "both" => replace(&live.join("ca.crt"), &[old.clone(), next.clone()].concat())?,
            "new" => replace(&live.join("ca.crt"), &next)?,
            _ => {
                for file in pairs {
                    replace(&live.join(file), &fs::read(place.path("next").join(file))?)?;
                }
            }
        }
        let taken = || service.taken() > before.0 && edge.taken() > before.1;
        eventually(&format!("step `{step}` is taken by both ends"), || {
            taken() || flow.is_finished()
        })
        .await;
        let more = place.sink.count() + 20;
        eventually("mail goes on", || {
            place.sink.count() > more || flow.is_finished()
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let sent = flow.await?;
    let sent = sent.with_context(|| format!("{}\n{}", service.log(), edge.log()))?;
    eventually("all is delivered", || place.sink.count() == sent).await;
    for arrival in place.sink.arrivals() {
        let content = String::from_utf8_lossy(&arrival.content).into_owned();
        ensure!(content.contains("X-Opes-Security: clean"), "{content}");
    }
    let opened = edge.log().matches("callout connection open").count();
    ensure!(opened >= 4, "{opened} connections: the old ones live on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_somebody_else_gets_no_mail() -> Result<()> {
    let place = Place::new().await?;
    let service = place.start(place.service_command("127.0.0.1:0", true), "service.log")?;
    let address = service.daemon.address("on");
    place.rules(
        &format!("https://{address}"),
        "{ tls: mutual, serverName: other.example.com }",
    )?;
    let edge = place.start(place.edge_command(true)?, "edge.log")?;
    let mut dialog = Dialog::open(edge.daemon.address("mx"), false).await?;
    let reply = send(&mut dialog, "nowhere").await?;
    ensure!(reply.starts_with("451"), "{reply}");
    let said = format!(
        "certificate presented by {address} is not for name other.example.com (it is for filter.example.com)"
    );
    eventually("the log says why", || edge.log().contains(&said)).await;
    ensure!(place.sink.count() == 0, "mail went on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_protected_does_not_start() -> Result<()> {
    let place = Place::new().await?;
    place.rules("https://filter.example.com:4037", "{ tls: mutual }")?;
    let said = failure(&place.edge_command(false)?.output()?)?;
    ensure!(
        said.contains("CalloutService default/filter") && said.contains("`callouts: {"),
        "{said}"
    );
    let said = failure(&place.service_command("0.0.0.0:0", false).output()?)?;
    ensure!(
        said.contains("in the clear") && said.contains("--insecure-plaintext"),
        "{said}"
    );
    fs::copy(place.path("live/edge.key"), place.path("live/service.key"))?;
    let said = failure(&place.service_command("127.0.0.1:0", true).output()?)?;
    ensure!(
        said.contains("service.key is not the key of") && said.contains("service.crt"),
        "{said}"
    );
    fs::remove_file(place.path("live/edge.crt"))?;
    let said = failure(&place.edge_command(true)?.output()?)?;
    ensure!(
        said.contains("callouts: ") && said.contains("edge.crt: No such file"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_want_tls_are_refused_later_too_and_the_last_good_ones_stay() -> Result<()> {
    let place = Place::new().await?;
    fs::write(place.path("rules/filter.yaml"), "")?;
    let edge = place.start(place.edge_command(false)?, "edge.log")?;
    place.rules("https://filter.example.com:4037", "{ tls: mutual }")?;
    eventually("the new rules are refused", || {
        edge.log()
            .contains("new rules refused, the last good ones stay")
    })
    .await;
    ensure!(
        edge.log().contains("this edge has no certificate to show"),
        "{}",
        edge.log()
    );
    let mut dialog = Dialog::open(edge.daemon.address("mx"), false).await?;
    let reply = send(&mut dialog, "still").await?;
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}
