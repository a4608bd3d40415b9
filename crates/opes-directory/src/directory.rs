//! One directory as services use it: cache, one question for all that ask the same, breaker, bounds, metrics.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use moka::Expiry;
use moka::future::Cache;
use tokio::time::Instant;

use crate::answer::{Answer, LookupError};
use crate::breaker::Breaker;
use crate::config::{CacheConfig, ConfigError, DirectoryConfig};
use crate::ldap::Ldap;
use crate::metrics::{Metrics, Outcome};
use crate::sql::Sql;
use crate::template::Inputs;

/// Look-ups of one directory under way, those that wait for a connection included.
const WAITING_MAX: usize = 1000;
/// What an answer costs in the cache besides its octets.
const OVERHEAD_OCTETS: usize = 256;

/// A directory. Clones share connections and cache.
#[derive(Clone, Debug)]
pub struct Directory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    timeout: Duration,
    backend: Backend,
    /// By the values of the template's places.
    cache: Cache<Vec<String>, Arc<Answer>>,
    breaker: Mutex<Breaker>,
    asking: AtomicUsize,
    metrics: Metrics,
}

#[derive(Debug)]
enum Backend {
    Ldap(Ldap),
    Sql(Sql),
}

/// Why one search failed, without the name of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    Unreachable(String),
    Refused(String),
    Excess(String),
}

/// How long answers are good for.
#[derive(Debug)]
struct Lifetimes {
    found: Duration,
    missing: Duration,
}

// === impl Directory ===

impl Directory {
    /// Connects to nothing yet. `name`: for logs and metrics, from the configuration. `inputs`: names that filter or query
    /// may use. `attributes`: to ask an LDAP directory for.
    pub fn new(
        name: impl Into<String>,
        config: &DirectoryConfig,
        inputs: &[&str],
        attributes: &[String],
        metrics: Metrics,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let name = name.into();
        let backend = match (&config.ldap, &config.sql) {
            (Some(ldap), None) => {
                let connections = metrics.connections(&name);
                Backend::Ldap(Ldap::new(ldap, config, inputs, attributes, connections)?)
            }
            (None, Some(sql)) => Backend::Sql(Sql::new(sql, config, inputs)?),
            (None, None) | (Some(_), Some(_)) => return Err(ConfigError::Kind),
        };
        let shared = Arc::new(Shared {
            name,
            timeout: config.timeout(),
            backend,
            cache: cache(&config.cache),
            breaker: Mutex::new(Breaker::new()),
            asking: AtomicUsize::new(0),
            metrics,
        });
        Ok(Self { shared })
    }

    /// Names of the inputs that filter or query use.
    pub fn inputs(&self) -> &[String] {
        match &self.shared.backend {
            Backend::Ldap(ldap) => ldap.inputs(),
            Backend::Sql(sql) => sql.inputs(),
        }
    }

    /// Attributes that are asked for; `None`: whatever columns the query has.
    pub fn attributes(&self) -> Option<&[String]> {
        match &self.shared.backend {
            Backend::Ldap(ldap) => Some(ldap.attributes()),
            Backend::Sql(_) => None,
        }
    }

    /// What the directory knows. If an input that it uses has no value, it is not asked and nothing is known.
    pub async fn look_up(&self, inputs: &Inputs) -> Result<Arc<Answer>, LookupError> {
        let Ok(values) = inputs.values(self.inputs()) else {
            return Ok(Arc::default());
        };
        let shared = &self.shared;
        let asked = Shared::ask(Arc::clone(shared), values.clone());
        let answer = shared.cache.entry(values).or_try_insert_with(asked).await;
        match answer {
            Ok(entry) => {
                if !entry.is_fresh() {
                    shared.metrics.count(&shared.name, Outcome::Cached);
                }
                Ok(entry.into_value())
            }
            Err(error) => Err(LookupError::clone(&error)),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// In a task of its own: whoever asked may give up, and a library that panics takes nobody with it. The task ends when the
    /// time of a look-up is over.
    async fn ask(self: Arc<Self>, values: Vec<String>) -> Result<Arc<Answer>, LookupError> {
        let asked = self.admit().map(|()| {
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                let result = shared.search(values).await;
                shared.asking.fetch_sub(1, Ordering::Relaxed);
                result
            })
        });
        let result = match asked {
            Ok(task) => task
                .await
                .unwrap_or_else(|gone| Err(self.error(Failure::Unreachable(gone.to_string())))),
            Err(error) => Err(error),
        };
        let outcome = match &result {
            Ok(answer) if answer.is_found() => Outcome::Found,
            Ok(_) => Outcome::Missing,
            Err(error) => Outcome::from(error),
        };
        self.metrics.count(&self.name, outcome);
        result
    }

