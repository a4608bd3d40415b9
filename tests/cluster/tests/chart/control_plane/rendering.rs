//! The rendering as a whole: twice the same, by both Helms the same, nothing twice, everything labelled, and the CRDs in it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cases::{self, MONITORING, NOTHING, SINGLE_NAMESPACE};
use crate::helm::{
    self, HELMS, NAMESPACE, named, objects, of_kind, place, rendered, rendered_anew,
};

/// Kinds without a namespace.
const OF_THE_CLUSTER: [&str; 3] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
];

#[test]
fn both_helms_find_nothing_to_complain_about() -> Result<()> {
    for case in cases::all()? {
        for helm in HELMS {
            helm::lint(helm, &case.values()).with_context(|| case.name)?;
        }
    }
    Ok(())
}

#[test]
fn rendered_twice_it_is_the_same_octets() -> Result<()> {
    for case in cases::all()? {
        for helm in HELMS {
            let first = rendered(helm, &case.values())?;
            assert_eq!(first, rendered_anew(helm, &case.values())?, "{}", case.name);
        }
    }
    Ok(())
}

#[test]
fn helm_3_and_4_render_the_same_objects() -> Result<()> {
    for case in cases::all()? {
        let [four, three] = HELMS.map(|helm| rendered(helm, &case.values()));
        let (mut four, mut three) = (objects(&four?)?, objects(&three?)?);
        four.sort_by_key(place);
        three.sort_by_key(place);
        assert_eq!(four, three, "{}", case.name);
    }
    Ok(())
}

#[test]
fn nothing_is_random_and_nothing_is_looked_up() -> Result<()> {
    let forbidden = [
        "lookup",
        "now",
        "date",
        "randAlphaNum",
        "randAlpha",
        "randNumeric",
        "randAscii",
        "randBytes",
        "randInt",
        "uuidv4",
        "shuffle",
        "genCA",
        "genCAWithKey",
        "genPrivateKey",
        "genSelfSignedCert",
        "genSelfSignedCertWithKey",
        "genSignedCert",
        "genSignedCertWithKey",
        "htpasswd",
        "bcrypt",
        "encryptAES",
        "env",
        "expandenv",
        "getHostByName",
        ".Release.IsInstall",
        ".Release.IsUpgrade",
        ".Release.Revision",
    ];
    for entry in walk(&helm::chart().join("templates"))? {
        let text = std::fs::read_to_string(&entry)?;
        for action in text
            .split("{{")
            .skip(1)
            .filter_map(|it| it.split("}}").next())
        {
            if action
                .trim_start_matches('-')
                .trim_start()
                .starts_with("/*")
            {
                continue;
            }
            let words = action.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
            for word in words {
                assert!(
                    !forbidden.contains(&word),
                    "{}: {{{{{action}}}}}",
                    entry.display()
                );
            }
        }
    }
    Ok(())
}

