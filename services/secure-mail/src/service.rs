//! The callout service: reads a message within bounds, has it worked on, sends back what became of it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use opes_callout_server::{Answer, Description, GroupParameters, Message, Service};
use opes_mime::Piece;
use opes_proto::smtp::{ContextField, Permission};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Config;
use crate::keys::KeyStore;
use crate::operate::{Done, Job, operate};
use crate::policy::{Operation, Policy};
use crate::verdict;

/// Messages up to this size are read at once, octets; larger ones need one of a few places.
const SMALL_OCTETS_MAX: usize = 256 * 1024;
/// Most sets of rule parameters kept.
const PARAMETERS_MAX: usize = 1024;

/// Secure mail (RFC 4496 §4.5).
pub struct SecureMail {
    config: Arc<Config>,
    keys: KeyStore,
    by_parameters: Mutex<HashMap<String, Arc<Policy>>>,
    large: Semaphore,
}

// === impl SecureMail ===

impl SecureMail {
    /// From the `config` of a `CalloutService`. Reads the keys.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        Self::from_config_in(Path::new(""), json)
    }

    /// The same; relative paths are below `folder`.
    pub fn from_config_in(folder: &Path, json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("secure-mail")?;
        let config = Arc::new(config.below(folder));
        let keys = KeyStore::open(&config).context("secure-mail: keys")?;
        let places = usize::try_from(config.large_messages)?;
        Ok(Self {
            config,
            keys,
            by_parameters: Mutex::default(),
            large: Semaphore::new(places),
        })
    }

    fn policy(&self, rule: &GroupParameters) -> anyhow::Result<Arc<Policy>> {
        let mut known = self
            .by_parameters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = known.get(&rule.json) {
            return Ok(Arc::clone(policy));
        }
        let policy = Policy::from_json(&rule.json);
        let policy = Arc::new(policy.with_context(|| format!("rule {}", rule.rule))?);
        if known.len() >= PARAMETERS_MAX {
            known.clear();
        }
        known.insert(rule.json.clone(), Arc::clone(&policy));
        Ok(policy)
    }

    /// The whole message, and the place that it takes if it is large.
    async fn read(
        &self,
        message: &mut Message,
    ) -> anyhow::Result<(Bytes, Option<SemaphorePermit<'_>>)> {
        let mut place = None;
        let mut octets = BytesMut::new();
        let size_max = self.config.size_max;
        while let Some(chunk) = message.chunk().await? {
            let so_far = octets.len() + chunk.len();
            let too_large = |octets: u64| octets > size_max;
            if too_large(so_far as u64) || message.size().is_some_and(too_large) {
                message.stop_receiving().await?;
                bail!("the message is larger than sizeMax ({size_max} octets)");
            }
            if so_far > SMALL_OCTETS_MAX && place.is_none() {
                place = Some(self.large.acquire().await?);
            }
            octets.extend_from_slice(&chunk);
        }
        if message.is_whole() != Some(true) {
            bail!(
                "rule {} shows a part of the message only: its callout needs wants.content: all",
                message.parameters().rule
            );
        }
        Ok((octets.freeze(), place))
    }

    /// A place for what is made of a message; `taken` is the one that its size took. A small message may decrypt to a large one.
    async fn place<'s>(
        &'s self,
        operation: Operation,
        taken: Option<SemaphorePermit<'s>>,
    ) -> anyhow::Result<Option<SemaphorePermit<'s>>> {
        if taken.is_some() || operation != Operation::Decrypt {
            return Ok(taken);
        }
        Ok(Some(self.large.acquire().await?))
    }

    fn job(&self, message: &Message, octets: Bytes, policy: Arc<Policy>) -> anyhow::Result<Job> {
        let context = message.context();
        let sender = context.mail_from.as_ref().map(|from| from.address.clone());
        let recipients = context.recipients.iter();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(Job {
            octets,
            sender: sender.unwrap_or_default(),
            recipients: recipients.map(|to| to.address.clone()).collect(),
            policy,
            keys: self.keys.current(),
            size_max: usize::try_from(self.config.size_max)?,
            now,
            header: self.config.header.clone(),
        })
    }
}

impl Service for SecureMail {
    fn describe(&self) -> Description {
        Description::new(concat!("secure-mail/", env!("CARGO_PKG_VERSION")))
            .message_context([ContextField::MailFrom, ContextField::Recipients])
            .whole_content()
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let policy = self.policy(message.parameters())?;
        let (octets, place) = self.read(message).await?;
        let _place = self.place(policy.operation, place).await?;
        let job = self.job(message, octets, Arc::clone(&policy))?;
        // Keys are slow, and nobody else should wait for them.
        let Done { steps, forged } = tokio::task::spawn_blocking(move || operate(&job)).await??;
        let header = &self.config.header;
        let mut decided = Vec::with_capacity(steps.len());
        for step in steps {
            let rule = message.parameters();
            let mut answer = verdict::answer(&step.finding, &policy, header, rule)?;
            if forged && rule.allows(Permission::Header) {
                answer = answer.delete_headers(header);
            }
            for (name, value) in &step.fields {
                answer = answer.add_header(name, value.clone());
            }
            tracing::debug!(result = step.finding.label, "done");
            let pieces = step.pieces.filter(|_| !verdict::refuses(&answer));
            decided.push((step.recipients, pieces, answer));
        }
        send(message, decided).await
    }
}

/// What some recipients get: nobody for all others, the pieces of a message of their own, and what is said of it.
type Decided = (Vec<String>, Option<Vec<Piece>>, Answer);

async fn send(message: &Message, mut decided: Vec<Decided>) -> anyhow::Result<Answer> {
    let several = decided.len() > 1;
    if several && !message.takes_copies() {
        bail!("the recipients need different messages, which this processor does not take");
    }
    if !several {
        let (_, pieces, answer) = decided.pop().context("nothing was decided")?;
        if let Some(pieces) = pieces {
            let mut adapted = message.adapt();
            put(&mut adapted, pieces).await?;
            adapted.finish().await?;
        }
        return Ok(answer);
    }
    let mut adapted = None;
    let mut answers = Vec::with_capacity(decided.len());
    for (recipients, pieces, mut answer) in decided {
        if let Some(pieces) = pieces {
            let flow = adapted.get_or_insert_with(|| message.adapt());
            put(flow, pieces).await?;
            answer = answer.with_message(flow.end_message());
        }
        answers.push((recipients, answer));
    }
    if let Some(adapted) = adapted {
        adapted.finish().await?;
    }
    let mut answers = answers.into_iter();
    // The first one is for all that are in no other.
    let (_, first) = answers.next().context("nothing was decided")?;
    Ok(answers.fold(first, |all, (recipients, answer)| {
        all.for_recipients(recipients, answer)
    }))
}

async fn put(flow: &mut opes_callout_server::Adapted, pieces: Vec<Piece>) -> anyhow::Result<()> {
    for piece in pieces {
        match piece {
            Piece::Original { offset, len } => flow.use_yours(offset..offset + len).await?,
            Piece::Inserted(octets) => flow.use_mine(octets).await?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_decrypted_takes_a_place_however_small_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let json = serde_json::json!({ "keys": folder.path(), "largeMessages": 1 });
        let service = SecureMail::from_config(&json).unwrap();
        let place = service.place(Operation::Decrypt, None).await.unwrap();
        assert_eq!(service.large.available_permits(), 0);
        // One that has a place waits for no other.
        let place = service.place(Operation::Decrypt, place).await.unwrap();
        assert!(place.is_some());
        let none = service.place(Operation::Verify, None).await.unwrap();
        assert!(none.is_none());
    }
}
