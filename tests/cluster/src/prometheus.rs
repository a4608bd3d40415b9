//! A real Prometheus inside a node, set up as the Prometheus Operator would from the monitors and rules of a chart, with its clock turned
//! fast: it looks every second where the monitors say every so many, and the windows and waiting times of the rules shrink as much.
//!
//! Debian's Prometheus has no discovery for Kubernetes; [`discovery`] hands it the same labels in a file, and Prometheus does the rest.
//! Ends with the node.

pub mod discovery;
pub mod grafana;
pub mod monitors;
pub mod promql;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::output;
use crate::{DEADLINE, Node, eventually, programs};

use self::discovery::Files;

/// In the node's own network, where nobody else listens.
const ADDRESS: &str = "127.0.0.1:9099";

/// Between two looks at a target, and two evaluations of the rules.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait for an answer, in seconds.
const ANSWER_SECONDS: &str = "20";

/// See the module.
pub struct Prometheus {
    api: SocketAddr,
    started: SystemTime,
    finding: JoinHandle<()>,
}

// === impl Prometheus ===

impl Prometheus {
    /// Starts one that watches what `objects` (ServiceMonitor, PodMonitor, PrometheusRule; others are left alone) say, and waits until it
    /// answers.
    pub async fn start(node: &Node, objects: &[Value]) -> Result<Self> {
        let folder = node.folder().join("prometheus");
        fs::create_dir_all(&folder)?;
        let files = Files::new(&folder);
        let speed = monitors::interval(objects)?.as_secs() / INTERVAL.as_secs();
        fs::write(
            folder.join("rules.json"),
            faster_rules(objects, speed)?.to_string(),
        )?;
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [folder.join("rules.json")],
            "scrape_configs": monitors::scrape_configs(objects, &files)?,
        });
        fs::write(folder.join("prometheus.json"), config.to_string())?;
        let finding = discovery::keep(node.client()?, files).await?;
        node.spawn("prometheus", &command(&folder)?)?;
        let this = Self {
            api: node.inside.relay(ADDRESS.parse()?)?,
            started: SystemTime::now(),
            finding,
        };
        eventually("Prometheus is ready", DEADLINE, || async {
            this.fetch("/-/ready", &[]).map(Some)
        })
        .await?;
        Ok(this)
    }

    /// The series that an expression gives now: `metric` and `value` of each.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let data = self.data("/api/v1/query", &[("query", expression)])?;
        list(&data["result"]).with_context(|| expression.to_owned())
    }

    /// The series that an expression has given since the start, `step` apart: `metric` and `values` of each.
    pub fn history(&self, expression: &str, step: Duration) -> Result<Vec<Value>> {
        let seconds = |time: SystemTime| -> Result<String> {
            Ok(time.duration_since(UNIX_EPOCH)?.as_secs().to_string())
        };
        let (start, end) = (seconds(self.started)?, seconds(SystemTime::now())?);
        let step = step.as_secs().to_string();
        let parameters = [
            ("query", expression),
            ("start", &start),
            ("end", &end),
            ("step", &step),
        ];
        let data = self.data("/api/v1/query_range", &parameters)?;
        list(&data["result"]).with_context(|| expression.to_owned())
    }

    /// Labels of the series that a selector has found since the start.
    pub fn series(&self, selector: &str) -> Result<Vec<Value>> {
        list(&self.data("/api/v1/series", &[("match[]", selector)])?)
    }

    /// Values of a label of a metric.
    pub fn label_values(&self, metric: &str, label: &str) -> Result<Vec<String>> {
        let path = format!("/api/v1/label/{label}/values");
        let values = list(&self.data(&path, &[("match[]", metric)])?)?;
        Ok(values
            .iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect())
    }

    /// Alerts that are pending or fire.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        list(&self.data("/api/v1/alerts", &[])?["alerts"])
    }

    /// Rules with what came of their last evaluation.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let groups = list(&self.data("/api/v1/rules", &[])?["groups"])?;
        let rules = groups.iter().map(|group| list(&group["rules"]));
        Ok(rules.collect::<Result<Vec<_>>>()?.concat())
    }

    fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let text = self.fetch(path, parameters)?;
        let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(answer["status"] == "success", "{parameters:?}: {text}");
        Ok(answer["data"].clone())
    }

    fn fetch(&self, path: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let mut curl = programs::system("/usr/bin/curl", "curl")?;
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--get"])
            .args(["--max-time", ANSWER_SECONDS])
            .arg(format!("http://{}{path}", self.api));
        if path.starts_with("/-/") {
            curl.arg("--fail");
        }
        for (name, value) in parameters {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        output(curl, "")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.finding.abort();
    }
}

fn command(folder: &Path) -> Result<Command> {
    let mut command = programs::system("/usr/bin/prometheus", "prometheus")?;
    command
        .arg(format!(
            "--config.file={}",
            folder.join("prometheus.json").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ))
        .arg(format!("--web.listen-address={ADDRESS}"))
        .arg("--log.level=warn");
    Ok(command)
}

/// The groups of all rules, `speed` times as fast.
fn faster_rules(objects: &[Value], speed: u64) -> Result<Value> {
    let mut groups = Vec::new();
    for object in of_kind(objects, "PrometheusRule") {
        groups.extend(list(&object["spec"]["groups"])?);
    }
    ensure!(!groups.is_empty(), "no PrometheusRule");
    for group in &mut groups {
        let rules = group["rules"].as_array_mut().context("a group of rules")?;
        for rule in rules {
            for field in ["expr", "for"] {
                let text = rule[field].as_str().unwrap_or("0s");
                rule[field] = promql::faster(text, speed)?.into();
            }
        }
    }
    Ok(json!({ "groups": groups }))
}

/// The objects of a kind.
fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn list(value: &Value) -> Result<Vec<Value>> {
    let list = value.as_array().cloned();
    list.with_context(|| format!("no list: {value}"))
}
