//! The life of a release on a real API server: install, upgrade with changed CRDs, uninstall, install again.

use std::path::Path;

use anyhow::{Context as _, Result};
use opes_cluster::{Cluster, ControlPlane, DEADLINE, eventually};
use serde_json::Value;

use crate::helm::{NAMESPACE, RELEASE, chart};

const RULE: &str = r#"{ "apiVersion": "opes.dev/v1alpha1", "kind": "OpesRule", "metadata": { "name": "kept", "namespace": "mail" },
  "spec": { "at": ["rcptTo"], "action": { "reject": { "text": "no" } } } }"#;

/// A copy of the chart, to change something in.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn helm(cluster: &Cluster, verb: &[&str], chart: &Path, more: &[&str]) -> Result<String> {
    let chart = chart.to_str().context("path")?;
    let arguments = [
        verb,
        &[
            RELEASE,
            chart,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
        ],
        more,
    ]
    .concat();
    cluster.helm(&arguments)
}

fn described(cluster: &Cluster) -> Result<String> {
    let path = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.description}";
    cluster.kubectl(&["get", "crd", "opesrules.opes.dev", "-o", path])
}

#[tokio::test]
async fn crds_are_upgraded_and_rules_outlive_the_release() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let notes = helm(&plane, &["install"], &chart(), &[])?;
    assert!(
        notes.contains("helm upgrade opes") && notes.contains("helm test opes"),
        "{notes}"
    );
    assert!(notes.contains("NO MAIL IS TAKEN YET"), "{notes}");
    plane.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=180s",
        "crd/opesrules.opes.dev",
        "crd/calloutservices.opes.dev",
    ])?;
    // Discovery, by which kubectl goes, is a moment behind.
    eventually("the rule is taken", DEADLINE, || async {
        plane.kubectl_with(&["apply", "-f", "-"], RULE).map(Some)
    })
    .await?;

    let folder = tempfile::tempdir()?;
    let newer = folder.path().join("opes");
    copy(&chart(), &newer)?;
    let file = newer.join("crds-src/opesrules.yaml");
    let mut crd: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] =
        "The next version.".into();
    std::fs::write(&file, crd.to_string())?;
    assert_ne!(described(&plane)?, "The next version.");
    helm(
        &plane,
        &["upgrade"],
        &newer,
        &["--set", "edge.domains={example.com}"],
    )?;
    assert_eq!(described(&plane)?, "The next version.");

    plane.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE])?;
    plane.kubectl(&["get", "opesrule", "kept", "--namespace", NAMESPACE])?;
    let left = plane.kubectl(&[
        "get",
        "deploy,sts,svc,cm,sa,pdb,netpol,clusterrole,clusterrolebinding",
        "--all-namespaces",
        "-l",
        "app.kubernetes.io/instance=opes",
        "-o",
        "name",
    ])?;
    assert_eq!(
        left, "",
        "only the definitions, and what people wrote, stay"
    );

    let notes = helm(
        &plane,
        &["install"],
        &chart(),
        &[
            "--set",
            "edge.domains={example.com},edge.delivery.nextHop=mailstore.example.net:25",
        ],
    )?;
    assert!(notes.contains("kubectl apply"), "{notes}");
    plane.kubectl(&["get", "opesrule", "kept", "--namespace", NAMESPACE])?;
    assert_ne!(described(&plane)?, "The next version.");
    Ok(())
}
