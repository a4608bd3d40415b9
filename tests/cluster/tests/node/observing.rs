//! What an installation's own Prometheus and Grafana see, by the monitors, rules and dashboards that the chart makes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use opes_cluster::Prometheus;
use opes_cluster::prometheus::{grafana, promql};
use serde_json::Value;

use super::life_cycle;
use super::world::{NAMESPACE, World};

/// Of the PodMonitor, as the Prometheus Operator calls it.
const POOLS_JOB: &str = "opes/opes-pools";

/// Checklist 39: it is started, and finds operators and edges; the alerts know them by these jobs.
pub(crate) async fn a_prometheus_finds_every_pod_by_the_monitors(world: &World<'_>) -> Result<()> {
    let objects = life_cycle::what_watches(world)?;
    world.watch(Prometheus::start(world.node, &objects).await?)?;
    let targets = every_pod_is_up(world).await?;
    for job in ["opes-operator", "opes-edge-admin"] {
        let of_job = targets.iter().filter(|(of, _)| of == job).count();
        ensure!(of_job == 2, "{of_job} of {job}: {targets:?}");
    }
    Ok(())
}

/// Checklist 39: after load, scaling and rollouts each target is up, each query of each dashboard has data, each alert asks for series
/// that are there, and none is pending or fires.
pub(crate) async fn every_query_returns_data_and_no_alert_fires_after_load(
    world: &World<'_>,
) -> Result<()> {
    let targets = every_pod_is_up(world).await?;
    ensure!(
        targets.iter().any(|(job, _)| job == POOLS_JOB),
        "no pool: {targets:?}"
    );
    let objects = life_cycle::what_watches(world)?;
    every_query_returns_data(world.prometheus()?, &objects)?;
    every_alert_can_be_judged(world.prometheus()?, &objects)?;
    world
        .eventually("no alert", |world| {
            let alerts = world.prometheus()?.alerts()?;
            ensure!(alerts.is_empty(), "{alerts:?}");
            Ok(Some(()))
        })
        .await
}

/// Waits until this alert fires.
pub(crate) async fn fires(world: &World<'_>, alert: &str) -> Result<()> {
    world
        .eventually(&format!("{alert} fires"), |world| {
            let alerts = world.prometheus()?.alerts()?;
            let fires = |it: &&Value| it["labels"]["alertname"] == alert && it["state"] == "firing";
            Ok(alerts.iter().find(fires).map(|_| ()))
        })
        .await
}

/// Waits until this alert neither fires nor is pending.
pub(crate) async fn is_over(world: &World<'_>, alert: &str) -> Result<()> {
    world
        .eventually(&format!("{alert} is over"), |world| {
            let alerts = world.prometheus()?.alerts()?;
            let is_there = alerts.iter().any(|it| it["labels"]["alertname"] == alert);
            Ok((!is_there).then_some(()))
        })
        .await
}

/// Waits until the targets that are up are the pods that serve metrics, no more and no fewer, under the right labels. Job and pod of each.
async fn every_pod_is_up(world: &World<'_>) -> Result<BTreeSet<(String, String)>> {
    world
        .eventually("every pod is a target, and up", |world| {
            let (pods, up) = (serving_pods(world)?, world.prometheus()?.query("up")?);
            let mut targets = BTreeSet::new();
            for series in &up {
                let labels = &series["metric"];
                ensure!(series["value"][1] == "1", "down: {labels}");
                well_labelled(labels)?;
                targets.insert((text(&labels["job"])?, text(&labels["pod"])?));
            }
            ensure!(up.len() == targets.len(), "a target is there twice: {up:?}");
            ensure!(targets == pods, "targets {targets:?}, pods {pods:?}");
            Ok(Some(targets))
        })
        .await
}

