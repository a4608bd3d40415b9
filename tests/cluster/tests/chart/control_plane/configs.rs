//! What the chart writes into ConfigMaps is what the programs read.

use std::path::Path;

use anyhow::{Context as _, Result};
use opes_edge::config::ListenerProtocol::{Lmtp, Smtp, Submission};
use opes_edge::config::{Acceptance, EdgeConfig};
use opes_operator::config::Config;
use serde_json::Value;

use crate::cases::{self, CERT_MANAGER, DIGESTS, NAMES, SPOOL};
use crate::helm::{named, objects, of_kind, pods, rendered};

fn text(objects: &[Value], key: &str) -> Result<String> {
    let mut maps = of_kind(objects, "ConfigMap").into_iter();
    let found = maps.find_map(|map| map["data"].get(key)?.as_str());
    Ok(found.with_context(|| format!("no {key}"))?.to_owned())
}

fn edge(values: &[&str]) -> Result<EdgeConfig> {
    let text = text(&objects(&rendered("helm", values)?)?, "edge.yaml")?;
    Ok(EdgeConfig::parse(&text, Path::new("edge.yaml"))?)
}

fn operator(values: &[&str]) -> Result<Config> {
    let text = text(&objects(&rendered("helm", values)?)?, "operator.yaml")?;
    Ok(Config::parse("operator.yaml", &text)?)
}

#[test]
fn both_programs_accept_what_is_rendered() -> Result<()> {
    for case in cases::all()? {
        edge(&case.values()).with_context(|| case.name)?;
        operator(&case.values()).with_context(|| case.name)?;
    }
    Ok(())
}

#[test]
fn by_default_nobody_is_relayed_for_and_nothing_is_kept() -> Result<()> {
    let config = edge(&[])?;
    assert!(config.domains.is_empty() && config.relay_networks.is_empty());
    assert!(!config.spool_durable);
    assert!(
        config
            .listeners
            .iter()
            .all(|it| it.delivery == Acceptance::CutThrough)
    );
    // A name that never resolves (RFC 6761 §6.4): 451, not a stranger's server.
    assert_eq!(
        config.delivery.next_hop.as_deref(),
        Some("no-next-hop.invalid:25")
    );
    Ok(())
}

#[test]
fn a_spool_is_durable_and_every_listener_uses_it() -> Result<()> {
    let config = edge(&[SPOOL])?;
    assert!(config.spool_durable);
    assert!(
        config
            .listeners
            .iter()
            .all(|it| it.delivery == Acceptance::Spool)
    );
    let protocols: Vec<_> = config.listeners.iter().map(|it| it.protocol).collect();
    assert_eq!(protocols, [Smtp, Submission, Submission, Lmtp]);
    assert!(
        config.listeners[2]
            .tls
            .as_ref()
            .is_some_and(|tls| tls.implicit)
    );
    assert_eq!(config.listeners[0].size_max, 20 << 20);
    assert_eq!(
        config.quarantine.s3.as_ref().map(|it| it.bucket.as_str()),
        Some("quarantine")
    );
    Ok(())
}

#[test]
fn the_grace_period_is_longer_than_all_of_a_drain() -> Result<()> {
    for case in cases::all()? {
        let objects = objects(&rendered("helm", &case.values())?)?;
        let config = edge(&case.values())?;
        // Sessions, deliveries, observers.
        let drain = config.drain_delay.as_secs() + 3 * config.drain_timeout.as_secs();
        for pod in pods(&objects)
            .iter()
            .filter(|pod| pod.component() == "edge")
        {
            let pause = pod.container()["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
            let grace = pod.spec["terminationGracePeriodSeconds"].as_u64();
            assert!(grace > pause.map(|pause| pause + drain), "{}", case.name);
        }
    }
    Ok(())
}

#[test]
fn ports_and_files_are_where_the_pod_has_them() -> Result<()> {
    for values in [SPOOL, CERT_MANAGER, NAMES] {
        let objects = objects(&rendered("helm", &[values])?)?;
        let config = edge(&[values])?;
        let pods = pods(&objects);
        let pod = pods
            .iter()
            .find(|pod| pod.component() == "edge")
            .context("no edge")?;
        let ports = pod.container()["ports"].as_array().context("no ports")?;
        let is_port = |port: u16| ports.iter().any(|it| it["containerPort"] == port);
        assert!(config.listeners.iter().all(|it| is_port(it.address.port())));
        assert!(config.admin.is_some_and(|it| is_port(it.port())));
        let mounts = pod.container()["volumeMounts"]
            .as_array()
            .context("no mounts")?;
        let is_mounted = |path: &Path| {
            let folder = path.parent().and_then(Path::to_str);
            mounts.iter().any(|it| it["mountPath"].as_str() == folder)
        };
        let callouts = config.callouts.as_ref().context("no callouts")?;
        let mut files = vec![&callouts.certificate, &callouts.key, &callouts.ca];
        for listener in &config.listeners {
            files.extend(listener.users.as_ref());
            files.extend(
                listener
                    .tls
                    .iter()
                    .flat_map(|tls| [&tls.certificate, &tls.key]),
            );
        }
        let quarantine = &config.quarantine;
        files.extend(
            quarantine
                .postgres
                .iter()
                .filter_map(|it| it.password_file.as_ref()),
        );
        files.extend(
            quarantine
                .s3
                .iter()
                .flat_map(|it| [&it.access_key_id_file, &it.secret_access_key_file])
                .flatten(),
        );
        files.extend(quarantine.api.iter().map(|it| &it.token_file));
        for file in files {
            assert!(is_mounted(file), "{}", file.display());
        }
        assert!(
            mounts
                .iter()
                .any(|it| it["mountPath"].as_str() == config.spool.to_str())
        );
    }
    Ok(())
}

#[test]
fn the_operator_makes_pools_from_the_same_registry() -> Result<()> {
    let config = operator(&[DIGESTS])?;
    assert_eq!(
        config.image("spam-filter"),
        "registry.example.com/mail/opes-spam-filter:0.1.0"
    );
    assert!(
        config
            .image("security-filter")
            .starts_with("registry.example.com/mail/opes-security-filter@sha256:c")
    );
    assert_eq!(config.images.pull_secrets, ["pull"]);
    Ok(())
}

#[test]
fn operator_and_objects_agree_on_names() -> Result<()> {
    for (values, prefix) in [("{}", "opes"), (NAMES, "mailfilter")] {
        let objects = objects(&rendered("helm", &[values])?)?;
        let config = operator(&[values])?;
        assert_eq!(config.service, format!("{prefix}-operator"));
        named(&objects, "Service", &config.service)?;
        let pods = pods(&objects);
        let edge = pods
            .iter()
            .find(|pod| pod.component() == "edge")
            .context("no edge")?;
        let volumes = edge.spec["volumes"].as_array().context("volumes")?;
        assert!(
            volumes
                .iter()
                .any(|it| it["secret"]["secretName"] == config.edge.secret.as_str())
        );
        for (label, value) in &config.edge.pod_labels {
            assert_eq!(
                edge.metadata["labels"][label],
                value.as_str(),
                "edges are let in by label"
            );
        }
    }
    Ok(())
}
