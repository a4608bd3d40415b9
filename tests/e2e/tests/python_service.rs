//! The Python example, written from the specification alone: behind a real edge, and before the conformance kit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::embedded::Embedded;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_e2e::{Daemon, eventually, opes_program};
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};

fn python_service() -> Result<Daemon> {
    let environment = std::env::var_os("OPES_PYTHON").map(PathBuf::from).context(
        "OPES_PYTHON is not set: `cargo xtask test` sets it, `cargo xtask python` prints it",
    )?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python");
    let mut command = Command::new(environment.join("bin/python"));
    command
        .arg(folder.join("subject_score.py"))
        .args(["--listen", "127.0.0.1:0"])
        .env("PYTHONPATH", environment.join("generated"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Daemon::start(command, |line| line.starts_with("listening on "))
}

fn rules(service: &Daemon) -> String {
    format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: python }}\nspec: {{ class: adapt, endpoint: 'http://{}', limits: {{ connectTimeout: 20s }} }}\n---\n\
         apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: score }}\nspec:\n  at: [content]\n  \
         callout: {{ serviceRef: {{ name: python }}, allow: [header, reject], onFailure: tempfail, parameters: {{ word: casino }} }}\n",
        service.address("on")
    )
}

async fn edge(service: &Daemon, hop: &Hop, folder: &Path) -> Result<Embedded> {
    let config = EdgeConfig {
        listeners: vec![ListenerConfig::new(
            "mx",
            "127.0.0.1:0".parse()?,
            ListenerProtocol::Smtp,
        )],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.join("spool"))
    };
    Embedded::start(config, &rules(service)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_scores_and_refuses_behind_an_edge() -> Result<()> {
    let service = python_service()?;
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(Manners::default()).await?;
    let edge = edge(&service, &hop, folder.path()).await?;
    let mut dialog = Dialog::open(edge.address("mx")?, false).await?;
    for (subject, reply) in [
        ("three cheers!!!", "250"),
        ("=?utf-8?q?caf=C3=A9!?=", "250"),
        ("Our CASINO is open", "550 5.7.1"),
        ("=?utf-8?b?Y2FzaW5v?=", "550 5.7.1"),
    ] {
        let content = format!("Subject: {subject}\r\n\r\nbody\r\n");
        let said = dialog
            .message("ann@example.org", &["bob@example.com"], content.as_bytes())
            .await?;
        ensure!(said.starts_with(reply), "{subject}: {said}");
    }
    eventually("delivered", || hop.arrivals().len() == 2).await;
    let arrived: Vec<_> = hop
        .arrivals()
        .iter()
        .map(|arrival| String::from_utf8_lossy(&arrival.content).into_owned())
        .collect();
    for score in ["X-Subject-Score: 3\r\n", "X-Subject-Score: 1\r\n"] {
        ensure!(arrived.iter().any(|m| m.contains(score)), "{arrived:#?}");
    }
    drop(edge);
    ensure!(service.terminate()?.success(), "SIGTERM is a clean end");
    Ok(())
}

#[tokio::test]
async fn it_keeps_every_rule() -> Result<()> {
    let service = python_service()?;
    let address = service.address("on").to_string();
    let output = Command::new(opes_program())
        .args(["conform", &address, "--transcript", "--patience", "20"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}");
    ensure!(said.contains("subject-score/0.1:"), "{said}");
    Ok(())
}

#[tokio::test]
async fn without_a_server_there_is_an_error_and_no_verdict() -> Result<()> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = free.local_addr()?.to_string();
    drop(free);
    let output = Command::new(opes_program())
        .args(["conform", &address, "--patience", "1"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && said.contains(&address),
        "{said}"
    );
    Ok(())
}