/// What alerts, dashboards and people go by.
fn well_labelled(labels: &Value) -> Result<()> {
    ensure!(labels["namespace"] == NAMESPACE, "{labels}");
    ensure!(labels["endpoint"] == "admin", "{labels}");
    ensure!(labels["container"].is_string(), "{labels}");
    let in_pool = labels["job"] == POOLS_JOB;
    ensure!(
        in_pool == labels["opes_dev_callout_service"].is_string(),
        "{labels}"
    );
    ensure!(
        in_pool || labels["service"] == labels["job"],
        "jobs are called after services: {labels}"
    );
    Ok(())
}

/// Job and name of each pod with a port `admin`.
fn serving_pods(world: &World<'_>) -> Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    let pods = world.get(&["pods"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = containers.flat_map(|it| it["ports"].as_array().into_iter().flatten());
        if !ports.any(|port| port["name"] == "admin") {
            continue;
        }
        let component = &pod["metadata"]["labels"]["app.kubernetes.io/component"];
        let job = match component.as_str() {
            Some("operator") => "opes-operator",
            Some("edge") => "opes-edge-admin",
            Some("callout-service") => POOLS_JOB,
            other => anyhow::bail!("a pod with metrics that nobody collects: {other:?}"),
        };
        found.insert((job.to_owned(), text(&pod["metadata"]["name"])?));
    }
    Ok(found)
}

/// As Grafana asks: all the time since the start, and something to draw in it.
fn every_query_returns_data(prometheus: &Prometheus, objects: &[Value]) -> Result<()> {
    let (mut asked, mut empty) = (0, Vec::new());
    let maps = objects.iter().filter(|it| it["kind"] == "ConfigMap");
    for map in maps.filter(|it| it["metadata"]["labels"]["grafana_dashboard"] == "1") {
        for (name, dashboard) in map["data"].as_object().into_iter().flatten() {
            let dashboard = dashboard.as_str().context("a dashboard")?;
            for query in grafana::queries(&serde_json::from_str(dashboard)?, prometheus)? {
                asked += 1;
                let series = prometheus.history(&query.expression, grafana::STEP)?;
                if !series.iter().any(has_a_figure) {
                    empty.push(format!("{name}: {}: {}", query.title, query.expression));
                }
            }
        }
    }
    ensure!(asked > 20, "{asked} queries");
    ensure!(empty.is_empty(), "no data:\n{}", empty.join("\n"));
    println!("{asked} queries of dashboards have data");
    Ok(())
}

/// `NaN` is none.
fn has_a_figure(series: &Value) -> bool {
    let values = series["values"].as_array().into_iter().flatten();
    let mut figures = values.filter_map(|it| it[1].as_str()?.parse::<f64>().ok());
    figures.any(f64::is_finite)
}

/// Every rule of the chart is evaluated without error, and each selector in it has found series.
fn every_alert_can_be_judged(prometheus: &Prometheus, objects: &[Value]) -> Result<()> {
    let mut wanted = BTreeSet::new();
    let mut missing = Vec::new();
    for rules in objects.iter().filter(|it| it["kind"] == "PrometheusRule") {
        let groups = rules["spec"]["groups"].as_array().into_iter().flatten();
        for rule in groups.flat_map(|it| it["rules"].as_array().into_iter().flatten()) {
            let alert = text(&rule["alert"])?;
            let selectors = promql::selectors(&text(&rule["expr"])?);
            ensure!(!selectors.is_empty(), "{alert} asks for nothing");
            for selector in selectors {
                if prometheus.series(&selector)?.is_empty() {
                    missing.push(format!("{alert}: {selector}"));
                }
            }
            wanted.insert(alert);
        }
    }
    ensure!(missing.is_empty(), "no series:\n{}", missing.join("\n"));
    let mut judged = BTreeSet::new();
    for rule in prometheus.rules()? {
        ensure!(
            rule["health"] == "ok" && rule["lastError"].as_str().is_none_or(str::is_empty),
            "{rule}"
        );
        judged.insert(text(&rule["name"])?);
    }
    ensure!(judged == wanted, "judged {judged:?} of {wanted:?}");
    println!("{} alerts can be judged", judged.len());
    Ok(())
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str().map(str::to_owned);
    text.with_context(|| format!("no text: {value}"))
}
