//! The roles: those of `docs/reference/rbac.md` and no others, and what an API server makes of them in a single namespace.

use anyhow::{Context as _, Result};
use opes_cluster::{ControlPlane, DEADLINE, eventually};
use serde_json::Value;

use crate::cases::{CERT_MANAGER, SINGLE_NAMESPACE};
use crate::helm::{NAMESPACE, RELEASE, chart, objects, of_kind, rendered, root};

/// What the chart calls things whose documented name is that of a default release in a default namespace.
const RENAMED: (&str, &str) = ("opes-operator-mail", "opes-operator");

/// The rules of a block of the page, each as text.
fn documented(block: &str) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root().join("docs/reference/rbac.md"))?;
    let marker = format!("# rbac: {block}\n");
    let rest = page.split(&marker).nth(1).with_context(|| marker.clone())?;
    let yaml = rest.split("```").next().context("an open block")?;
    let rules: Vec<Value> = serde_saphyr::from_str(yaml)?;
    Ok(rules.iter().map(Value::to_string).collect())
}

/// The rules of a role that was rendered.
fn rules(role: &Value) -> Result<Vec<String>> {
    let rules = role["rules"].as_array().context("no rules")?;
    Ok(rules
        .iter()
        .map(|rule| rule.to_string().replace(RENAMED.0, RENAMED.1))
        .collect())
}

fn assert_same(mut wanted: Vec<String>, mut found: Vec<String>, place: &str) {
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted, "{place}");
}

/// Rules about Secrets, which cert-manager makes needless.
fn is_of_secrets(rule: &str) -> bool {
    rule.contains("\"secrets\"")
}

#[test]
fn roles_are_those_of_the_page_and_no_others() -> Result<()> {
    let everywhere = objects(&rendered("helm", &[])?)?;
    let [cluster] = of_kind(&everywhere, "ClusterRole")[..] else {
        anyhow::bail!("one ClusterRole is wanted");
    };
    let metrics = documented("metricsApi")?;
    assert_same(
        [documented("watched")?, metrics].concat(),
        rules(cluster)?,
        "ClusterRole",
    );
    let [own] = of_kind(&everywhere, "Role")[..] else {
        anyhow::bail!("one Role is wanted");
    };
    assert_same(documented("own")?, rules(own)?, "Role");

    let single = objects(&rendered("helm", &[SINGLE_NAMESPACE])?)?;
    for role in of_kind(&single, "Role") {
        let is_own = role["metadata"]["name"] == "opes-operator";
        let wanted = documented(if is_own { "own" } else { "watched" })?;
        assert_same(wanted, rules(role)?, "single namespace");
    }

    let managed = objects(&rendered("helm", &[CERT_MANAGER])?)?;
    let [cluster] = of_kind(&managed, "ClusterRole")[..] else {
        anyhow::bail!("one ClusterRole is wanted");
    };
    let mut wanted = [
        documented("watched")?,
        documented("metricsApi")?,
        documented("certManager")?,
    ]
    .concat();
    wanted.retain(|rule| !is_of_secrets(rule));
    assert_same(wanted, rules(cluster)?, "certManager");
    for role in of_kind(&managed, "Role") {
        assert!(
            !rules(role)?.iter().any(|rule| is_of_secrets(rule)),
            "Secrets are cert-manager's"
        );
    }
    Ok(())
}

#[tokio::test]
async fn in_a_single_namespace_the_operator_may_do_what_is_documented_and_nothing_elsewhere()
-> Result<()> {
    let plane = ControlPlane::start().await?;
    let folder = tempfile::tempdir()?;
    let values = folder.path().join("values.yaml");
    std::fs::write(&values, SINGLE_NAMESPACE)?;
    let (values, chart) = (values.to_str().context("path")?.to_owned(), chart());
    let chart = chart.to_str().context("path")?;
    plane.helm(&[
        "install",
        RELEASE,
        chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--values",
        &values,
    ])?;
    let account = format!("--as=system:serviceaccount:{NAMESPACE}:opes-operator");
    // `can-i` exits with 1 for no.
    let may = |verb: &str, what: &str, namespace: &str| {
        let (what, part) = what.split_once('/').unwrap_or((what, ""));
        let part = format!("--subresource={part}");
        let asked = plane.kubectl(&[
            "auth",
            "can-i",
            verb,
            what,
            &part,
            "--namespace",
            namespace,
            &account,
        ]);
        asked.is_ok_and(|said| said.trim() == "yes")
    };
    let own = |verb| may(verb, "leases.coordination.k8s.io", NAMESPACE);
    // The API server goes by new roles a moment after it has taken them.
    eventually("the roles", DEADLINE, || async {
        let rules = may("list", "opesrules.opes.dev", NAMESPACE);
        Ok((rules && own("create")).then_some(()))
    })
    .await?;
    let mut asked = 0;
    for rule in documented("watched")? {
        let rule: Value = serde_json::from_str(&rule)?;
        let group = rule["apiGroups"][0].as_str().context("group")?;
        if group == "keda.sh" {
            // A kind that the server does not know cannot be asked for.
            continue;
        }
        for resource in rule["resources"].as_array().context("resources")? {
            let (name, part) = resource
                .as_str()
                .and_then(|it| it.split_once('/'))
                .unwrap_or((resource.as_str().context("resource")?, ""));
            let dot = if group.is_empty() { "" } else { "." };
            let slash = if part.is_empty() { "" } else { "/" };
            let what = format!("{name}{dot}{group}{slash}{part}");
            for verb in [
                "get", "list", "watch", "create", "patch", "update", "delete",
            ] {
                let documented = rule["verbs"]
                    .as_array()
                    .is_some_and(|verbs| verbs.iter().any(|it| it == verb));
                assert_eq!(may(verb, &what, NAMESPACE), documented, "{verb} {what}");
                assert!(!may(verb, &what, "kube-system"), "{verb} {what} elsewhere");
                asked += 1;
            }
        }
    }
    assert!(asked > 70, "{asked} questions only");
    assert!(!may("list", "secrets", NAMESPACE) && !may("create", "clusterroles", NAMESPACE));
    assert!(own("create") && !own("delete"));
    // Who reads the figures has the right by a role that every cluster has.
    let reader = plane.kubectl(&[
        "get",
        "clusterrole",
        "system:controller:horizontal-pod-autoscaler",
        "-o",
        "json",
    ])?;
    assert!(reader.contains("external.metrics.k8s.io"));
    Ok(())
}
