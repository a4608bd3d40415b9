//! Every pod that the chart makes, over all cases: how it is confined, watched, spread, protected.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cases::{self, DIGESTS};
use crate::helm::{Pod, objects, of_kind, place, pods, rendered, selects};

/// Calls `check` for every pod of every case.
fn for_every_pod(check: impl Fn(&str, &[Value], &Pod<'_>) -> Result<()>) -> Result<()> {
    let mut seen = 0;
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        for pod in pods(&objects) {
            let place = format!("{}: {}", case.name, place(pod.owner));
            check(&place, &objects, &pod).with_context(|| place.clone())?;
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen} pods only");
    Ok(())
}

#[test]
fn every_pod_is_confined_as_restricted_demands_and_more() -> Result<()> {
    for_every_pod(|place, _, pod| {
        let security = &pod.spec["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{place}");
        for id in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(security[id], 65532, "{place}: {id}");
        }
        assert_eq!(
            security["seccompProfile"]["type"], "RuntimeDefault",
            "{place}"
        );
        for host in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert!(pod.spec.get(host).is_none(), "{place}: {host}");
        }
        let containers = pod.spec["containers"].as_array().context("containers")?;
        assert_eq!(containers.len(), 1, "{place}");
        let security = &pod.container()["securityContext"];
        assert_eq!(
            *security,
            json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "privileged": false, "readOnlyRootFilesystem": true }),
            "{place}"
        );
        let resources = &pod.container()["resources"];
        for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
            assert!(
                resources.pointer(amount).is_some(),
                "{place}: resources{amount}"
            );
        }
        for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
            let is_known = ["configMap", "secret", "emptyDir", "persistentVolumeClaim"]
                .iter()
                .any(|kind| volume.get(kind).is_some());
            assert!(is_known, "{place}: {volume}");
        }
        Ok(())
    })
}

#[test]
fn no_pod_but_the_operators_gets_a_token() -> Result<()> {
    for_every_pod(|place, objects, pod| {
        let wants = pod.component() == "operator";
        assert_eq!(pod.spec["automountServiceAccountToken"], wants, "{place}");
        for account in of_kind(objects, "ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{place}");
        }
        Ok(())
    })
}

#[test]
fn startup_live_and_ready_are_three_questions() -> Result<()> {
    for_every_pod(|place, _, pod| {
        if !pod.stays() {
            return Ok(());
        }
        let probe = |name: &str| &pod.container()[name];
        let path = |name| probe(name)["httpGet"]["path"].as_str();
        assert_eq!(path("startupProbe"), Some("/healthz"), "{place}");
        assert_eq!(path("livenessProbe"), Some("/healthz"), "{place}");
        assert_eq!(path("readinessProbe"), Some("/readyz"), "{place}");
        // Never on a port that clients, or balancers with PROXY, speak to.
        for name in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(probe(name)["httpGet"]["port"], "admin", "{place}");
        }
        let patience = |name| {
            let seconds = probe(name)["periodSeconds"].as_u64()?;
            Some(seconds * probe(name)["failureThreshold"].as_u64()?)
        };
        let (startup, live, ready) = (
            patience("startupProbe"),
            patience("livenessProbe"),
            patience("readinessProbe"),
        );
        assert!(
            startup > live && live > ready,
            "{place}: {startup:?} {live:?} {ready:?}"
        );
        Ok(())
    })
}

