//! Which authorities there are at one moment, as the Secret keeps it, and the steps of a rotation.
//!
//! A rotation has three steps, each a state that a restarted operator goes on from: *announced* (a new authority is believed
//! beside the one that signs), *switched* (it signs), and done (the old one is believed no more). Nobody ever has to believe
//! what was not announced to all before, so no call fails. Pure: the time and what is written already come as values.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::authority::{Authority, AuthorityError, short_hash, split};

/// Begins a rotation when it is set to anything; taken away when it has begun.
pub const ROTATE: &str = "opes.dev/rotate";
const STEP: &str = "opes.dev/rotation";
const SINCE: &str = "opes.dev/rotation-since";
const ANNOUNCED: &str = "announced";
const SWITCHED: &str = "switched";
/// Authorities believed at once: the old, the new, and some that somebody put in by hand.
const TRUSTED_MAX: usize = 16;

/// How long things last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of an authority; replaced when a third of it is left. 5 years.
    pub authority: Duration,
    /// Of what it signs; replaced when a third of it is left. 90 days.
    pub leaf: Duration,
    /// From the announcement of a new authority to its first signature: for mounted Secrets to arrive. 10 min.
    pub settle: Duration,
    /// From then until the old one is believed no more: for connections and copies of certificates to go. 24 h.
    pub overlap: Duration,
    /// How much longer a step waits for certificates that cannot be written. 24 h.
    pub patience: Duration,
}

/// Where a rotation is; times in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is none.
    Steady,
    /// The next authority is believed, and signs nothing yet.
    Announced(u64),
    /// It signs; the one before is still believed.
    Switched(u64),
}

/// What the Secret holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Signs.
    pub issuer: Authority,
    /// Will sign: in [`Step::Announced`] only.
    pub next: Option<Authority>,
    /// Who is believed, in PEM; the issuer first.
    pub trusted: Vec<String>,
    /// Where a rotation is.
    pub step: Step,
    /// Somebody asked for a rotation.
    pub asked: bool,
}

/// Why the Secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A part is missing, or is no text.
    #[error("{0} is missing or no text")]
    Missing(&'static str),
    /// A pair cannot be used.
    #[error("{0}: {1}")]
    Authority(&'static str, AuthorityError),
    /// Too many in `ca.crt`.
    #[error("ca.crt holds more than {TRUSTED_MAX} certificates")]
    TooMany,
}

// === impl Lifetimes ===

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            authority: Duration::from_hours(5 * 365 * 24),
            leaf: Duration::from_hours(90 * 24),
            settle: Duration::from_mins(10),
            overlap: Duration::from_hours(24),
            patience: Duration::from_hours(24),
        }
    }
}

// === impl Authorities ===

impl Authorities {
    /// The first one.
    pub fn begin(now: u64, lifetimes: &Lifetimes) -> Result<Self, AuthorityError> {
        let issuer = Authority::make(now, lifetimes.authority)?;
        Ok(Self {
            trusted: vec![issuer.certificate.clone()],
            issuer,
            next: None,
            step: Step::Steady,
            asked: false,
        })
    }

