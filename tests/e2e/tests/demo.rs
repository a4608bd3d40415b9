//! `opes dev --demo`: what a newcomer sees in the first minute.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::opes_program;

/// The lines of sample `number`, without its figures in milliseconds.
fn section<'a>(table: &'a str, title: &str) -> Result<&'a str> {
    let start = table
        .find(title)
        .with_context(|| format!("no `{title}` in\n{table}"))?;
    let rest = table.get(start..).unwrap_or_default();
    Ok(rest.split("\n\n").next().unwrap_or(rest))
}

/// Runs the demonstration to its end, in its default place below the folder `at`; the table.
fn demo(at: &Path, arguments: &[&str]) -> Result<String> {
    let free = "127.0.0.1:0";
    let output = Command::new(opes_program())
        .args([
            "dev",
            "--demo",
            "--exit",
            "--smtp",
            free,
            "--submission",
            free,
            "--lmtp",
            free,
            "--admin",
            free,
            "--links",
            free,
        ])
        .args(arguments)
        .current_dir(at)
        .output()?;
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{table}\n{said}");
    ensure!(!said.contains("unable to open database"), "{said}");
    ensure!(
        at.join(".opes/spool/quarantine-store/index.sqlite")
            .is_file()
    );
    Ok(table)
}

#[test]
fn a_dozen_samples_and_what_became_of_them() -> Result<()> {
    let state = tempfile::tempdir()?;
    let table = demo(state.path(), &[])?;
    for (title, expected) in [
        (
            "dialog of RFC 4496",
            vec!["250 2.6.0", "example.com/paul: \"Test\""],
        ),
        ("clean newsletter", vec!["250 2.6.0", "\"November\""]),
        (
            "executable attachment",
            vec!["security-filter", "edit", "250 2.6.0"],
        ),
        (
            "executable that says it is a photo",
            vec!["edit", "250 2.6.0"],
        ),
        ("executable inside a forwarded", vec!["edit", "250 2.6.0"]),
        ("EICAR", vec!["security-filter", "got"]),
        ("GTUBE", vec!["250 2.6.0"]),
        (
            "denied sender",
            vec!["access-control", "reject 550", "550 5.7.1"],
        ),
        (
            "two recipients",
            vec!["reject 550", "250 2.6.0", "example.com/paul"],
        ),
        (
            "new address",
            vec!["rerouting", "command rewritten", "fr.example.org/joe"],
        ),
        ("over-long address", vec!["501 5.1.3"]),
        ("smuggling attempt", vec!["reply            5"]),
        (
            "8-bit text",
            vec!["250 2.6.0", "\"lunch\"", "secure-mail", "signed"],
        ),
        (
            "unwelcome words",
            vec!["content-block", "reject 550", "550 5.7.1"],
        ),
        (
            "likely spam",
            vec!["spam-filter", "[SPAM] your account", "FROM_NAME_ADDRESS"],
        ),
        ("two From fields", vec!["normalizer", "edit", "250 2.6.0"]),
        (
            "large attachment",
            vec!["attachment-links", "link: http://127.0.0.1"],
        ),
        (
            "What real engines add",
            vec!["milter-bridge", "rspamd", "clamd"],
        ),
        ("reporting has counted", vec!["opes report"]),
    ] {
        let section = section(&table, title)?;
        for word in expected {
            ensure!(section.contains(word), "no `{word}` in\n{section}");
        }
    }
    ensure!(!section(&table, "executable attachment")?.contains("attached: invoice.pdf.exe"));
    Ok(())
}

#[test]
fn the_example_rules_need_nothing_else() -> Result<()> {
    let state = tempfile::tempdir()?;
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/rules");
    let table = demo(state.path(), &["-f", rules])?;
    for title in ["clean newsletter", "8-bit text"] {
        let section = section(&table, title)?;
        ensure!(section.contains("reply            250 2.6.0"), "{section}");
    }
    let refused = section(&table, "denied sender")?;
    ensure!(refused.contains("reply            550 5.7.1"), "{refused}");
    Ok(())
}
