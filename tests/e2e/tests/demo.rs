//! `opes dev --demo`: what a newcomer sees in the first minute.

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

#[test]
fn a_dozen_samples_and_what_became_of_them() -> Result<()> {
    let state = tempfile::tempdir()?;
    let output = Command::new(opes_program())
        .args(["dev", "--demo", "--exit", "--state"])
        .arg(state.path())
        .args([
            "--smtp",
            "127.0.0.1:0",
            "--submission",
            "127.0.0.1:0",
            "--lmtp",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ])
        .output()?;
    let table = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{table}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
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
        ("8-bit text", vec!["250 2.6.0", "\"lunch\""]),
    ] {
        let section = section(&table, title)?;
        for word in expected {
            ensure!(section.contains(word), "no `{word}` in\n{section}");
        }
    }
    ensure!(!section(&table, "executable attachment")?.contains("attached: invoice.pdf.exe"));
    Ok(())
}