fn walk(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(walk(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn every_object_is_there_once_labelled_and_in_the_namespace_of_the_release() -> Result<()> {
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        let mut seen = BTreeSet::new();
        for object in &objects {
            let place = format!("{}: {}", case.name, place(object));
            assert!(seen.insert(place.clone()), "{place} is there twice");
            let name = object["metadata"]["name"].as_str().context("no name")?;
            assert!(
                name.len() <= 63 || object["kind"] == "CustomResourceDefinition",
                "{place}"
            );
            if name == "more" || name.ends_with("-text") {
                continue;
            }
            for label in [
                "name",
                "instance",
                "component",
                "managed-by",
                "version",
                "part-of",
            ] {
                let key = format!("app.kubernetes.io/{label}");
                assert!(
                    object["metadata"]["labels"][&key].is_string(),
                    "{place} lacks {key}"
                );
            }
            if case.name == "names" {
                assert_eq!(object["metadata"]["labels"]["team"], "mail", "{place}");
            }
            let kind = object["kind"].as_str().context("no kind")?;
            let namespace = &object["metadata"]["namespace"];
            if OF_THE_CLUSTER.contains(&kind) {
                assert!(namespace.is_null(), "{place}");
            } else if name.ends_with("-operator-mail") && *namespace == "kube-system" {
                assert_eq!(kind, "RoleBinding", "the one thing that must stand there");
            } else {
                assert_eq!(*namespace, NAMESPACE, "{place}");
            }
        }
    }
    Ok(())
}

#[test]
fn crds_are_part_of_the_release_and_stay_when_it_goes() -> Result<()> {
    let crds = |values: &[&str]| -> Result<Vec<Value>> {
        let objects = objects(&rendered("helm", values)?)?;
        Ok(of_kind(&objects, "CustomResourceDefinition")
            .into_iter()
            .cloned()
            .collect())
    };
    let kept = crds(&[])?;
    let names: Vec<&Value> = kept.iter().map(|crd| &crd["metadata"]["name"]).collect();
    assert_eq!(names, ["calloutservices.opes.dev", "opesrules.opes.dev"]);
    for crd in &kept {
        assert_eq!(
            crd["metadata"]["annotations"]["helm.sh/resource-policy"],
            "keep"
        );
        assert!(
            serde_json::to_string(crd)?.len() < 200_000,
            "{}",
            crd["metadata"]["name"]
        );
    }
    for crd in crds(&["crds: { keep: false }"])? {
        assert!(crd["metadata"]["annotations"]["helm.sh/resource-policy"].is_null());
    }
    assert!(crds(&[NOTHING])?.is_empty());
    assert!(
        !helm::chart().join("crds").exists(),
        "helm never upgrades what is in crds/"
    );
    Ok(())
}

#[test]
fn there_is_no_webhook() -> Result<()> {
    for case in cases::all()? {
        for object in objects(&rendered("helm", &case.values())?)? {
            let kind = object["kind"].as_str().context("no kind")?;
            assert!(
                !kind.contains("Webhook"),
                "{}: {}",
                case.name,
                place(&object)
            );
            let conversion = &object["spec"]["conversion"];
            assert!(
                conversion.is_null() || conversion["strategy"] == "None",
                "{}",
                place(&object)
            );
        }
    }
    Ok(())
}

#[test]
fn a_single_namespace_needs_roles_only() -> Result<()> {
    let everywhere = objects(&rendered("helm", &[])?)?;
    assert_eq!(of_kind(&everywhere, "ClusterRole").len(), 1);
    let single = objects(&rendered("helm", &[SINGLE_NAMESPACE])?)?;
    for kind in ["ClusterRole", "ClusterRoleBinding"] {
        assert!(of_kind(&single, kind).is_empty(), "{kind}");
    }
    for kind in ["Role", "RoleBinding"] {
        for object in of_kind(&single, kind) {
            assert_eq!(object["metadata"]["namespace"], NAMESPACE);
        }
    }
    let config = &named(&single, "ConfigMap", "opes-operator")?["data"]["operator.yaml"];
    let config = objects(config.as_str().context("no operator.yaml")?)?;
    assert_eq!(config[0]["metricsApi"]["enabled"], "off");
    Ok(())
}

#[test]
fn no_role_says_everything_and_secrets_are_not_read() -> Result<()> {
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        for kind in ["ClusterRole", "Role"] {
            for role in of_kind(&objects, kind) {
                for rule in role["rules"].as_array().context("no rules")? {
                    let place = format!("{}: {} {rule}", case.name, place(role));
                    assert!(!rule.to_string().contains('*'), "{place}");
                    let secrets = rule["resources"].to_string().contains("secrets");
                    let verbs = rule["verbs"].to_string();
                    let reads = ["get", "list", "watch", "delete"]
                        .iter()
                        .any(|it| verbs.contains(it));
                    let own = rule["resourceNames"].to_string().contains("-ca\"");
                    assert!(!(secrets && reads) || own, "{place}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_autoscaler_owns_its_replicas() -> Result<()> {
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        let scaled = of_kind(&objects, "HorizontalPodAutoscaler");
        assert_eq!(
            scaled.len(),
            usize::from(case.name == "high availability"),
            "{}",
            case.name
        );
        for scaler in scaled {
            let target = &scaler["spec"]["scaleTargetRef"];
            let (kind, name) = (
                target["kind"].as_str().context("kind")?,
                target["name"].as_str().context("name")?,
            );
            let target = named(&objects, kind, name)?;
            assert!(target["spec"].get("replicas").is_none(), "{}", case.name);
        }
    }
    Ok(())
}

#[test]
fn services_find_their_pods_and_ports() -> Result<()> {
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        let pods = helm::pods(&objects);
        for service in of_kind(&objects, "Service") {
            let place = format!("{}: {}", case.name, place(service));
            let selector = serde_json::json!({ "matchLabels": service["spec"]["selector"] });
            let behind: Vec<_> = pods
                .iter()
                .filter(|pod| helm::selects(&selector, &pod.metadata["labels"]))
                .collect();
            assert_eq!(behind.len(), 1, "{place}: one workload and no job or test");
            for port in service["spec"]["ports"].as_array().context("no ports")? {
                let container = behind[0].container()["ports"]
                    .as_array()
                    .context("no ports")?;
                let named = container.iter().any(|it| it["name"] == port["targetPort"]);
                assert!(named, "{place}: {port}");
            }
        }
    }
    Ok(())
}

#[test]
fn clients_keep_their_addresses_unless_somebody_says_otherwise() -> Result<()> {
    for kind in ["NodePort", "LoadBalancer"] {
        let values = format!("edge: {{ service: {{ type: {kind} }} }}");
        let objects = objects(&rendered("helm", &[&values])?)?;
        let service = named(&objects, "Service", "opes-edge")?;
        assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
    }
    Ok(())
}

#[test]
fn what_watches_is_off_and_complete_when_on() -> Result<()> {
    let kinds = ["ServiceMonitor", "PodMonitor", "PrometheusRule"];
    let objects_off = objects(&rendered("helm", &[])?)?;
    for kind in kinds {
        assert!(of_kind(&objects_off, kind).is_empty(), "{kind}");
    }
    let objects = objects(&rendered("helm", &[MONITORING])?)?;
    for kind in kinds {
        assert!(!of_kind(&objects, kind).is_empty(), "{kind}");
    }
    for monitor in of_kind(&objects, "ServiceMonitor") {
        let selector = &monitor["spec"]["selector"];
        let services = of_kind(&objects, "Service");
        let found = services
            .iter()
            .filter(|it| helm::selects(selector, &it["metadata"]["labels"]));
        assert_eq!(found.count(), 1, "{}", place(monitor));
    }
    let dashboards = named(&objects, "ConfigMap", "opes-dashboards")?;
    assert_eq!(dashboards["metadata"]["labels"]["grafana_dashboard"], "1");
    Ok(())
}
