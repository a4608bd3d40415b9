//! `opes dev -f DIR` follows its rule files: good edits come into force, bad ones are shown and change nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::smtp::{Dialog, sample};
use opes_e2e::{DEADLINE, eventually, opes_program};

/// `opes dev` with the lines that it prints. Killed when dropped.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    fn start(folder: &Path) -> Result<Self> {
        let mut command = Command::new(opes_program());
        command.arg("dev").arg("-f").arg(folder.join("rules"));
        command.arg("--state").arg(folder.join("state"));
        for listener in ["--smtp", "--submission", "--lmtp", "--admin"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    fn line(&self, start: &str) -> Result<String> {
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.with_context(|| format!("no line `{start}…`"))?;
            if line.starts_with(start) {
                return Ok(line);
            }
        }
    }
}

const CLOSED: &str = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: closed }\nspec: { at: [mailFrom], action: { reject: { text: not today } } }\n";

const FILTER: &str = "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: { name: filter }\nspec:\n  class: adapt\n  \
     builtin: { name: security-filter, config: { headerOnClean: true } }\n---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: scan }\n\
     spec:\n  at: [content]\n  callout: { serviceRef: { name: filter }, wants: { content: all }, allow: [header, replacePart, subject] }\n";

/// By rename from outside the folder that is watched: what is half-written for long would count as an edit of its own.
fn replace(path: &Path, text: &str) -> Result<()> {
    let rules = path.parent().context("no folder")?;
    let aside = rules.with_file_name("aside");
    fs::write(&aside, text)?;
    Ok(fs::rename(aside, path)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_come_into_force_and_mistakes_do_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rules = folder.path().join("rules/rules.yaml");
    fs::create_dir(folder.path().join("rules"))?;
    fs::write(&rules, "")?;
    let dev = Dev::start(folder.path())?;
    let mx = dev.line("listening mx smtp ")?;
    let mx: SocketAddr = mx.rsplit(' ').next().context("no address")?.parse()?;
    dev.line("ready")?;
    let mail = async |name: &str| -> Result<String> {
        let mut dialog = Dialog::open(mx, false).await?;
        let content = sample(name, 500);
        dialog
            .message("steve@example.org", &["paul@example.com"], &content)
            .await
    };
    ensure!(mail("first").await?.starts_with("250"), "no mail at first");

    replace(&rules, CLOSED)?;
    let line = dev.line("rules reloaded, revision ")?;
    ensure!(line.len() > "rules reloaded, revision ".len(), "{line}");
    let refusal = mail("second")
        .await
        .unwrap_or_else(|error| error.to_string());
    ensure!(refusal.contains("not today"), "{refusal}");

    replace(&rules, &CLOSED.replace("reject", "rejct"))?;
    let line = dev.line("rules refused, the last good ones stay in force")?;
    ensure!(line.contains("1 mistake"), "{line}");
    let refusal = mail("third")
        .await
        .unwrap_or_else(|error| error.to_string());
    ensure!(refusal.contains("not today"), "{refusal}");

    // A built-in service that was not there before is started.
    replace(&rules, FILTER)?;
    dev.line("rules reloaded, revision ")?;
    let reply = mail("fourth").await?;
    ensure!(reply.starts_with("250"), "{reply}");
    let mailbox = folder.path().join("state/mail/example.com/paul/new");
    eventually("the scanned message is delivered", || {
        let files = fs::read_dir(&mailbox).into_iter().flatten().flatten();
        let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts.any(|text| text.contains("X-Opes-Security: clean"))
    })
    .await;
    Ok(())
}
