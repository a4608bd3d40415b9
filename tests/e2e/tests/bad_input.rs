//! Bad input gets a clear error that names the place and the remedy, and loses nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use opes_e2e::smtp::{Dialog, sample};
use opes_e2e::{eventually, opes, opes_program};

fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(opes_program()).args(arguments).output()?)
}

/// The program must fail, and its message must hold all of `words`.
fn refused(arguments: &[&str], words: &[&str]) -> Result<()> {
    let output = run(arguments)?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{arguments:?} succeeded");
    for word in words {
        ensure!(message.contains(word), "no `{word}` in:\n{message}");
    }
    ensure!(!message.contains("panicked"), "{message}");
    Ok(())
}

fn rules(folder: &Path, text: &str) -> Result<String> {
    let path = folder.join("rules.yaml");
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn config(folder: &Path, text: &str) -> Result<PathBuf> {
    let path = folder.join("edge.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

const RULE: &str = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: r }\nspec:\n  at: [content]\n  action: { reject: { text: no } }\n";

#[test]
fn malformed_yaml_names_file_and_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = rules(
        folder.path(),
        "apiVersion: opes.dev/v1alpha1\nkind: [unclosed\n",
    )?;
    refused(&["rules", "check", &path], &["rules.yaml:"])
}

#[test]
fn unknown_field_names_file_line_field_and_remedy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = rules(folder.path(), &RULE.replace("  at:", "  priorty: 5\n  at:"))?;
    refused(
        &["rules", "check", &path],
        &["rules.yaml:5", "priorty", "priority", "help:"],
    )
}

#[test]
fn unresolvable_service_is_found_by_the_compiler() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = rules(
        folder.path(),
        "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: r }\nspec:\n  at: [content]\n  callout: { serviceRef: { name: nobody } }\n",
    )?;
    refused(
        &["rules", "check", &path],
        &["rules.yaml:", "nobody", "help:"],
    )
}

#[test]
fn unknown_key_of_the_edge_configuration() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = config(folder.path(), "hostname: mail.example.com\nspoool: /tmp\n")?;
    refused(
        &["edge", "--config", &path.display().to_string()],
        &["edge.yaml", "spoool"],
    )
}

#[test]
fn a_missing_configuration_file_is_named() -> Result<()> {
    refused(
        &["edge", "--config", "/nonexistent/edge.yaml"],
        &["/nonexistent/edge.yaml", "help:"],
    )
}

fn edge_yaml(folder: &Path, address: &str, spool: &Path) -> String {
    format!(
        "hostname: mail.example.com\nspool: {}\ndomains: [example.com]\ndelivery: {{ maildir: {}/mail }}\nlisteners:\n  - {{ name: mx, address: '{address}' }}\n",
        spool.display(),
        folder.display()
    )
}

#[test]
fn port_in_use_names_listener_and_address() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let path = config(
        folder.path(),
        &edge_yaml(folder.path(), &address, &folder.path().join("spool")),
    )?;
    refused(
        &["edge", "--config", &path.display().to_string()],
        &["mx", &address, "help:"],
    )
}

#[test]
fn unwritable_spool_names_the_folder() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Root may write anywhere, so the folder is one that nobody can make: below a file.
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder")?;
    let spool = file.join("spool");
    std::fs::create_dir(folder.path().join("mail"))?;
    let path = config(
        folder.path(),
        &edge_yaml(folder.path(), "127.0.0.1:0", &spool),
    )?;
    refused(
        &["edge", "--config", &path.display().to_string()],
        &[&spool.display().to_string()],
    )
}

#[test]
fn a_maildir_that_is_not_there_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = config(
        folder.path(),
        &edge_yaml(folder.path(), "127.0.0.1:0", &folder.path().join("spool")),
    )?;
    refused(
        &["edge", "--config", &path.display().to_string()],
        &["delivery.maildir", "/mail", "help:"],
    )
}

#[test]
fn two_edges_cannot_share_a_spool() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("mail"))?;
    let path = config(
        folder.path(),
        &edge_yaml(folder.path(), "127.0.0.1:0", &folder.path().join("spool")),
    )?;
    let path = path.display().to_string();
    let _first = opes(["edge", "--config", &path])?;
    refused(&["edge", "--config", &path], &["spool"])
}

/// A file system of its own, small and real. Unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(octets: &str) -> Result<Self> {
        let disk = Self(tempfile::tempdir()?);
        let size = format!("size={octets}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(disk.0.path())
            .status()?;
        ensure!(
            mounted.success(),
            "cannot mount a tmpfs: this test needs root"
        );
        Ok(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A mount that stays is removed with the machine; nothing else depends on it.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_452_and_what_was_accepted_is_delivered() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::mount("256m")?;
    std::fs::create_dir(folder.path().join("mail"))?;
    // A next hop that nobody answers at: everything that is accepted stays in the spool.
    let text = edge_yaml(folder.path(), "127.0.0.1:0", &disk.0.path().join("spool"));
    let closed = text.replace(
        &format!("maildir: {}/mail", folder.path().display()),
        "nextHop: '127.0.0.1:1'",
    );
    let path = config(folder.path(), &closed)?.display().to_string();
    let edge = opes(["edge", "--config", &path])?;
    let mut dialog = Dialog::open(edge.address("mx"), false).await?;
    let mut accepted = 0;
    let refusal = loop {
        let name = format!("message-{accepted}");
        let reply = dialog
            .message(
                "steve@example.org",
                &["paul@example.com"],
                &sample(&name, 2 << 20),
            )
            .await?;
        if !reply.starts_with("250") {
            break reply;
        }
        accepted += 1;
        ensure!(accepted < 200, "400 MiB fitted into 256");
    };
    ensure!(refusal.starts_with("452 4.3.1"), "{refusal}");
    ensure!(accepted > 0, "not even one message was accepted");
    // The session lives on, and so does the edge.
    ensure!(dialog.command("NOOP").await?.starts_with("250"));
    drop(edge);
    let path = config(folder.path(), &text)?.display().to_string();
    let _edge = opes(["edge", "--config", &path])?;
    let mailbox = folder.path().join("mail/example.com/paul/new");
    eventually("everything that was accepted, delivered", || {
        opes_e2e::postfix::files(&mailbox).len() >= accepted
    })
    .await;
    ensure!(opes_e2e::postfix::files(&mailbox).len() == accepted);
    Ok(())
}