#[test]
fn a_pod_that_goes_has_time_for_what_runs() -> Result<()> {
    for_every_pod(|place, _, pod| {
        if !pod.stays() {
            return Ok(());
        }
        let pause = pod.container()["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
        let pause = pause.with_context(|| format!("{place}: no preStop.sleep"))?;
        let grace = pod.spec["terminationGracePeriodSeconds"]
            .as_u64()
            .context("no grace period")?;
        let drain = if pod.component() == "edge" {
            3 * 120
        } else {
            30
        };
        assert!(
            grace > pause + drain,
            "{place}: {grace} s for {pause} s and {drain} s"
        );
        Ok(())
    })
}

#[test]
fn what_stays_is_spread_protected_and_fenced() -> Result<()> {
    for_every_pod(|place, objects, pod| {
        let labels = &pod.metadata["labels"];
        let is_nothing = place.starts_with("nothing:");
        if pod.stays() {
            let budgets = of_kind(objects, "PodDisruptionBudget");
            let budgets: Vec<_> = budgets
                .into_iter()
                .filter(|it| selects(&it["spec"]["selector"], labels))
                .collect();
            assert_eq!(
                budgets.len(),
                usize::from(!is_nothing),
                "{place}: disruption budgets"
            );
            for budget in budgets {
                assert_eq!(budget["spec"]["maxUnavailable"], 1, "{place}");
                assert_eq!(
                    budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow",
                    "{place}"
                );
            }
        }
        let constraints = &pod.spec["topologySpreadConstraints"];
        assert_eq!(
            constraints.is_array(),
            pod.stays(),
            "{place}: what runs once needs no spread"
        );
        let none = Vec::new();
        let spread = constraints.as_array().unwrap_or(&none);
        let mut keys: Vec<&str> = spread
            .iter()
            .filter_map(|it| it["topologyKey"].as_str())
            .collect();
        keys.sort_unstable();
        if place.starts_with("names:") {
            assert!(!pod.stays() || keys == ["rack"], "{place}");
            assert_eq!(pod.spec["priorityClassName"], "mail", "{place}");
            assert_eq!(pod.spec["nodeSelector"]["pool"], "mail", "{place}");
            assert_eq!(pod.spec["tolerations"][0]["key"], "mail", "{place}");
            assert!(pod.spec["affinity"]["nodeAffinity"].is_object(), "{place}");
        } else if pod.stays() {
            assert_eq!(
                keys,
                ["kubernetes.io/hostname", "topology.kubernetes.io/zone"],
                "{place}"
            );
            for constraint in spread {
                assert!(
                    selects(&constraint["labelSelector"], labels),
                    "{place}: others are counted"
                );
            }
        }
        let policies = of_kind(objects, "NetworkPolicy");
        let fences: Vec<_> = policies
            .into_iter()
            .filter(|it| selects(&it["spec"]["podSelector"], labels))
            .collect();
        let is_fenced = !is_nothing && pod.component() != "test";
        assert_eq!(
            fences.len(),
            usize::from(is_fenced),
            "{place}: network policies"
        );
        for fence in fences {
            assert_eq!(
                fence["spec"]["policyTypes"],
                json!(["Ingress", "Egress"]),
                "{place}"
            );
        }
        Ok(())
    })
}

#[test]
fn volumes_and_mounts_are_pairs() -> Result<()> {
    for_every_pod(|place, _, pod| {
        let names = |list: &Value, key: &str| -> Vec<String> {
            let items = list.as_array().into_iter().flatten();
            let mut names: Vec<String> = items
                .filter_map(|it| it[key].as_str().map(str::to_owned))
                .collect();
            names.sort();
            names
        };
        let mut volumes = names(&pod.spec["volumes"], "name");
        for claim in pod.owner["spec"]["volumeClaimTemplates"]
            .as_array()
            .into_iter()
            .flatten()
        {
            volumes.extend(claim["metadata"]["name"].as_str().map(str::to_owned));
        }
        volumes.sort();
        assert_eq!(
            volumes,
            names(&pod.container()["volumeMounts"], "name"),
            "{place}"
        );
        Ok(())
    })
}

#[test]
fn mail_that_was_accepted_stays_on_its_volume() -> Result<()> {
    let mut spools = 0;
    for_every_pod(|place, _, pod| {
        let kind = pod.owner["kind"].as_str().unwrap_or_default();
        if pod.component() != "edge" {
            return Ok(());
        }
        let claims = pod.owner["spec"]["volumeClaimTemplates"].as_array();
        assert_eq!(claims.is_some(), kind == "StatefulSet", "{place}");
        if kind == "StatefulSet" {
            let policy = &pod.owner["spec"]["persistentVolumeClaimRetentionPolicy"];
            assert_eq!(
                *policy,
                json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
                "{place}"
            );
            assert_eq!(
                pod.owner["spec"]["podManagementPolicy"], "Parallel",
                "{place}"
            );
        }
        Ok(())
    })?;
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        spools += of_kind(&objects, "StatefulSet").len();
    }
    assert!(spools >= 3, "{spools}");
    Ok(())
}

#[test]
fn a_job_delivers_what_an_edge_left() -> Result<()> {
    let objects = objects(&rendered("helm", &[cases::SPOOL])?)?;
    let jobs = of_kind(&objects, "Job");
    let claims: Vec<&str> = jobs
        .iter()
        .filter_map(|job| {
            job.pointer("/spec/template/spec/volumes")?
                .as_array()?
                .iter()
                .find_map(|it| it["persistentVolumeClaim"]["claimName"].as_str())
        })
        .collect();
    assert_eq!(claims, ["spool-opes-edge-3", "spool-opes-edge-4"]);
    for job in jobs {
        let arguments = job
            .pointer("/spec/template/spec/containers/0/args")
            .context("args")?;
        assert!(arguments.to_string().contains("\"--drain\""));
    }
    Ok(())
}

#[test]
fn images_are_by_digest_and_from_one_registry() -> Result<()> {
    let objects = objects(&rendered("helm", &[DIGESTS])?)?;
    let pods = pods(&objects);
    assert_eq!(pods.len(), 4, "operator, edge, drain, test");
    for pod in &pods {
        let image = pod.container()["image"].as_str().context("image")?;
        let (name, digest) = image.split_once('@').with_context(|| image.to_owned())?;
        assert!(
            name.starts_with("registry.example.com/mail/opes-"),
            "{image}"
        );
        assert!(
            digest.starts_with("sha256:") && digest.len() == 71,
            "{image}"
        );
        assert_eq!(pod.spec["imagePullSecrets"], json!([{ "name": "pull" }]));
    }
    Ok(())
}
