//! An LDAP directory: a few connections that are used in turn, each for one search at a time.
//!
//! Uses ldap3 behind a [guard](guard), because that library bounds neither the size nor the depth of what a server sends
//! (ADR 0016). Referrals are not followed: they would lead to servers that nobody configured, with our password.

mod connection;
mod dial;
mod entry;
mod guard;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::answer::{Answer, Entry};
use crate::config::{ConfigError, DirectoryConfig, LdapConfig, Scope, check_attributes, wrong};
use crate::directory::Failure;
use crate::template::FilterTemplate;
use connection::Connection;
use dial::Dialer;

/// A connection that was idle for so long is probed before it is used: what lies between may have forgotten it.
const PROBE_AFTER: Duration = Duration::from_secs(5);
/// A connection that was idle for so long is closed instead.
const IDLE_MAX: Duration = Duration::from_mins(2);
/// No attribute at all (RFC 4511 §4.5.1.8).
const NO_ATTRIBUTES: &str = "1.1";

#[derive(Debug)]
pub(crate) struct Ldap {
    filter: FilterTemplate,
    search: Search,
    attributes: Vec<String>,
    dialer: Dialer,
    /// One for each connection.
    places: Semaphore,
    idle: Mutex<Vec<Idle>>,
    timeout: Duration,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// One search on one server. Dropped without an answer, as when the time is over, it leaves that server to others.
struct Trial<'a> {
    ldap: &'a Ldap,
    server: usize,
    has_answered: bool,
}

/// What is the same for all searches.
#[derive(Debug, Clone)]
struct Search {
    base: String,
    scope: ldap3::Scope,
    attributes: Vec<String>,
    entries_max: u32,
    size_max: usize,
    /// For the server, in seconds.
    seconds_max: i32,
}

// === impl Ldap ===

impl Ldap {
    pub(crate) fn new(
        ldap: &LdapConfig,
        config: &DirectoryConfig,
        inputs: &[&str],
        attributes: &[String],
        connections: Gauge,
    ) -> Result<Self, ConfigError> {
        let filter = FilterTemplate::parse(&ldap.filter, inputs);
        let filter = filter.map_err(|reason| wrong("ldap.filter", reason))?;
        let mut attributes = attributes.to_vec();
        attributes.extend(ldap.attributes.iter().cloned());
        check_attributes(&attributes)?;
        let mut asked = attributes.clone();
        if asked.is_empty() {
            asked.push(NO_ATTRIBUTES.to_owned());
        }
        let timeout = config.timeout();
        Ok(Self {
            filter,
            search: Search {
                base: ldap.base.clone(),
                scope: ldap.scope.into(),
                attributes: asked,
                entries_max: config.entries_max,
                size_max: config.size_max,
                seconds_max: i32::try_from(timeout.as_secs() + 1).unwrap_or(i32::MAX),
            },
            attributes,
            dialer: Dialer::new(ldap, config, connections)?,
            places: Semaphore::new(config.connections_max as usize),
            idle: Mutex::default(),
            timeout,
        })
    }

    pub(crate) fn inputs(&self) -> &[String] {
        self.filter.names()
    }

    pub(crate) fn attributes(&self) -> &[String] {
        &self.attributes
    }

    /// The caller sets the time.
    pub(crate) async fn search(&self, values: &[String]) -> Result<Answer, Failure> {
        let filter = self.filter.fill(values);
        let gone = |_| Failure::Unreachable("closed".to_owned());
        let _place = self.places.acquire().await.map_err(gone)?;
        if let Some(mut connection) = self.healthy().await {
            match self.ask(&mut connection, &filter).await {
                // It broke while it was idle, or just now: once more, on a new one.
                Err(Failure::Unreachable(_)) => {}
                result => return self.done(connection, result),
            }
        }
        let mut connection = self.dialer.dial().await?;
        let result = self.ask(&mut connection, &filter).await;
        self.done(connection, result)
    }

    async fn ask(&self, connection: &mut Connection, filter: &str) -> Result<Vec<Entry>, Failure> {
        let mut trial = Trial {
            ldap: self,
            server: connection.server(),
            has_answered: false,
        };
        let result = connection.search(&self.search, filter).await;
        trial.has_answered = !matches!(result, Err(Failure::Unreachable(_)));
        result
    }

    fn done(
        &self,
        connection: Connection,
        result: Result<Vec<Entry>, Failure>,
    ) -> Result<Answer, Failure> {
        let entries = result?;
        // Only what ended well is used again: after anything else, octets of the old answer could be on their way.
        let since = Instant::now();
        self.with_idle(|idle| idle.push(Idle { connection, since }));
        Ok(Answer { entries })
    }

    /// The connection that was used last, if it still is one.
    async fn healthy(&self) -> Option<Connection> {
        loop {
            let Idle {
                mut connection,
                since,
            } = self.with_idle(Vec::pop)?;
            let unused = since.elapsed();
            if unused > IDLE_MAX {
                self.forget();
                return None;
            }
            if connection.is_closed() {
                continue;
            }
            if unused < PROBE_AFTER {
                return Some(connection);
            }
            let probe = connection.probe();
            if let Ok(Ok(())) = tokio::time::timeout(self.timeout / 4, probe).await {
                return Some(connection);
            }
            self.suspect(connection.server());
            return None;
        }
    }

    /// Other connections are no better, and another server is asked first from now on, if there is one.
    fn suspect(&self, server: usize) {
        self.dialer.suspect(server);
        self.forget();
    }

    /// Those that were idle for longer are no better than the one that broke.
    fn forget(&self) {
        self.with_idle(Vec::clear);
    }

    fn with_idle<R>(&self, work: impl FnOnce(&mut Vec<Idle>) -> R) -> R {
        work(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Trial ===

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.has_answered {
            self.ldap.suspect(self.server);
        }
    }
}

impl From<Scope> for ldap3::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Base => Self::Base,
            Scope::OneLevel => Self::OneLevel,
            Scope::Subtree => Self::Subtree,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
