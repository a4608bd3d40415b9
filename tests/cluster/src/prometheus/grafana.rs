//! What Grafana makes of a dashboard's queries: its variables are filled in, those of the dashboard and those of its own.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{INTERVAL, Prometheus};

/// A query of a panel, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Of the panel.
    pub title: String,
    /// Without variables.
    pub expression: String,
}

/// Between two points of a graph.
pub const STEP: Duration = Duration::from_secs(5);

/// All queries of a dashboard. Variables are asked for at `prometheus`, and get their first value.
pub fn queries(dashboard: &Value, prometheus: &Prometheus) -> Result<Vec<Query>> {
    let mut variables = own();
    for variable in dashboard["templating"]["list"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let name = variable["name"].as_str().context("a variable's name")?;
        match variable["type"].as_str() {
            // The only one here, and in no expression.
            Some("datasource") => {}
            Some("query") => {
                let query = variable["query"].as_str().context("a variable's query")?;
                variables.push((name.to_owned(), value(query, prometheus)?));
            }
            other => bail!("variable {name}: type {other:?}"),
        }
    }
    // `$namespace` is not `$name` with something behind it.
    variables.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut queries = Vec::new();
    collect(&dashboard["panels"], &variables, &mut queries)?;
    Ok(queries)
}

/// `$__interval`, and `$__rate_interval`: the step and a scrape, but four scrapes at least.
fn own() -> Vec<(String, String)> {
    let rate = (STEP + INTERVAL).max(INTERVAL * 4);
    [("__rate_interval", rate), ("__interval", STEP)]
        .map(|(name, time)| (name.to_owned(), format!("{}s", time.as_secs())))
        .into()
}

/// The first value of `label_values(METRIC, LABEL)`.
fn value(query: &str, prometheus: &Prometheus) -> Result<String> {
    let inside = query
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    let (metric, label) = inside
        .and_then(|inside| inside.rsplit_once(','))
        .with_context(|| format!("variable: {query}"))?;
    let values = prometheus.label_values(metric.trim(), label.trim())?;
    let first = values.into_iter().next();
    first.with_context(|| format!("{query} has no value"))
}

/// Rows that are folded hold panels of their own.
fn collect(panels: &Value, variables: &[(String, String)], to: &mut Vec<Query>) -> Result<()> {
    for panel in panels.as_array().into_iter().flatten() {
        let title = panel["title"].as_str().context("a panel's title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut expression = target["expr"].as_str().context("expr")?.to_owned();
            for (name, value) in variables {
                for written in [format!("${{{name}}}"), format!("${name}")] {
                    expression = expression.replace(&written, value);
                }
            }
            ensure!(!expression.contains('$'), "{title}: {expression}");
            to.push(Query {
                title: title.to_owned(),
                expression,
            });
        }
        collect(&panel["panels"], variables, to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_filled_in_and_none_is_left() -> Result<()> {
        let panels = json!([
            {"title": "row", "panels": [{"title": "in it", "targets": [{"expr": "rate(a{n=\"$name\"}[$__rate_interval])"}]}]},
        ]);
        let mut variables = own();
        let mut found = Vec::new();
        assert!(collect(&panels, &variables, &mut found).is_err());
        variables.push(("name".into(), "mail".into()));
        collect(&panels, &variables, &mut found)?;
        let expected = Query {
            title: "in it".into(),
            expression: "rate(a{n=\"mail\"}[6s])".into(),
        };
        assert_eq!(found, [expected]);
        Ok(())
    }
}
