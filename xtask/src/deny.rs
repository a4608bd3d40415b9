//! What may be linked: banned crates and licences, from `deny.toml`.
//!
//! A small check of our own, so that the gate holds where cargo-deny is not installed; with cargo-deny, that runs as well.

mod licence;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::step;

/// Normal dependencies on every platform: build scripts and tests are not shipped. `cargo metadata` would be the obvious
/// source, but it lists crates of features that nobody turns on.
const LINKED: &[&str] = &[
    "tree",
    "--workspace",
    "--locked",
    "--edges=normal",
    "--target=all",
    "--prefix=depth",
    "--format= {p} | {l}",
];

/// Applies `deny.toml` to everything that ends up in a program of ours.
pub(crate) fn check(target: &Path) -> Result<()> {
    step::timed("licences and bans", || own_check(target))?;
    let installed = step::cargo_command(target)
        .args(["deny", "--version"])
        .output();
    if installed.is_ok_and(|output| output.status.success()) {
        step::cargo(
            "cargo deny",
            target,
            &["deny", "check", "bans", "licenses", "sources"],
        )?;
    }
    Ok(())
}

fn own_check(target: &Path) -> Result<()> {
    let rules = fs::read_to_string(step::root().join("deny.toml")).context("deny.toml")?;
    let tree = step::cargo_command(target)
        .args(LINKED)
        .output()
        .context("cargo tree")?;
    ensure!(
        tree.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).context("cargo tree")?;
    let findings = findings(&Rules::parse(&rules)?, &linked(&tree));
    ensure!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(())
}

struct Rules {
    /// By name: who may depend on it all the same.
    banned: BTreeMap<String, BTreeSet<String>>,
    licences: BTreeSet<String>,
}

/// A package that is linked into something of ours.
struct Package {
    /// SPDX expression; empty = none stated.
    licence: String,
    /// Those that pull it in.
    parents: BTreeSet<String>,
}

fn findings(rules: &Rules, linked: &BTreeMap<String, Package>) -> Vec<String> {
    let mut findings = Vec::new();
    for (id, Package { licence, parents }) in linked {
        let name = id.split(' ').next().unwrap_or(id);
        if let Some(wrappers) = rules.banned.get(name) {
            findings.extend(parents.difference(wrappers).map(|parent| {
                format!("{name} is banned by deny.toml, but {parent} depends on it")
            }));
        }
        if !licence::is_allowed(licence, &rules.licences) {
            let parent = parents.first().map_or("", String::as_str);
            findings.push(format!(
                "{id} (from {parent}): licence `{licence}` is not allowed in deny.toml"
            ));
        }
    }
    findings
}

/// Reads the output of [`LINKED`]: `2 name v1.0.0 (…) | MIT`, a line per edge, the digit its depth. By name and version.
fn linked(tree: &str) -> BTreeMap<String, Package> {
    let mut linked = BTreeMap::new();
    let mut above: Vec<&str> = Vec::new();
    for line in tree.lines() {
        let Some((package, licence)) = line.split_once(" | ") else {
            continue;
        };
        let mut words = package.split_whitespace();
        let depth = words
            .next()
            .and_then(|depth| depth.parse().ok())
            .unwrap_or(0);
        let name = words.next().unwrap_or_default();
        above.truncate(depth);
        let parent = above.last().copied().unwrap_or("the workspace").to_owned();
        above.push(name);
        let version = words.next().unwrap_or_default();
        let licence = licence.trim_end_matches("(*)").trim().to_owned();
        linked
            .entry(format!("{name} {version}"))
            .or_insert_with(|| Package {
                licence,
                parents: BTreeSet::new(),
            })
            .parents
            .insert(parent);
    }
    linked
}

// === impl Rules ===