    /// Counts it among those that are asked, if it may be.
    fn admit(&self) -> Result<(), LookupError> {
        let waiting = self.asking.load(Ordering::Relaxed);
        if waiting >= WAITING_MAX {
            return Err(LookupError::Busy {
                directory: self.name.clone(),
                waiting,
            });
        }
        let admitted = self.with_breaker(|breaker| breaker.admit(Instant::now()));
        admitted.map_err(|wait| LookupError::Open {
            directory: self.name.clone(),
            milliseconds: milliseconds(wait),
        })?;
        self.asking.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn search(&self, values: Vec<String>) -> Result<Arc<Answer>, LookupError> {
        let begun = Instant::now();
        let searched = AssertUnwindSafe(async {
            match &self.backend {
                Backend::Ldap(ldap) => ldap.search(&values).await,
                Backend::Sql(sql) => sql.search(&values).await,
            }
        });
        let result = match tokio::time::timeout(self.timeout, searched.catch_unwind()).await {
            Ok(Ok(result)) => result.map_err(|failure| self.error(failure)),
            Ok(Err(_panic)) => Err(self.error(Failure::Unreachable(
                "its answer could not be read".to_owned(),
            ))),
            Err(_elapsed) => Err(LookupError::Timeout {
                directory: self.name.clone(),
                milliseconds: milliseconds(self.timeout),
            }),
        };
        self.metrics.took(&self.name, begun.elapsed());
        self.note(result.as_ref().err());
        let answer = Arc::new(result?);
        // Here too, because whoever asked may have given up: the next one need not wait as long.
        self.cache.insert(values, Arc::clone(&answer)).await;
        Ok(answer)
    }

    /// For the breaker.
    fn note(&self, error: Option<&LookupError>) {
        let was_and_is = self.with_breaker(|breaker| {
            let was = breaker.is_open();
            match error {
                Some(error) if error.is_illness() => breaker.failed(Instant::now()),
                Some(_) | None => breaker.succeeded(),
            }
            (was, breaker.is_open())
        });
        self.metrics.breaker(&self.name, was_and_is.1);
        match (was_and_is, error) {
            ((false, true), Some(error)) => {
                tracing::warn!(directory = self.name, %error, "the directory only fails; it is left alone for a moment");
            }
            ((true, false), _) => tracing::info!(directory = self.name, "the directory is back"),
            _ => {}
        }
    }

    fn with_breaker<R>(&self, work: impl FnOnce(&mut Breaker) -> R) -> R {
        work(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn error(&self, failure: Failure) -> LookupError {
        let directory = self.name.clone();
        match failure {
            Failure::Unreachable(reason) => LookupError::Unreachable { directory, reason },
            Failure::Refused(reason) => LookupError::Refused { directory, reason },
            Failure::Excess(reason) => LookupError::Excess { directory, reason },
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn cache(config: &CacheConfig) -> Cache<Vec<String>, Arc<Answer>> {
    let weight = |key: &Vec<String>, answer: &Arc<Answer>| {
        let key: usize = key.iter().map(String::len).sum();
        u32::try_from(key + answer.octets() + OVERHEAD_OCTETS).unwrap_or(u32::MAX)
    };
    Cache::builder()
        .max_capacity(config.size_max)
        .weigher(weight)
        .expire_after(Lifetimes {
            found: Duration::from_secs(config.found_seconds),
            missing: Duration::from_secs(config.missing_seconds),
        })
        .build()
}

// === impl Lifetimes ===

impl Lifetimes {
    fn of(&self, answer: &Answer) -> Duration {
        if answer.is_found() {
            self.found
        } else {
            self.missing
        }
    }
}

impl Expiry<Vec<String>, Arc<Answer>> for Lifetimes {
    fn expire_after_create(
        &self,
        _key: &Vec<String>,
        answer: &Arc<Answer>,
        _created_at: std::time::Instant,
    ) -> Option<Duration> {
        Some(self.of(answer))
    }

    fn expire_after_update(
        &self,
        _key: &Vec<String>,
        answer: &Arc<Answer>,
        _updated_at: std::time::Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.of(answer))
    }
}

#[cfg(test)]
mod tests;
