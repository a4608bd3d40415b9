//! The filter as a callout service: reads the message within bounds, asks [`crate::inspect`], answers as [`crate::verdict`] says.
//!
//! Owns the bound on memory: a message beyond [`SMALL_OCTETS_MAX`] needs one of a few places, and waits for it without reading,
//! so that the processor holds the rest. A rule with bad parameters, or one that shows the filter a part of the message only,
//! fails its transactions; its failure policy decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use opes_callout_server::{Answer, Description, GroupParameters, Message, Service};
use opes_proto::smtp::{Permission, notification};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::{Config, NotifyTo};
use crate::inspect::inspect;
use crate::verdict::{self, Action, Allowed, Decision, Unscannable};

/// Messages up to this size are read at once, octets.
const SMALL_OCTETS_MAX: usize = 1024 * 1024;
/// Messages up to this size are inspected on the spot; larger ones on a thread that may block, octets.
const INLINE_OCTETS_MAX: usize = 256 * 1024;
/// Most sets of rule parameters kept compiled.
const PARAMETERS_MAX: usize = 1024;

/// The security filter.
#[derive(Debug)]
pub struct SecurityFilter {
    config: Arc<Config>,
    /// Compiled parameters of rules, by their JSON text.
    by_parameters: Mutex<HashMap<String, Arc<Config>>>,
    large: Semaphore,
}

/// What there is of a message.
enum Content {
    Whole(Bytes),
    TooLarge,
}

impl SecurityFilter {
    /// From `builtin.config` of the CalloutService; `null` = all defaults.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("security-filter")?;
        let places = usize::try_from(config.settings.large_messages)?;
        Ok(Self {
            config: Arc::new(config),
            by_parameters: Mutex::default(),
            large: Semaphore::new(places),
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

    /// The whole message, and the place it takes if it is large.
    async fn read(
        &self,
        message: &mut Message,
    ) -> anyhow::Result<(Content, Option<SemaphorePermit<'_>>)> {
        let size_max = self.config.settings.size_max;
        let too_large = |octets: u64| octets > size_max;
        let mut place = None;
        let mut octets = BytesMut::new();
        let mut first = Bytes::new();
        while let Some(chunk) = message.chunk().await? {
            let so_far = first.len() + octets.len() + chunk.len();
            if too_large(so_far as u64) || message.size().is_some_and(too_large) {
                message.stop_receiving().await?;
                return Ok((Content::TooLarge, None));
            }
            if so_far > SMALL_OCTETS_MAX && place.is_none() {
                place = Some(self.large.acquire().await?);
            }
            // A message in one fragment is not copied.
            if first.is_empty() && octets.is_empty() {
                first = chunk;
                continue;
            }
            octets.extend_from_slice(&std::mem::take(&mut first));
            octets.extend_from_slice(&chunk);
        }
        let whole = if octets.is_empty() {
            first
        } else {
            octets.freeze()
        };
        Ok((Content::Whole(whole), place))
    }

    async fn decide(&self, message: &mut Message) -> anyhow::Result<(Decision, bool)> {
        let config = self.config(message.parameters())?;
        let allowed = allowed(message.parameters());
        let (content, _place) = self.read(message).await?;
        let octets = match content {
            Content::Whole(octets) => octets,
            Content::TooLarge => {
                return Ok((
                    verdict::unscannable(Unscannable::TooLarge, &config.settings, allowed)?,
                    false,
                ));
            }
        };
        if message.is_whole() != Some(true) {
            bail!(
                "rule {} shows a part of the message only: its callout needs wants.content: all",
                message.parameters().rule
            );
        }
        let forged = is_forged(&octets, &config.settings.header);
        let findings = if octets.len() <= INLINE_OCTETS_MAX {
            inspect(&octets, &config)
        } else {
            let config = Arc::clone(&config);
            tokio::task::spawn_blocking(move || inspect(&octets, &config)).await?
        };
        Ok((
            verdict::decide(&findings, &config.settings, allowed)?,
            forged && allowed.header,
        ))
    }
}

impl Service for SecurityFilter {
    fn describe(&self) -> Description {
        Description::new(concat!("security-filter/", env!("CARGO_PKG_VERSION"))).whole_content()
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let header = self.config(message.parameters())?.settings.header.clone();
        let (decision, forged) = self.decide(message).await?;
        tracing::debug!(
            verdict = decision.label,
            reason = decision.reason,
            "inspected"
        );
        let answer = answer(decision);
        Ok(if forged {
            answer.delete_headers(header)
        } else {
            answer
        })
    }
}

/// Does the message bring a field of our name? Only we may say what we did.
fn is_forged(octets: &[u8], header: &str) -> bool {
    let end = opes_mime::header_end(octets)
        .and_then(|end| usize::try_from(end).ok())
        .unwrap_or(octets.len());
    let lines = octets
        .get(..end)
        .unwrap_or(octets)
        .split(|octet| *octet == b'\n');
    let names = lines.filter_map(|line| line.splitn(2, |octet| *octet == b':').next());
    !header.is_empty()
        && names
            .map(<[u8]>::trim_ascii_end)
            .any(|name| name.eq_ignore_ascii_case(header.as_bytes()))
}

fn allowed(parameters: &GroupParameters) -> Allowed {
    Allowed {
        header: parameters.allows(Permission::Header),
        subject: parameters.allows(Permission::Subject),
        replace_part: parameters.allows(Permission::ReplacePart),
        body: parameters.allows(Permission::Body),
        reject: parameters.allows(Permission::Reject),
        quarantine: parameters.allows(Permission::Quarantine),
        notify: parameters.allows(Permission::Notify),
        report: parameters.allows(Permission::Report),
    }
}

/// The decision in the words of the profile.
fn answer(decision: Decision) -> Answer {
    let mut answer = match decision.action {
        Action::Accept | Action::Quarantine => Answer::accept(),
        Action::Refuse(code, enhanced, text) if code < 500 => {
            Answer::tempfail(code, enhanced, text)
        }
        Action::Refuse(code, enhanced, text) => Answer::reject(code, enhanced, text),
        Action::Replace(parts) => parts
            .into_iter()
            .fold(Answer::accept(), |answer, (path, text)| {
                answer.replace_part(path, text)
            }),
    };
    if let Some(mark) = decision.subject_mark {
        answer = answer.mark_subject(mark);
    }
    if let Some(mark) = decision.body_mark {
        answer = answer.mark_body(mark);
    }
    if let Some((name, value)) = decision.header {
        answer = answer.add_header(name, value);
    }
    if let Some(reason) = decision.quarantine {
        answer = answer.quarantine(reason);
    }
    for (to, text) in decision.notify {
        answer = answer.notify(notify_to(to), "Forbidden content in a message", text);
    }
    if let Some(incident) = decision.incident {
        answer = answer.incident(incident);
    }
    answer
        .annotate("security.verdict", decision.label)
        .reason(decision.reason)
}

fn notify_to(to: NotifyTo) -> notification::To {
    match to {
        NotifyTo::Sender => notification::To::Sender,
        NotifyTo::Recipients => notification::To::Recipients,
        NotifyTo::Administrator => notification::To::Administrator,
    }
}
