//! One connection, behind its guard.

use std::io;
use std::sync::Arc;

use ldap3::{LdapConnAsync, LdapConnSettings, LdapError, SearchOptions, StdStream};
use prometheus_client::metrics::gauge::Gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::guard::{Fault, Guard};
use super::{NO_ATTRIBUTES, Search, entry};
use crate::answer::Entry;
use crate::directory::Failure;

/// Octets of an answer to a bind or a probe.
const SMALL_OCTETS_MAX: usize = 16 * 1024;
/// sizeLimitExceeded (RFC 4511 §A.1).
const SIZE_LIMIT_EXCEEDED: u32 = 4;
/// busy, unavailable (RFC 4511 §A.1): another server may be neither.
const BUSY: u32 = 51;
const UNAVAILABLE: u32 = 52;
/// referral (RFC 4511 §A.1).
const REFERRAL: u32 = 10;

/// Closed when dropped.
pub(super) struct Connection {
    ldap: ldap3::Ldap,
    guard: Arc<Guard>,
    /// Which of the configured servers is at the other end.
    server: usize,
    open: Gauge,
    tasks: [JoinHandle<()>; 2],
}

// === impl Connection ===

impl Connection {
    /// Over a stream whose other end has been checked, if it had to be.
    pub(super) async fn over<S>(stream: S, server: usize, open: Gauge) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let guard = Arc::new(Guard::default());
        let pair = || -> io::Result<_> {
            let (ours, theirs) = UnixStream::pair()?;
            Ok((ours, theirs.into_std()?))
        };
        let (ours, theirs) = pair().map_err(|error| Failure::Unreachable(error.to_string()))?;
        let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(theirs));
        let (driver, ldap) = LdapConnAsync::with_settings(settings, "ldapi:///")
            .await
            .map_err(|error| Failure::Unreachable(error.to_string()))?;
        let relay = tokio::spawn(relay(stream, ours, Arc::clone(&guard)));
        let driver = tokio::spawn(async move {
            // The end of the connection; whoever waits for an answer is told.
            let _end = driver.drive().await;
        });
        open.inc();
        Ok(Self {
            ldap,
            guard,
            server,
            open,
            tasks: [relay, driver],
        })
    }

    pub(super) fn server(&self) -> usize {
        self.server
    }

    pub(super) fn is_closed(&mut self) -> bool {
        self.ldap.is_closed() || self.guard.fault().is_some()
    }

    /// Simple bind (RFC 4513 §5.1.3).
    pub(super) async fn bind(&mut self, dn: &str, password: &str) -> Result<(), Failure> {
        self.guard.allow(SMALL_OCTETS_MAX);
        let bound = self.ldap.simple_bind(dn, password).await;
        let result = bound.map_err(|error| self.failure(&error))?;
        match result.rc {
            0 => Ok(()),
            code => Err(Failure::Refused(format!(
                "bind as {dn}: result code {code} {}",
                one_line(&result.text)
            ))),
        }
    }

    /// Does it still answer? Asks for the root DSE (RFC 4512 §5.1).
    pub(super) async fn probe(&mut self) -> Result<(), Failure> {
        let search = Search {
            base: String::new(),
            scope: ldap3::Scope::Base,
            attributes: vec![NO_ATTRIBUTES.to_owned()],
            entries_max: 1,
            size_max: SMALL_OCTETS_MAX,
            seconds_max: 1,
        };
        match self.search(&search, "(objectClass=*)").await {
            // A server that does not show it has answered all the same.
            Ok(_) | Err(Failure::Refused(_) | Failure::Excess(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn search(
        &mut self,
        search: &Search,
        filter: &str,
    ) -> Result<Vec<Entry>, Failure> {
        self.guard.allow(search.size_max);
        let entries_max = search.entries_max;
        let options = SearchOptions::new()
            .sizelimit(i32::try_from(entries_max).unwrap_or(i32::MAX))
            .timelimit(search.seconds_max);
        let begun = self
            .ldap
            .with_search_options(options)
            .streaming_search(
                &search.base,
                search.scope,
                filter,
                search.attributes.clone(),
            )
            .await;
        let mut answer = begun.map_err(|error| self.failure(&error))?;
        let mut entries = Vec::new();
        while let Some(item) = answer.next().await.map_err(|error| self.failure(&error))? {
            // Referrals are not followed; what other servers would know, this directory does not.
            if item.is_ref() || item.is_intermediate() {
                continue;
            }
            let entry = entry::read(item.0);
            entries.push(entry.ok_or_else(|| excess(Fault::Malformed))?);
            if entries.len() > entries_max as usize {
                return Err(too_many(entries_max));
            }
        }
        let result = answer.finish().await;
        match result.rc {
            0 => Ok(entries),
            SIZE_LIMIT_EXCEEDED => Err(too_many(entries_max)),
            code @ (BUSY | UNAVAILABLE) => Err(Failure::Unreachable(format!("result code {code}"))),
            REFERRAL => Err(Failure::Refused(
                "it refers to another server, which is not followed; name that one in ldap.url"
                    .to_owned(),
            )),
            code => Err(Failure::Refused(format!(
                "result code {code} {}",
                one_line(&result.text)
            ))),
        }
    }

    fn failure(&self, error: &LdapError) -> Failure {
        match (self.guard.fault(), error) {
            (Some(fault @ (Fault::TooLarge | Fault::TooDeep | Fault::Malformed)), _) => {
                excess(fault)
            }
            (_, LdapError::FilterParsing) => {
                Failure::Refused("the filter is not understood".to_owned())
            }
            (_, error) => Failure::Unreachable(error.to_string()),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.dec();
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn excess(fault: Fault) -> Failure {
    Failure::Excess(fault.text().to_owned())
}

fn too_many(entries_max: u32) -> Failure {
    Failure::Excess(format!(
        "more than entriesMax ({entries_max}) entries; narrow the filter"
    ))
}

fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(printable).take(200).collect()
}

/// Between network and library, until one of them is gone.
async fn relay<S: AsyncRead + AsyncWrite>(stream: S, ours: UnixStream, guard: Arc<Guard>) {
    let (mut from_network, mut to_network) = tokio::io::split(stream);
    let (mut from_library, mut to_library) = ours.into_split();
    let asks = tokio::io::copy(&mut from_library, &mut to_network);
    let answers = guard.pass(&mut from_network, &mut to_library);
    tokio::select! {
        _ = asks => {}
        () = answers => {}
    }
}
