//! Services without a foreign engine are their own: each is killed in the middle of a message, and its rule's failure policy holds.

use anyhow::{Result, ensure};
use opes_e2e::behind::{ANN, BOB, Behind, Rule};
use opes_e2e::{Daemon, eventually, opes};

const FAILED: [(&str, &str); 2] = [("tempfail", "451"), ("accept", "250")];

fn process(folder: &std::path::Path, name: &str, config: &str) -> Result<Daemon> {
    let file = folder.join(format!("{name}.yaml"));
    std::fs::write(&file, config)?;
    let file = file.display().to_string();
    opes([
        "service",
        name,
        "--config",
        &file,
        "--listen",
        "127.0.0.1:0",
    ])
}

async fn is_killed(name: &str, config: &str, rule: Rule<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (on_failure, reply) in FAILED {
        let mut service = process(folder.path(), name, config)?;
        let rule = Rule { on_failure, ..rule };
        let target = format!("http://{}", service.address("on"));
        let behind = Behind::rules(&rule.objects("tested", &target)).await?;
        // Until then it works.
        let said = behind.send(b"Subject: casino bonus\r\n\r\nx\r\n").await?;
        let expected = if name == "content-block" {
            "550"
        } else {
            "250"
        };
        ensure!(said.starts_with(expected), "{name}: {said}");
        let before = behind.hop.arrivals().len();

        let long = format!(
            "Subject: long\r\n\r\n{}",
            "0123456789abcde\r\n".repeat(20_000)
        );
        let (first, rest) = long.split_at(long.len() / 2);
        let mut dialog = behind.dialog().await?;
        dialog.envelope(ANN, &[BOB]).await?;
        dialog.send(first.as_bytes()).await?;
        service.kill();
        dialog.send(rest.as_bytes()).await?;
        let said = dialog.command(".").await?;
        ensure!(said.starts_with(reply), "{name}, {on_failure}: {said}");
        if reply == "250" {
            let whole = || {
                let arrivals = behind.hop.arrivals();
                let mut new = arrivals.iter().skip(before);
                new.any(|arrival| arrival.content.ends_with(long.as_bytes()))
            };
            eventually("the octets of the client", whole).await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_normalizer_that_is_killed_costs_the_failure_policy() -> Result<()> {
    let rule = Rule {
        allow: "body",
        ..Rule::default()
    };
    is_killed("normalizer", "domain: mail.example.com\n", rule).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_block_that_is_killed_costs_the_failure_policy() -> Result<()> {
    let rule = Rule {
        class: "analyze",
        allow: "reject",
        ..Rule::default()
    };
    is_killed("content-block", "words: [casino bonus]\n", rule).await
}
