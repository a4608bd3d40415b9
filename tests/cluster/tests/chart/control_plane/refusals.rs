//! What helm must not accept, and what it says.

use anyhow::Result;
use serde_json::Value;

use crate::helm::{HELMS, chart, command, file, render};
use crate::versions::minor;

/// Every place that can be written to, with a key that nobody knows in it.
fn with_stranger(values: &Value, path: &mut Vec<String>, found: &mut Vec<(String, String)>) {
    let Some(map) = values.as_object() else {
        return;
    };
    let mut wrong = serde_json::json!({ "noSuchKey": 1 });
    for key in path.iter().rev() {
        wrong = serde_json::json!({ key: wrong });
    }
    found.push((path.join("."), wrong.to_string()));
    for (key, value) in map {
        path.push(key.clone());
        with_stranger(value, path, found);
        path.pop();
    }
}

/// Maps with keys of other people's.
const OPEN: [&str; 12] = [
    "annotations",
    "labels",
    "Labels",
    "Annotations",
    "affinity",
    "nodeSelector",
    "behavior",
    "requests",
    "limits",
    "digests",
    "commonLabels",
    "dashboards.labels",
];

#[test]
fn a_key_that_nobody_knows_is_refused_everywhere() -> Result<()> {
    let values: Value = serde_saphyr::from_str(&file("values.yaml")?)?;
    let mut strangers = Vec::new();
    with_stranger(&values, &mut Vec::new(), &mut strangers);
    strangers.retain(|(path, _)| !OPEN.iter().any(|it| path.ends_with(it)));
    assert!(strangers.len() > 50, "{} places only", strangers.len());
    for (path, values) in &strangers {
        let said = render("helm", &[values])?;
        let said = said.expect_err(&format!("`{path}` takes any key"));
        assert!(said.contains("noSuchKey"), "{path}: {said}");
    }
    // The other library, for a few of them: each call costs.
    for (path, values) in strangers.iter().step_by(9) {
        let said = render("helm3", &[values])?;
        assert!(said.is_err_and(|said| said.contains("noSuchKey")), "{path}");
    }
    Ok(())
}

#[test]
fn a_value_that_makes_no_sense_is_refused_with_its_key() -> Result<()> {
    for (values, key) in [
        ("edge: { mode: both }", "mode"),
        ("edge: { replicas: many }", "replicas"),
        ("edge: { domains: ['@example.com'] }", "domains"),
        ("edge: { relayNetworks: [everybody] }", "relayNetworks"),
        (
            "edge: { delivery: { nextHop: mail.example.com } }",
            "nextHop",
        ),
        ("edge: { service: { type: HostPort } }", "type"),
        ("edge: { listeners: { smtp: { port: 70000 } } }", "port"),
        (
            "edge: { listeners: { smtp: { options: { sizeMax: big } } } }",
            "sizeMax",
        ),
        ("edge: { drainSeconds: 0 }", "drainSeconds"),
        ("edge: { decisionTimeout: 4 minutes }", "decisionTimeout"),
        ("edge: { image: { digest: latest } }", "digest"),
        ("image: { pullPolicy: Sometimes }", "pullPolicy"),
        ("operator: { watch: { namespaces: [Mail] } }", "namespaces"),
        ("certificates: { issuer: helm }", "issuer"),
        ("global: { listenAddress: localhost }", "listenAddress"),
        ("fullnameOverride: Mail_Filter", "fullnameOverride"),
        ("test: { to: nobody }", "to"),
    ] {
        for helm in HELMS {
            let said = render(helm, &[values])?.expect_err(values);
            assert!(said.contains(key), "{helm}: {values}: {said}");
        }
    }
    Ok(())
}

#[test]
fn what_cannot_work_together_is_refused_with_the_remedy() -> Result<()> {
    for (values, remedy) in [
        (
            "edge: { listeners: { submission: { enabled: true } } }",
            "needs edge.tls.secretName and edge.users.secretName",
        ),
        (
            "edge: { listeners: { smtp: { enabled: false } } }",
            "none is enabled",
        ),
        (
            "edge: { mode: spool, autoscaling: { enabled: true } }",
            "set edge.replicas",
        ),
        (
            "edge: { mode: spool, spool: { drainOrdinals: [1] } }",
            "name ordinals from edge.replicas on",
        ),
        (
            "certificates: { issuer: certManager }",
            "needs certificates.certManager.issuerRef.name",
        ),
    ] {
        for helm in HELMS {
            let said = render(helm, &[values])?.expect_err(values);
            assert!(said.contains(remedy), "{helm}: {values}: {said}");
        }
    }
    Ok(())
}

#[test]
fn a_kubernetes_that_is_too_old_is_refused_and_the_oldest_supported_is_not() -> Result<()> {
    let oldest = minor("oldest")?;
    let minor: u32 = oldest.rsplit('.').next().unwrap_or_default().parse()?;
    for helm in HELMS {
        let template = |version: &str| -> Result<(bool, String)> {
            let mut command = command(helm)?;
            command.args(["template", "opes"]).arg(chart());
            let output = command.args(["--kube-version", version]).output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok((output.status.success(), said))
        };
        let (taken, said) = template(&format!("{oldest}.0"))?;
        assert!(taken, "{helm}: {said}");
        // As some clouds call theirs.
        let (taken, said) = template(&format!("{oldest}.4-gke.100"))?;
        assert!(taken, "{helm}: {said}");
        let (taken, said) = template(&format!("1.{}.9", minor - 1))?;
        assert!(!taken && said.contains("kubeVersion"), "{helm}: {said}");
    }
    Ok(())
}
