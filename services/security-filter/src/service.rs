//! The filter as a callout service: reads the message within bounds, asks [`crate::inspect`] and [`crate::clamd`], answers as
//! [`crate::verdict`] says, for each sub-policy.
//!
//! Owns the bound on memory: a message of more than 1 MiB needs one of a few places, and waits for it without reading, so that the
//! processor holds the rest; a message with archives needs one of a few places where they are opened. A rule with bad parameters, one
//! that shows the filter a part of the message only, or a ClamAV that does not answer fails the transaction; the rule's failure policy
//! decides.

mod answer;
mod looking;
mod read;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, Description, GroupParameters, Message, Service};
use opes_proto::smtp::ContextField;
use tokio::sync::Semaphore;

use self::answer::{allowed, answer, is_forged, strictest};
use self::read::Content;
use crate::clamd::Clamd;
use crate::config::Config;
use crate::policy::{self, Group};
use crate::verdict::{self, Decision, Unscannable};

/// Most sets of rule parameters kept compiled.
const PARAMETERS_MAX: usize = 1024;

/// The security filter.
#[derive(Debug)]
pub struct SecurityFilter {
    config: Arc<Config>,
    /// Compiled parameters of rules, by their JSON text.
    by_parameters: Mutex<HashMap<String, Arc<Config>>>,
    large: Arc<Semaphore>,
    /// Where archives are opened.
    opening: Arc<Semaphore>,
    clamd: Option<Clamd>,
}

/// What is to be done for one group of recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decided {
    decision: Decision,
    /// Fields of this name came with the message, and go.
    forged: Option<String>,
}

// === impl SecurityFilter ===

impl SecurityFilter {
    /// From `builtin.config` of the CalloutService; `null` = all defaults.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("security-filter")?;
        let settings = &config.settings;
        let places = |number: u32| anyhow::Ok(Arc::new(Semaphore::new(usize::try_from(number)?)));
        let clamd = settings.clamd.as_ref().map(Clamd::new).transpose();
        Ok(Self {
            large: places(settings.large_messages)?,
            opening: places(settings.archives.at_once)?,
            clamd: clamd.context("security-filter")?,
            config: Arc::new(config),
            by_parameters: Mutex::default(),
        })
    }

    /// The configuration for a rule with these parameters.
    fn config(&self, parameters: &GroupParameters) -> anyhow::Result<Arc<Config>> {
        if matches!(parameters.json.trim(), "" | "{}" | "null") {
            return Ok(Arc::clone(&self.config));
        }
        let mut compiled = self
            .by_parameters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = compiled.get(&parameters.json) {
            return Ok(Arc::clone(config));
        }
        let config = self.config.with_parameters(&parameters.json);
        let config = Arc::new(config.with_context(|| format!("rule {}", parameters.rule))?);
        if compiled.len() >= PARAMETERS_MAX {
            compiled.clear();
        }
        compiled.insert(parameters.json.clone(), Arc::clone(&config));
        Ok(config)
    }

    /// One for each group.
    async fn decide(
        &self,
        message: &mut Message,
        groups: &[Group],
    ) -> anyhow::Result<Vec<Decided>> {
        let allowed = allowed(message.parameters());
        let (octets, place) = match self.read(message).await? {
            Content::Whole(octets, place) => (octets, place),
            Content::TooLarge => {
                let too_large = groups.iter().map(|group| {
                    let settings = &group.config.settings;
                    let decision = verdict::unscannable(&Unscannable::TooLarge, settings, allowed)?;
                    let forged = None;
                    Ok(Decided { decision, forged })
                });
                return too_large.collect();
            }
        };
        if message.is_whole() != Some(true) {
            bail!(
                "rule {} shows a part of the message only: its callout needs wants.content: all",
                message.parameters().rule
            );
        }
        let configs = groups
            .iter()
            .map(|group| Arc::clone(&group.config))
            .collect();
        let findings = self.findings(&octets, place, configs).await?;
        let decided = groups.iter().zip(findings).map(|(group, findings)| {
            let settings = &group.config.settings;
            let forged = allowed.header && is_forged(&octets, &settings.header);
            Ok(Decided {
                decision: verdict::decide(&findings, settings, allowed)?,
                forged: forged.then(|| settings.header.clone()),
            })
        });
        decided.collect()
    }
}

impl Service for SecurityFilter {
    fn describe(&self) -> Description {
        let product = concat!("security-filter/", env!("CARGO_PKG_VERSION"));
        let description = Description::new(product).whole_content();
        // Nobody is named to us who need not be.
        if self.config.settings.policies.is_none() {
            return description;
        }
        description.message_context([ContextField::MailFrom, ContextField::Recipients])
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let config = self.config(message.parameters())?;
        let groups = policy::groups(&config, message.context())?;
        let mut decided = self.decide(message, &groups).await?;
        for Decided { decision, .. } in &decided {
            tracing::debug!(
                verdict = decision.label,
                reason = decision.reason,
                "inspected"
            );
        }
        let same = decided
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a == b));
        if same {
            decided.truncate(1);
        } else if !message.takes_copies() {
            decided = strictest(decided).into_iter().collect();
        }
        let mut answers = decided.into_iter().map(in_words).zip(groups);
        let (first, _) = answers.next().context("a message without a decision")?;
        Ok(answers.fold(first, |answer, (other, group)| {
            answer.for_recipients(group.recipients, other)
        }))
    }
}

fn in_words(decided: Decided) -> Answer {
    let answer = answer(decided.decision);
    match decided.forged {
        Some(name) => answer.delete_headers(name),
        None => answer,
    }
}
