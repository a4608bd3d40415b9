//! What the documents tell people to type: values that exist, examples that compile, alerts and pages that are there.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::helm::{chart, file, root};

/// The pages that speak of the chart.
fn pages() -> Result<Vec<(PathBuf, String)>> {
    let mut paths = vec![
        root().join("README.md"),
        chart().join("README.md"),
        chart().join("templates/NOTES.txt"),
    ];
    for folder in ["docs/operate/kubernetes", "docs/operate/runbooks"] {
        for entry in std::fs::read_dir(root().join(folder))? {
            paths.push(entry?.path());
        }
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok((path, text))
    };
    paths.into_iter().map(read).collect()
}

/// The keys after `--set`, as in `--set a.b=1,c=2` and `--set 'a.b={x}'`.
fn keys_set(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for rest in text.split("--set ").skip(1) {
        let argument = rest
            .trim_start_matches('\'')
            .split([' ', '\n', '\'', '`'])
            .next()
            .unwrap_or_default();
        let outside = argument.split('{').next().unwrap_or_default();
        keys.extend(
            outside
                .split(',')
                .filter_map(|it| it.split_once('='))
                .map(|(key, _)| key.to_owned()),
        );
    }
    keys
}

fn exists(values: &Value, key: &str) -> bool {
    let pointer = format!("/{}", key.replace('.', "/"));
    values.pointer(&pointer).is_some()
}

#[test]
fn every_value_that_a_page_sets_exists() -> Result<()> {
    let values: Value = serde_saphyr::from_str(&file("values.yaml")?)?;
    let mut seen = 0;
    for (path, text) in pages()? {
        for key in keys_set(&text) {
            assert!(exists(&values, &key), "{}: {key}", path.display());
            seen += 1;
        }
        // And those that are spoken of: `edge.listeners.smtp.port`.
        for word in text.split('`').skip(1).step_by(2) {
            let word = word.split([':', '=', ' ']).next().unwrap_or_default();
            let first = word.split_once('.').map(|it| it.0);
            let is_key = matches!(
                first,
                Some(
                    "edge"
                        | "operator"
                        | "crds"
                        | "certificates"
                        | "pools"
                        | "tenants"
                        | "monitoring"
                        | "global"
                )
            );
            let ends = |end: &str| word.rsplit_once('.').is_some_and(|it| it.1 == end);
            let is_file = ends("io") || ends("yaml") || word.contains('/') || word.contains("NAME");
            if is_key && !is_file {
                assert!(exists(&values, word), "{}: `{word}`", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "{seen}");
    Ok(())
}

#[test]
fn every_example_compiles() -> Result<()> {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("examples/kubernetes"))? {
        let path = entry?.path();
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path)?;
        let (objects, wrong) = opes_rules::parse::parse(&name, &text);
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        let table =
            opes_rules::compile(objects).map_err(|wrong| anyhow::anyhow!("{name}: {wrong:?}"))?;
        assert!(!table.rules.is_empty(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 4);
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let mut seen = 0;
    for (path, text) in pages()? {
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|it| it.split(')').next())
        {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = path.parent().context("no folder")?;
            let found = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            let text = std::fs::read_to_string(&found)
                .with_context(|| format!("{}: {target}", path.display()))?;
            assert!(
                anchor.is_empty() || has_heading(&text, anchor),
                "{}: {target}",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
    Ok(())
}

/// Whether a heading has this anchor, as web pages of repositories make them.
fn has_heading(text: &str, anchor: &str) -> bool {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept: String = words
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .collect();
            kept.replace(' ', "-") == anchor
        })
}

#[test]
fn a_key_that_does_not_exist_is_found() {
    assert_eq!(
        keys_set("x --set a.b=1,c=2 y --set 'd.e={f,g}' \\\n --set h=`x`"),
        ["a.b", "c", "d.e", "h"]
    );
    assert!(!exists(
        &serde_json::json!({ "edge": { "mode": 1 } }),
        "edge.modus"
    ));
    assert!(has_heading("## A node is lost\n", "a-node-is-lost"));
}