impl Rules {
    /// The `deny` list of `[bans]` and the `allow` list of `[licenses]`: all that we need of TOML.
    fn parse(text: &str) -> Result<Self> {
        let banned = lines(text, "bans", "deny")
            .filter_map(banned)
            .collect::<BTreeMap<_, _>>();
        let licences = lines(text, "licenses", "allow");
        let licences = licences
            .filter_map(first)
            .map(str::to_owned)
            .collect::<BTreeSet<_>>();
        ensure!(
            !banned.is_empty() && !licences.is_empty(),
            "deny.toml bans or allows nothing"
        );
        Ok(Self { banned, licences })
    }
}

/// An entry of `deny`: its name, and its `wrappers`, as cargo-deny has them: those that may depend on it directly.
fn banned(line: &str) -> Option<(String, BTreeSet<String>)> {
    let wrappers = line
        .split_once("wrappers = [")
        .and_then(|(_, list)| list.split_once(']'));
    let wrappers = wrappers.map_or("", |(list, _)| list).split('"');
    Some((
        first(line)?.to_owned(),
        wrappers.skip(1).step_by(2).map(str::to_owned).collect(),
    ))
}

/// The first string of a line.
fn first(line: &str) -> Option<&str> {
    line.split('#').next()?.split('"').nth(1)
}

/// The lines of `key = [ … ]` in `[section]`.
fn lines<'t>(text: &'t str, section: &str, key: &str) -> impl Iterator<Item = &'t str> {
    let header = format!("[{section}]");
    let opening = format!("{key} = [");
    text.lines()
        .map(str::trim)
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !(line.starts_with('[') && line.ends_with(']')))
        .skip_while(move |line| *line != opening)
        .skip(1)
        .take_while(|line| *line != "]")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "# x\n[bans]\nmultiple-versions = \"warn\"\ndeny = [\n  { crate = \"ring\", reason = \"one\" },\n  # why\n  \
                         { crate = \"rsa\", wrappers = [\"pgp\", \"x\"], reason = \"two\" },\n]\n\
                         [licenses]\nallow = [\n  \"MIT\", # usual\n  \"ISC\",\n]\n";

    fn found(tree: &str) -> Vec<String> {
        findings(&Rules::parse(RULES).unwrap(), &linked(tree))
    }

    #[test]
    fn banned_crates_are_found_below_others() {
        let tree = "0 opes v0.1.0 (/x) | MIT\n1 a v1.0.0 | MIT OR Apache-2.0\n2 b v1.0.0 | MIT (*)\n\
                    2 ring v0.17.0 | MIT AND ISC\n1 c v1.0.0 (proc-macro) | MIT\n";
        assert_eq!(
            found(tree),
            ["ring is banned by deny.toml, but a depends on it"]
        );
    }

    #[test]
    fn a_wrapper_may_depend_on_what_nobody_else_may() {
        let tree = "0 opes v0.1.0 | MIT\n1 pgp v1.0.0 | MIT\n2 rsa v0.9.0 | MIT\n";
        assert!(found(tree).is_empty());
        let tree = format!("{tree}1 jwt v1.0.0 | MIT\n2 rsa v0.9.0 | MIT (*)\n");
        assert_eq!(
            found(&tree),
            ["rsa is banned by deny.toml, but jwt depends on it"]
        );
    }

    #[test]
    fn licences_that_are_missing_or_not_allowed_are_found() {
        let tree = "0 opes v0.1.0 | MIT\n1 g v1.0.0 | GPL-3.0-only\n1 n v1.0.0 | \n";
        assert_eq!(
            found(tree),
            [
                "g v1.0.0 (from opes): licence `GPL-3.0-only` is not allowed in deny.toml",
                "n v1.0.0 (from opes): licence `` is not allowed in deny.toml",
            ]
        );
    }

    #[test]
    fn this_workspace_keeps_the_rules() {
        let target = std::env::temp_dir();
        own_check(&target).unwrap();
    }

    #[test]
    fn an_empty_rule_file_is_refused() {
        assert!(Rules::parse("[bans]\n[licenses]\n").is_err());
    }
}
