//! `charts/opes/README.md`: the tables behind its marker are made from the comments of `values.yaml`. `OPES_UPDATE=1` writes them anew.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use crate::helm::{chart, file};

/// What follows it is made.
const MARKER: &str = "<!-- Below this line: made from values.yaml by tests/cluster (`OPES_UPDATE=1 cargo test -p opes-cluster --test chart readme`). -->\n";

/// A key of `values.yaml`.
struct Entry {
    path: String,
    /// None: a map with keys of its own.
    default: Option<String>,
    meaning: String,
}

/// All keys, in order. Each leaf must have a comment of its own above it.
fn entries(values: &str) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    let mut comment = String::new();
    for (index, line) in values.lines().enumerate() {
        let text = line.trim_start();
        if let Some(words) = text.strip_prefix('#') {
            let gap = if comment.is_empty() { "" } else { " " };
            write!(comment, "{gap}{}", words.trim())?;
            continue;
        }
        if text.is_empty() {
            comment.clear();
            continue;
        }
        let place = format!("values.yaml:{}", index + 1);
        let (key, value) = text
            .split_once(':')
            .with_context(|| format!("{place}: no key"))?;
        let indent = line.len() - text.len();
        ensure!(
            indent % 2 == 0 && indent / 2 <= path.len(),
            "{place}: indent by two"
        );
        path.truncate(indent / 2);
        path.push(key);
        let default = Some(value.trim()).filter(|it| !it.is_empty());
        ensure!(
            default.is_none() || !comment.is_empty(),
            "{place}: {} has no comment",
            path.join(".")
        );
        entries.push(Entry {
            path: path.join("."),
            default: default.map(str::to_owned),
            meaning: std::mem::take(&mut comment),
        });
    }
    Ok(entries)
}

/// The tables, one for each key at the top that has keys of its own.
fn tables(values: &str) -> Result<String> {
    const HEAD: &str = "\n| key | default | meaning |\n| --- | --- | --- |\n";
    let mut out = String::new();
    let entries = entries(values)?;
    let (mut top, nested): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|it| !it.path.contains('.'));
    out.push_str("\n## Values\n");
    out.push_str(HEAD);
    for entry in top.iter().filter(|it| it.default.is_some()) {
        row(&mut out, entry)?;
    }
    top.retain(|it| it.default.is_none());
    for section in top {
        write!(out, "\n### `{}`\n{}\n{HEAD}", section.path, section.meaning)?;
        let prefix = format!("{}.", section.path);
        for entry in nested.iter().filter(|it| it.path.starts_with(&prefix)) {
            if entry.default.is_some() || !entry.meaning.is_empty() {
                row(&mut out, entry)?;
            }
        }
    }
    Ok(out)
}

fn row(out: &mut String, entry: &Entry) -> Result<()> {
    let default = entry
        .default
        .as_ref()
        .map_or("–".to_owned(), |it| format!("`{it}`"));
    let meaning = entry.meaning.replace('|', "\\|");
    writeln!(
        out,
        "| `{}` | {} | {meaning} |",
        entry.path,
        default.replace('|', "\\|")
    )?;
    Ok(())
}

#[test]
fn the_readme_is_up_to_date() -> Result<()> {
    let readme = file("README.md")?;
    let (head, _) = readme
        .split_once(MARKER)
        .context("README.md has lost its marker")?;
    let wanted = format!("{head}{MARKER}{}", tables(&file("values.yaml")?)?);
    if std::env::var_os("OPES_UPDATE").is_some() {
        std::fs::write(chart().join("README.md"), wanted)?;
        return Ok(());
    }
    assert!(
        readme == wanted,
        "charts/opes/README.md is not what values.yaml makes of it: run this test with OPES_UPDATE=1"
    );
    Ok(())
}

#[test]
fn a_key_without_a_comment_is_found() {
    let of = |text: &str| {
        entries(text)
            .map(|it| it.len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        of("# What it is.\nkey: 1\n\n# A map.\nmap:\n  # Inner.\n  key: {}\n"),
        Ok(3)
    );
    assert_eq!(
        of("# Of another.\n\nkey: 1\n"),
        Err("values.yaml:3: key has no comment".to_owned())
    );
    assert_eq!(
        of("map:\n  key: 1\n"),
        Err("values.yaml:2: map.key has no comment".to_owned())
    );
}
