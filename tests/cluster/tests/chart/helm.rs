//! Running helm, and reading what it renders.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::versions;

/// The release of all renderings.
pub(crate) const RELEASE: &str = "opes";
/// Its namespace.
pub(crate) const NAMESPACE: &str = "mail";

/// Helm 4, and Helm 3 in a version that checks schemas with another library.
pub(crate) const HELMS: [&str; 2] = ["helm", "helm3"];

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The chart's folder.
pub(crate) fn chart() -> PathBuf {
    root().join("charts/opes")
}

/// A file of the chart.
pub(crate) fn file(name: &str) -> Result<String> {
    let path = chart().join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// All objects of a text with YAML documents, without empty ones.
pub(crate) fn objects(yaml: &str) -> Result<Vec<Value>> {
    let objects = serde_saphyr::from_multiple::<Value>(yaml)?;
    Ok(objects.into_iter().filter(|it| !it.is_null()).collect())
}

/// One rendering: the text, or what helm says against it.
pub(crate) fn render(helm: &str, values: &[&str]) -> Result<Result<String, String>> {
    let mut command = command(helm)?;
    command
        .args(["template", RELEASE])
        .arg(chart())
        .args(["--namespace", NAMESPACE])
        .args(["--kube-version", &versions::minor("")?]);
    let mut files = Vec::new();
    for text in values {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        file.write_all(text.as_bytes())?;
        command.arg("--values").arg(file.path());
        files.push(file);
    }
    let output = command.output()?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8(output.stdout)?));
    }
    Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A rendering that must succeed. Each is made once: many tests look at the same.
pub(crate) fn rendered(helm: &str, values: &[&str]) -> Result<String> {
    static MADE: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let key = format!("{helm}\n{}", values.join("\n---\n"));
    let made = || MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(text) = made().get(&key) {
        return Ok(text.clone());
    }
    let text = rendered_anew(helm, values)?;
    made().insert(key, text.clone());
    Ok(text)
}

/// As [`rendered`], by a helm that runs now.
pub(crate) fn rendered_anew(helm: &str, values: &[&str]) -> Result<String> {
    render(helm, values)?.map_err(|error| anyhow::anyhow!("{helm}: {error}"))
}

/// Helm without the user's settings.
pub(crate) fn command(helm: &str) -> Result<Command> {
    let mut command = opes_cluster::programs::kubernetes(helm)?;
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HELM_") {
            command.env_remove(name);
        }
    }
    command.env("HELM_CACHE_HOME", std::env::temp_dir());
    command.env("HELM_CONFIG_HOME", "/nonexistent");
    Ok(command)
}

/// `helm lint`, strictly.
pub(crate) fn lint(helm: &str, values: &[&str]) -> Result<()> {
    let mut command = command(helm)?;
    command
        .arg("lint")
        .arg(chart())
        .args(["--strict", "--kube-version", &versions::minor("")?]);
    let mut files = Vec::new();
    for text in values {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        file.write_all(text.as_bytes())?;
        command.arg("--values").arg(file.path());
        files.push(file);
    }
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{helm} lint: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// `kind namespace/name`, for messages and for looking for doubles.
pub(crate) fn place(object: &Value) -> String {
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
    };
    format!(
        "{} {}/{}",
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}

/// The objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|it| it["kind"] == kind).collect()
}

/// The one object with this kind and name.
pub(crate) fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let mut found = objects
        .iter()
        .filter(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    let first = found.next().with_context(|| format!("no {kind} {name}"))?;
    ensure!(found.next().is_none(), "{kind} {name} is there twice");
    Ok(first)
}

/// A pod as some object makes it.
pub(crate) struct Pod<'a> {
    /// Who makes it.
    pub(crate) owner: &'a Value,
    /// Its `metadata`.
    pub(crate) metadata: &'a Value,
    /// Its `spec`.
    pub(crate) spec: &'a Value,
}

impl Pod<'_> {
    /// Whether it runs until it is told to go.
    pub(crate) fn stays(&self) -> bool {
        matches!(
            self.owner["kind"].as_str(),
            Some("Deployment" | "StatefulSet")
        )
    }

    /// `operator`, `edge`, `drain`, `test`.
    pub(crate) fn component(&self) -> &str {
        let component = &self.metadata["labels"]["app.kubernetes.io/component"];
        component.as_str().unwrap_or("")
    }

    /// Its only container.
    pub(crate) fn container(&self) -> &Value {
        &self.spec["containers"][0]
    }
}

/// Every pod of a rendering.
pub(crate) fn pods(objects: &[Value]) -> Vec<Pod<'_>> {
    objects
        .iter()
        .filter_map(|owner| match owner["kind"].as_str()? {
            "Pod" => Some(Pod {
                owner,
                metadata: &owner["metadata"],
                spec: &owner["spec"],
            }),
            "Deployment" | "StatefulSet" | "Job" => {
                let template = &owner["spec"]["template"];
                Some(Pod {
                    owner,
                    metadata: &template["metadata"],
                    spec: &template["spec"],
                })
            }
            _ => None,
        })
        .collect()
}

/// Whether a label selector takes these labels: `matchLabels`, and `In` of `matchExpressions`.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object();
    let equal = equal.is_none_or(|wanted| wanted.iter().all(|(key, value)| &labels[key] == value));
    let among = selector["matchExpressions"].as_array();
    equal
        && among.is_none_or(|all| {
            all.iter().all(|it| {
                let key = it["key"].as_str().unwrap_or_default();
                let values = it["values"].as_array();
                it["operator"] == "In" && values.is_some_and(|values| values.contains(&labels[key]))
            })
        })
}
