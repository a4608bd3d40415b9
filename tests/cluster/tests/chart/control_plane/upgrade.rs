//! Upgrades from releases of before: `tests/cluster/releases` has the archives of the last two, or of as many as there were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use opes_cluster::{Cluster, ControlPlane, DEADLINE, eventually};
use serde_json::Value;

use crate::cases::{self, Case};
use crate::helm::{NAMESPACE, RELEASE, chart};

/// Archives that are kept at most.
const KEPT: usize = 2;
const CASES: [&str; 4] = ["default", "high availability", "single namespace", "spool"];
const RULE: &str = r#"{ "apiVersion": "opes.dev/v1alpha1", "kind": "OpesRule", "metadata": { "name": "kept", "namespace": "mail" },
  "spec": { "at": ["rcptTo"], "action": { "reject": { "text": "no" } } } }"#;

fn archives() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("releases");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut archives = paths.collect::<Result<Vec<_>>>()?;
    archives.retain(|path| path.extension().is_some_and(|ext| ext == "tgz"));
    archives.sort();
    Ok(archives)
}

/// What the release has, by kind and name, and who each object is.
fn objects(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let kinds = "deploy,sts,svc,cm,sa,pdb,netpol,hpa,role,rolebinding,clusterrole,clusterrolebinding,crd,opesrule";
    let text = cluster.kubectl(&["get", kinds, "--namespace", NAMESPACE, "-o", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let items = list["items"].as_array().context("no list")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = |item: &Value| {
        let metadata = &item["metadata"];
        let name = format!("{} {}", text(&item["kind"]), text(&metadata["name"]));
        (name, text(&metadata["uid"]))
    };
    Ok(items.iter().map(object).collect())
}

fn helm(cluster: &Cluster, verb: &str, chart: &Path, more: &[&str]) -> Result<String> {
    let chart = chart.to_str().context("path")?;
    let arguments = [verb, RELEASE, chart, "--namespace", NAMESPACE];
    cluster.helm(&[&arguments[..], more].concat())
}

async fn upgrade(cluster: &Cluster, from: &Path, case: &Case) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut values = Vec::new();
    for (number, text) in case.values.iter().enumerate() {
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text)?;
        values.push(format!("--values={}", file.display()));
    }
    let mut more: Vec<&str> = values.iter().map(String::as_str).collect();
    more.push("--create-namespace");
    helm(cluster, "install", from, &more).context("install")?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=180s",
        "crd/opesrules.opes.dev",
    ])?;
    // Discovery, by which kubectl goes, is a moment behind.
    eventually("the rule is taken", DEADLINE, || async {
        cluster.kubectl_with(&["apply", "-f", "-"], RULE).map(Some)
    })
    .await?;
    let before = objects(cluster)?;
    ensure!(before.len() > 10, "{before:?}");

    // As docs/operate/kubernetes/upgrade.md says.
    helm(cluster, "upgrade", &chart(), &["--reset-then-reuse-values"]).context("upgrade")?;
    let after = objects(cluster)?;
    for (name, uid) in &before {
        if let Some(now) = after.get(name) {
            ensure!(now == uid, "{name} was made anew");
        }
    }
    ensure!(after.contains_key("OpesRule kept"), "{after:?}");

    cluster
        .helm(&["rollback", RELEASE, "--namespace", NAMESPACE])
        .context("rollback")?;
    ensure!(
        objects(cluster)? == before,
        "rolled back it is another release"
    );
    cluster.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE])?;
    cluster.kubectl(&["delete", "opesrule", "kept", "--namespace", NAMESPACE])?;
    Ok(())
}

#[tokio::test]
async fn releases_of_before_are_upgraded_and_rolled_back() -> Result<()> {
    let archives = archives()?;
    ensure!(
        (1..=KEPT).contains(&archives.len()),
        "keep the last {KEPT}: {archives:?}"
    );
    let plane = ControlPlane::start().await?;
    let cases = cases::all()?;
    for archive in &archives {
        for name in CASES {
            let case = cases.iter().find(|case| case.name == name).context(name)?;
            upgrade(&plane, archive, case)
                .await
                .with_context(|| format!("{}: {name}", archive.display()))?;
        }
    }
    Ok(())
}
