//! What the operator may do, and what it does with that.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use opes_cluster::{ControlPlane, DEADLINE};
use opes_operator::kinds::Kind;

use super::{ACCEPTS, POOL, RULE, until};
use crate::bed::{self, Bed};

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one story, told in order")]
async fn a_single_namespace_needs_roles_only_and_no_more_than_the_page_says() -> Result<()> {
    let bed = Bed::new(ControlPlane::shared().await?).await?;
    let other = bed.plane.namespace("other").await?;
    let may = |namespace: &str| -> Result<BTreeSet<(String, String)>> {
        let user = format!("--as={}", bed.user());
        let text = bed.plane.kubectl(&[
            "auth",
            "can-i",
            "--list",
            "--no-headers",
            "-n",
            namespace,
            &user,
            "--as-group=system:authenticated",
        ])?;
        let rows = text.lines().filter_map(|line| {
            let resource = line
                .split_whitespace()
                .next()
                .filter(|_| !line.starts_with(' '))?
                .to_owned();
            let verbs = line
                .rsplit_once('[')
                .map(|(_, verbs)| verbs.trim_end_matches(']').to_owned())?;
            Some((resource, verbs))
        });
        Ok(rows
            .flat_map(|(resource, verbs)| {
                verbs
                    .split_whitespace()
                    .map(|verb| (resource.clone(), verb.to_owned()))
                    .collect::<Vec<_>>()
            })
            .collect())
    };
    let everybody = may(&other)?;
    let mut page = BTreeSet::new();
    for block in ["watched", "own"] {
        for rule in bed::rules(block)?.as_array().context("no list")? {
            let words = |field: &str| {
                rule[field]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|word| word.as_str().map(str::to_owned))
                    .collect::<Vec<_>>()
            };
            let group = words("apiGroups").pop().unwrap_or_default();
            for resource in words("resources") {
                let (plural, below) = resource
                    .split_once('/')
                    .map_or((resource.as_str(), String::new()), |(plural, below)| {
                        (plural, format!("/{below}"))
                    });
                let full = if group.is_empty() {
                    resource.clone()
                } else {
                    format!("{plural}.{group}{below}")
                };
                page.extend(words("verbs").into_iter().map(|verb| (full.clone(), verb)));
            }
        }
    }
    let own: BTreeSet<_> = may(&bed.namespace)?
        .difference(&everybody)
        .cloned()
        .collect();
    assert_eq!(
        own, page,
        "in its namespace it may do what the page says, and elsewhere nothing"
    );
    let operator = bed.start("a").await?;
    bed.rule("r", ACCEPTS).await?;
    bed.service("scan", POOL).await?;
    bed.expect(RULE, "r", "Accepted", "True", "Accepted")
        .await?;
    until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |_| true).await?;
    let figures = operator.metrics().await?;
    let mut forbidden = figures
        .lines()
        .filter(|line| line.contains("reason=\"Forbidden\""))
        .peekable();
    assert!(forbidden.peek().is_some(), "{figures}");
    assert!(forbidden.all(|line| line.ends_with(" 0")), "{figures}");
    operator.stop().await
}
