//! What may not be in the tree: other crypto providers than aws-lc-rs, and licences that are not on the list in `deny.toml`.
//!
//! `cargo deny check` says the same and more where it is installed; this check needs nothing but cargo.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::step;

/// Packages that must not be linked into any program, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("ring", "one crypto provider: aws-lc-rs"),
    ("openssl-sys", "one crypto provider: aws-lc-rs"),
    (
        "rsa",
        "RUSTSEC-2023-0071: timing side channel in private-key operations",
    ),
    ("serde_yaml", "archived; serde-saphyr is what kube uses"),
];

/// Fails with every finding.
pub(crate) fn check(target: &Path) -> Result<()> {
    println!("── licences and bans");
    let output = step::cargo_command(target)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .output()
        .context("cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let allowed = allowed_licences()?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let linked = linked(&metadata)?;
    let mut findings = Vec::new();
    for package in packages
        .iter()
        .filter(|package| linked.contains(&package["id"].as_str().unwrap_or_default()))
    {
        let name = package["name"].as_str().unwrap_or_default();
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            findings.push(format!("{name} is banned: {reason}"));
        }
        let licence = package["license"].as_str().unwrap_or("none stated");
        if !acceptable(licence, &allowed) {
            findings.push(format!(
                "{name}: licence `{licence}` is not on the list in deny.toml"
            ));
        }
    }
    ensure!(findings.is_empty(), "{}", findings.join("\n"));
    println!("── licences and bans: ok, {} packages", linked.len());
    Ok(())
}

/// Packages that the resolved graph reaches (all kinds of dependencies, this platform).
fn linked(metadata: &Value) -> Result<Vec<&str>> {
    let nodes = metadata["resolve"]["nodes"]
        .as_array()
        .context("no graph")?;
    Ok(nodes
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect())
}

fn allowed_licences() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(step::root().join("deny.toml")).context("deny.toml")?;
    let list = text
        .split_once("allow = [")
        .context("deny.toml: no `allow = [`")?
        .1;
    let list = list
        .split_once(']')
        .context("deny.toml: `allow` does not end")?
        .0;
    let lines = list
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let items = lines
        .flat_map(|line| line.split(','))
        .map(|item| item.trim().trim_matches('"').to_owned());
    Ok(items.filter(|item| !item.is_empty()).collect())
}

/// An SPDX expression of names, AND, OR and brackets: one alternative of each OR must be allowed, every part of each AND.
fn acceptable(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // `A AND (B OR C)`: split by AND first is right for the expressions that crates use.
    expression.split(" AND ").all(|all| {
        all.split(" OR ")
            .any(|one| allowed.iter().any(|name| name == one.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::acceptable;

    #[test]
    fn expressions() {
        let allowed = ["MIT".to_owned(), "ISC".to_owned()];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-2.0/MIT",
            "ISC AND (MIT OR Apache-2.0)",
        ] {
            assert!(acceptable(good, &allowed), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "none stated"] {
            assert!(!acceptable(bad, &allowed), "{bad}");
        }
    }
}
