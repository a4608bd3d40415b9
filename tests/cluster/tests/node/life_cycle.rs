//! Install, test, upgrade, uninstall.

use anyhow::{Result, ensure};
use opes_cluster::programs;
use serde_json::Value;

use super::world::{self, NAMESPACE, NODE_PORT, World};

/// As in docs/operate/kubernetes/install.md, with what a node without registry and balancer needs.
fn values(world: &World<'_>) -> Vec<String> {
    let hop = world.hop.address;
    [
        "global.imageRegistry=registry.example.com/opes".to_owned(),
        "image.pullPolicy=Never".into(),
        "edge.hostname=mail.example.com".into(),
        "edge.domains={example.com}".into(),
        format!("edge.delivery.nextHop={hop}"),
        "edge.service.type=NodePort".into(),
        format!("edge.listeners.smtp.nodePort={NODE_PORT}"),
        // For endpoints and rules of the node to follow, on a busy machine too.
        "edge.preStopSeconds=10".into(),
        "edge.drainSeconds=20".into(),
    ]
    .to_vec()
}

/// `helm VERB` of the release, with its usual values and more.
pub(crate) fn helm(world: &World<'_>, verb: &str, more: &[&str]) -> Result<String> {
    let chart = world::chart();
    let values = values(world);
    let mut arguments = vec![
        verb,
        "opes",
        chart.to_str().unwrap_or_default(),
        "--namespace",
        NAMESPACE,
    ];
    if verb != "template" {
        arguments.extend(["--wait", "--timeout", "360s"]);
    }
    for value in &values {
        arguments.extend(["--set", value]);
    }
    arguments.extend(more);
    world.node.helm(&arguments)
}

/// The objects that watch the release, as `helm install` would make them where there is a Prometheus Operator and Grafana's sidecar.
pub(crate) fn what_watches(world: &World<'_>) -> Result<Vec<Value>> {
    let switches = ["serviceMonitor", "prometheusRule", "dashboards"]
        .map(|what| format!("monitoring.{what}.enabled=true"));
    let version = programs::version()?;
    let mut more = vec!["--kube-version", &version];
    for switch in &switches {
        more.extend(["--set", switch]);
    }
    Ok(serde_saphyr::from_multiple::<Value>(&helm(
        world, "template", &more,
    )?)?)
}

/// Checklist 32, 36: with `--wait`, where Pod Security is `restricted`; the notes say what to do next.
pub(crate) async fn helm_install_succeeds_on_an_empty_cluster_in_a_restricted_namespace(
    world: &World<'_>,
) -> Result<()> {
    world.node.kubectl(&["create", "namespace", NAMESPACE])?;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    world
        .node
        .kubectl(&["label", "namespace", NAMESPACE, label])?;
    let notes = helm(world, "install", &[])?;
    ensure!(
        notes.contains("kubectl apply") && notes.contains("helm test"),
        "notes: {notes}"
    );
    world.is_ready("deployment/opes-edge", 2).await?;
    world.is_ready("deployment/opes-operator", 2).await?;
    for pod in world.get(&["pods"])?["items"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let token = &pod["spec"]["automountServiceAccountToken"];
        let component = &pod["metadata"]["labels"]["app.kubernetes.io/component"];
        ensure!(
            component != "edge" || token == false,
            "an edge with a token: {pod}"
        );
        ensure!(
            pod["spec"]["securityContext"]["runAsNonRoot"] == true,
            "{pod}"
        );
    }
    Ok(())
}

/// Checklist 32, 40.
pub(crate) async fn helm_test_sends_a_mail_through_the_pipeline(world: &World<'_>) -> Result<()> {
    let before = world.hop.arrivals().len();
    let output = world.node.helm(&[
        "test",
        "opes",
        "--namespace",
        NAMESPACE,
        "--timeout",
        "300s",
    ])?;
    ensure!(output.contains("Succeeded"), "{output}");
    ensure!(
        world.hop.arrivals().len() == before + 1,
        "the mail of the test did not arrive"
    );
    Ok(())
}

/// Checklist 34, 35: values change what they should and nothing else; rules and pools go on.
pub(crate) async fn helm_upgrade_changes_what_it_should(world: &World<'_>) -> Result<()> {
    let rules = world.kubectl(&[
        "get",
        "opesrules",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ])?;
    let pool = world.get(&["deployment/opes-security-filter"])?["metadata"]["uid"].clone();
    helm(world, "upgrade", &["--set", "edge.replicas=3"])?;
    world.is_ready("deployment/opes-edge", 3).await?;
    ensure!(
        world.kubectl(&[
            "get",
            "opesrules",
            "-o",
            "jsonpath={.items[*].metadata.uid}"
        ])? == rules
    );
    ensure!(world.get(&["deployment/opes-security-filter"])?["metadata"]["uid"] == pool);
    world.mail(&[]).await?;
    let wrong = helm(world, "upgrade", &["--set", "edge.replica=3"]);
    let message = wrong
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    ensure!(
        message.contains("replica"),
        "a misspelt value was taken, or not named: {message}"
    );
    Ok(())
}

/// Checklist 22, 34.
pub(crate) async fn helm_uninstall_keeps_the_rules_and_a_new_install_adopts_them(
    world: &World<'_>,
) -> Result<()> {
    let rules = world.kubectl(&[
        "get",
        "opesrules",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ])?;
    ensure!(!rules.is_empty(), "no rules to keep");
    world
        .node
        .helm(&["uninstall", "opes", "--namespace", NAMESPACE, "--wait"])?;
    let kept = world.kubectl(&[
        "get",
        "opesrules",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ])?;
    ensure!(kept == rules, "kept {kept} of {rules}");
    world
        .eventually("the APIService is collected", |world| {
            let named = world.node.kubectl(&["get", "apiservices", "-o", "name"])?;
            Ok((!named.contains("external.metrics")).then_some(()))
        })
        .await?;
    helm(world, "install", &[])?;
    world.wait_for("condition=Programmed", "opesrule/scan-content")?;
    let again = world.kubectl(&[
        "get",
        "opesrules",
        "-o",
        "jsonpath={.items[*].metadata.uid}",
    ])?;
    ensure!(again == rules, "adopted {again}, there were {rules}");
    world.mail(&[]).await?;
    Ok(())
}

/// Checklist 22, 34: kinds, rules, pools and the namespace go, and nothing waits for an operator.
pub(crate) async fn helm_uninstall_leaves_nothing_when_told_so(world: &World<'_>) -> Result<()> {
    helm(world, "upgrade", &["--set", "crds.keep=false"])?;
    world
        .node
        .helm(&["uninstall", "opes", "--namespace", NAMESPACE, "--wait"])?;
    world
        .eventually("the kinds are gone", |world| {
            let kinds = world.node.kubectl(&["get", "crds", "-o", "name"])?;
            Ok((!kinds.contains("opes.dev")).then_some(()))
        })
        .await?;
    world
        .eventually("the pools are gone", |world| {
            Ok(world
                .kubectl(&["get", "deployments", "-o", "name"])?
                .trim()
                .is_empty()
                .then_some(()))
        })
        .await?;
    world
        .node
        .kubectl(&["delete", "namespace", NAMESPACE, "--timeout=360s"])?;
    let left = world.node.kubectl(&[
        "get",
        "clusterroles,clusterrolebindings,apiservices",
        "-o",
        "name",
    ])?;
    ensure!(!left.contains("opes"), "left: {left}");
    Ok(())
}
