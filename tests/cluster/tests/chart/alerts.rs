//! Alerts and dashboards: each alert has a page that says what to do, each query asks for metrics that exist.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::helm::{chart, file, objects, root};

/// Metrics that are not ours: Prometheus's own, and the process's.
const FOREIGN: [&str; 3] = [
    "up",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
];

/// Alerts as they stand in the chart's file: Prometheus's own templates, no Helm's, so that they can be read without helm.
fn alerts() -> Result<Vec<Value>> {
    let groups = objects(&file("alerts.yaml")?)?;
    let groups = groups
        .first()
        .and_then(|it| it["groups"].as_array())
        .context("no groups")?
        .clone();
    Ok(groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
        .collect())
}

/// Words of a PromQL expression that are metrics of ours, without the suffixes of histograms.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("opes_") || word.starts_with("process_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

fn documented() -> Result<String> {
    Ok(std::fs::read_to_string(
        root().join("docs/reference/metrics.md"),
    )?)
}

fn assert_documented(expression: &str, documents: &str, place: &str) {
    for metric in metrics(expression) {
        let is_known =
            FOREIGN.contains(&metric.as_str()) || documents.contains(&format!("`{metric}`"));
        assert!(
            is_known,
            "{place}: docs/reference/metrics.md does not know {metric}"
        );
    }
}

#[test]
fn every_alert_has_a_runbook_and_asks_for_what_exists() -> Result<()> {
    let documents = documented()?;
    let alerts = alerts()?;
    assert!(alerts.len() >= 10, "{}", alerts.len());
    let mut pages = BTreeSet::new();
    for alert in &alerts {
        let name = alert["alert"].as_str().context("a rule without a name")?;
        let page = format!("docs/operate/runbooks/{name}.md");
        let text = std::fs::read_to_string(root().join(&page)).with_context(|| page.clone())?;
        assert!(text.starts_with(&format!("# {name}\n")), "{page}");
        assert!(
            !text.contains("{{"),
            "{page}: a template of Prometheus's in a page for people"
        );
        for part in ["## Meaning", "## Look", "## Do"] {
            assert!(text.contains(part), "{page} lacks {part}");
        }
        let expression = alert["expr"].as_str().context("expr")?;
        assert_documented(expression, &documents, name);
        assert!(
            !metrics(expression).is_empty() || expression.contains("up{"),
            "{name}"
        );
        let severity = alert["labels"]["severity"].as_str();
        assert!(
            matches!(severity, Some("critical" | "warning")),
            "{name}: {severity:?}"
        );
        for text in ["summary", "description"] {
            assert!(
                alert["annotations"][text].is_string(),
                "{name} lacks {text}"
            );
        }
        assert_eq!(
            alert["annotations"]["runbook_url"],
            format!("RUNBOOKS/{name}.md"),
            "{name}"
        );
        pages.insert(format!("{name}.md"));
    }
    for entry in std::fs::read_dir(root().join("docs/operate/runbooks"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(
            name == "README.md" || pages.contains(&name),
            "{name} belongs to no alert"
        );
    }
    Ok(())
}

#[test]
fn every_dashboard_asks_for_what_exists() -> Result<()> {
    let documents = documented()?;
    let mut queries = 0;
    for entry in std::fs::read_dir(chart().join("dashboards"))? {
        let path = entry?.path();
        let name = path.display().to_string();
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        for panel in dashboard["panels"].as_array().context("no panels")? {
            let title = panel["title"].as_str().context("title")?;
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().context("expr")?;
                assert!(!metrics(expression).is_empty(), "{name}: {title}");
                assert_documented(expression, &documents, &format!("{name}: {title}"));
                queries += 1;
            }
        }
    }
    assert!(queries > 15, "{queries}");
    Ok(())
}

#[test]
fn a_metric_that_nobody_has_is_found() {
    let found = metrics(
        "sum by (service) (rate(opes_nothing_total[5m])) / opes_callout_seconds_bucket{service!=\"x\"} > process_open_fds",
    );
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(
        found,
        [
            "opes_callout_seconds",
            "opes_nothing_total",
            "process_open_fds"
        ]
    );
}
