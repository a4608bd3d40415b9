//! The alerts as Prometheus' own tools judge them: `promtool check rules`, and `promtool test rules` with the cases in `alerts/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::cases::MONITORING;
use crate::helm::{HELMS, named, objects, rendered, root};

const CASES: &str = "tests/cluster/tests/chart/alerts";
/// As the files of cases name it.
const RULES: &str = "rules.yaml";

fn promtool(arguments: &[&str], folder: &Path) -> Result<String> {
    let mut command: Command = opes_cluster::programs::system("/usr/bin/promtool", "prometheus")?;
    let output = command.args(arguments).current_dir(folder).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status.success(), "promtool {arguments:?}: {text}");
    Ok(text)
}

/// The rules of a rendering.
fn rules(helm: &str) -> Result<Value> {
    let objects = objects(&rendered(helm, &[MONITORING])?)?;
    Ok(named(&objects, "PrometheusRule", "opes")?["spec"].clone())
}

/// All alerts, each a rule.
fn alerts(rules: &Value) -> Vec<&Value> {
    let groups = rules["groups"].as_array().into_iter().flatten();
    groups
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
        .collect()
}

/// Files of cases by name.
fn cases() -> Result<Vec<(String, Value)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(CASES))? {
        let path = entry?.path();
        let name = path.file_name().context("no name")?.to_string_lossy();
        let mut documents = objects(&fs::read_to_string(&path)?)?;
        let document = documents
            .pop()
            .with_context(|| format!("{name} is empty"))?;
        files.push((name.into_owned(), document));
    }
    ensure!(!files.is_empty(), "no cases");
    Ok(files)
}

/// Each question of each case: at this time, is this alert there?
fn questions(cases: &mut Value) -> impl Iterator<Item = &mut Value> {
    let tests = cases["tests"].as_array_mut().into_iter().flatten();
    tests.flat_map(|it| it["alert_rule_test"].as_array_mut().into_iter().flatten())
}

/// Gives each alert that a question expects the annotations of its rule, with its labels put in.
fn annotate(question: &mut Value, rules: &Value) -> Result<()> {
    let name = question["alertname"].clone();
    let rule = alerts(rules).into_iter().find(|rule| rule["alert"] == name);
    let rule = rule.with_context(|| format!("cases for {name}, which is no alert"))?;
    for expected in question["exp_alerts"].as_array_mut().into_iter().flatten() {
        let mut annotations = Map::new();
        for (key, text) in rule["annotations"].as_object().context("annotations")? {
            let mut text = text.as_str().context("an annotation")?.to_owned();
            for (label, value) in expected["exp_labels"].as_object().context("exp_labels")? {
                let template = format!("{{{{ $labels.{label} }}}}");
                text = text.replace(&template, value.as_str().context("a label")?);
            }
            ensure!(!text.contains("{{"), "{name} has no label for: {text}");
            annotations.insert(key.clone(), text.into());
        }
        expected["exp_annotations"] = annotations.into();
    }
    Ok(())
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules() -> Result<()> {
    for helm in HELMS {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join(RULES), rules(helm)?.to_string())?;
        let said = promtool(&["check", "rules", "--lint-fatal", RULES], folder.path())?;
        let count = alerts(&rules(helm)?).len();
        ensure!(said.contains(&format!("{count} rules found")), "{said}");
    }
    let folder = tempfile::tempdir()?;
    let broken = json!({"groups": [{"name": "x", "rules": [{"alert": "X", "expr": "sum(up"}]}]});
    fs::write(folder.path().join(RULES), broken.to_string())?;
    ensure!(promtool(&["check", "rules", RULES], folder.path()).is_err());
    Ok(())
}

#[test]
fn every_alert_fires_when_it_should_and_not_otherwise() -> Result<()> {
    let rules = rules("helm")?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join(RULES), rules.to_string())?;
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for (name, mut cases) in cases()? {
        for question in questions(&mut cases) {
            annotate(question, &rules)?;
            let alert = question["alertname"].as_str().context("alertname")?;
            let expected = question["exp_alerts"].as_array();
            let fires = expected.is_some_and(|alerts| !alerts.is_empty());
            let of = if fires { &mut firing } else { &mut quiet };
            of.insert(alert.to_owned());
        }
        fs::write(folder.path().join(&name), cases.to_string())?;
        promtool(&["test", "rules", &name], folder.path())?;
    }
    let all = alerts(&rules)
        .into_iter()
        .map(|rule| rule["alert"].as_str());
    let all: BTreeSet<String> = all.flatten().map(str::to_owned).collect();
    assert_eq!(firing, all, "alerts with a case in which they fire");
    assert_eq!(quiet, all, "alerts with a case in which they are quiet");
    Ok(())
}