    /// What `secret` says.
    pub fn read(secret: &Secret) -> Result<Self, StateError> {
        let text = |name: &'static str| {
            let value = secret.data.as_ref().and_then(|data| data.get(name));
            let text = value.and_then(|value| std::str::from_utf8(&value.0).ok());
            text.ok_or(StateError::Missing(name))
        };
        let pair = |certificate, key| {
            Authority::read(text(certificate)?, text(key)?)
                .map_err(|error| StateError::Authority(certificate, error))
        };
        let issuer = pair("tls.crt", "tls.key")?;
        let (step, asked) = read_step(secret.metadata.annotations.as_ref());
        let next = matches!(step, Step::Announced(_)).then(|| pair("next.crt", "next.key"));
        let next = next.transpose()?;
        let mut trusted = vec![issuer.certificate.clone()];
        let further = split(text("ca.crt")?);
        let further = next
            .iter()
            .map(|next| next.certificate.clone())
            .chain(further);
        for certificate in further {
            if !trusted.contains(&certificate) {
                trusted.push(certificate);
            }
        }
        if trusted.len() > TRUSTED_MAX {
            return Err(StateError::TooMany);
        }
        Ok(Self {
            issuer,
            next,
            trusted,
            step,
            asked,
        })
    }

    /// Puts it into `secret`, whose other annotations and labels stay.
    pub fn write(&self, secret: &mut Secret) {
        let mut data = BTreeMap::new();
        let mut put = |name: &str, text: &str| {
            data.insert(name.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        put("tls.crt", &self.issuer.certificate);
        put("tls.key", &self.issuer.key);
        put("ca.crt", &self.bundle());
        if let Some(next) = &self.next {
            put("next.crt", &next.certificate);
            put("next.key", &next.key);
        }
        secret.data = Some(data);
        let annotations = secret.metadata.annotations.get_or_insert_default();
        for name in [STEP, SINCE] {
            annotations.remove(name);
        }
        if !self.asked {
            annotations.remove(ROTATE);
        }
        let (step, since) = match self.step {
            Step::Steady => return,
            Step::Announced(since) => (ANNOUNCED, since),
            Step::Switched(since) => (SWITCHED, since),
        };
        annotations.insert(STEP.to_owned(), step.to_owned());
        annotations.insert(SINCE.to_owned(), since.to_string());
    }

    /// All who are believed, as one PEM text.
    pub fn bundle(&self) -> String {
        self.trusted.concat()
    }

    /// Differs when certificates have to be made anew: another one signs, or others are believed.
    pub fn fingerprint(&self) -> String {
        short_hash(format!("{} {}", self.issuer.id, self.bundle()).as_bytes())
    }

    /// The step that is due at `now`, if one is. `written`: all certificates are as this state wants them.
    pub fn next_step(
        &self,
        now: u64,
        lifetimes: &Lifetimes,
        written: bool,
    ) -> Result<Option<Self>, AuthorityError> {
        if now < self.due(now, lifetimes, written) {
            return Ok(None);
        }
        let next = match (self.step, &self.next) {
            (Step::Announced(_), Some(next)) => self.switch(next, now),
            (Step::Switched(_), _) => self.finish(),
            (Step::Steady | Step::Announced(_), _) => self.announce(now, lifetimes)?,
        };
        Ok(Some(next))
    }

    /// When the next step is due, in seconds since 1970.
    pub fn due(&self, now: u64, lifetimes: &Lifetimes, written: bool) -> u64 {
        let after = |since: u64, wait: Duration| {
            let patience = if written {
                Duration::ZERO
            } else {
                lifetimes.patience
            };
            since.saturating_add((wait + patience).as_secs())
        };
        match self.step {
            Step::Steady if self.asked => now,
            Step::Steady => {
                let third = lifetimes.authority.as_secs() / 3;
                self.issuer.not_after.saturating_sub(third)
            }
            // Who signs with what has expired need not be waited for.
            Step::Announced(since) => after(since, lifetimes.settle).min(self.issuer.not_after),
            Step::Switched(since) => after(since, lifetimes.overlap),
        }
    }

    fn announce(&self, now: u64, lifetimes: &Lifetimes) -> Result<Self, AuthorityError> {
        let next = Authority::make(now, lifetimes.authority)?;
        let trusted = [&self.issuer, &next].map(|authority| authority.certificate.clone());
        Ok(Self {
            issuer: self.issuer.clone(),
            next: Some(next),
            trusted: trusted.into(),
            step: Step::Announced(now),
            asked: false,
        })
    }

    fn switch(&self, next: &Authority, now: u64) -> Self {
        let trusted = [next, &self.issuer].map(|authority| authority.certificate.clone());
        Self {
            issuer: next.clone(),
            next: None,
            trusted: trusted.into(),
            step: Step::Switched(now),
            asked: self.asked,
        }
    }

    fn finish(&self) -> Self {
        Self {
            trusted: vec![self.issuer.certificate.clone()],
            step: Step::Steady,
            ..self.clone()
        }
    }
}

/// The step, and whether a rotation is asked for. What makes no sense is read as begun long ago: the next step is then due.
fn read_step(annotations: Option<&BTreeMap<String, String>>) -> (Step, bool) {
    let Some(annotations) = annotations else {
        return (Step::Steady, false);
    };
    let since = annotations.get(SINCE).and_then(|text| text.parse().ok());
    let since = since.unwrap_or_default();
    let step = match annotations.get(STEP).map(String::as_str) {
        Some(ANNOUNCED) => Step::Announced(since),
        Some(SWITCHED) => Step::Switched(since),
        _ => Step::Steady,
    };
    (step, annotations.contains_key(ROTATE))
}

#[cfg(test)]
mod tests;
