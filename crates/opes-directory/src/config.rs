//! Where a directory is and what it may cost: the part of a service's `config` that is about look-ups.

mod endpoint;

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

pub(crate) use endpoint::{Endpoint, Security, is_this_machine};

/// Octets of a file with a password.
const PASSWORD_OCTETS_MAX: u64 = 64 * 1024;
/// Servers of one directory.
const SERVERS_MAX: usize = 16;
/// Attributes that are asked for.
const ATTRIBUTES_MAX: usize = 32;

/// A directory: LDAP or SQL, and the bounds of a look-up.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectoryConfig {
    /// One of `ldap` and `sql` must be there.
    #[serde(default)]
    pub ldap: Option<LdapConfig>,
    /// See `ldap`.
    #[serde(default)]
    pub sql: Option<SqlConfig>,
    /// Milliseconds for one look-up, connecting included.
    #[serde(default = "timeout_default")]
    pub timeout_ms: u64,
    /// Connections at once.
    #[serde(default = "connections_default")]
    pub connections_max: u32,
    /// Entries or rows of one answer; more are an error.
    #[serde(default = "entries_default")]
    pub entries_max: u32,
    /// Octets of one answer, as it comes over the network; more are an error.
    #[serde(default = "size_default")]
    pub size_max: usize,
    /// How long answers are good for.
    #[serde(default)]
    pub cache: CacheConfig,
}

/// An LDAP directory (RFC 4511).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LdapConfig {
    /// `ldaps://HOST[:PORT]`, `ldap://HOST[:PORT]`, `ldapi:///PATH`; several: the next is tried where one cannot be reached.
    pub url: OneOrMany,
    /// TLS by the StartTLS operation (RFC 4511 §4.14), for `ldap://`.
    #[serde(default)]
    pub start_tls: bool,
    /// PEM file with the authorities that may vouch for it, in place of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Addresses and passwords may go over the network in the clear.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// Who we are to it; absent: nobody (anonymous bind).
    #[serde(default)]
    pub bind_dn: Option<String>,
    /// File whose first line is the password of `bindDn`; read for each new connection.
    #[serde(default)]
    pub bind_password_file: Option<PathBuf>,
    /// Where the search begins.
    pub base: String,
    /// How far it goes.
    #[serde(default)]
    pub scope: Scope,
    /// With places for what is asked for, such as `(mail=%s)`.
    pub filter: String,
    /// Attributes to ask for, besides those that the service itself needs.
    #[serde(default)]
    pub attributes: Vec<String>,
}

/// How far a search goes (RFC 4511 §4.5.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// The base itself.
    Base,
    /// What is right below it.
    OneLevel,
    /// The base and everything below.
    #[default]
    Subtree,
}

/// A database.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqlConfig {
    /// `sqlite:///PATH`, opened for reading, or `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// File whose first line is the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// As in [`LdapConfig::ca_file`].
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// As in [`LdapConfig::insecure_plaintext`].
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// One `SELECT`, with places for what is asked for, such as `:s`.
    pub query: String,
}

/// How long answers are good for. Errors are never kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Seconds that what was found is good for; 0: it is asked for each time.
    pub found_seconds: u64,
    /// Seconds that "unknown" is good for.
    pub missing_seconds: u64,
    /// Octets of all answers that are kept.
    pub size_max: u64,
}

/// A list may be written as a single word.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a text or a list of texts")]
pub enum OneOrMany {
    /// A word.
    One(String),
    /// A list.
    Many(Vec<String>),
}

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither kind of directory, or both.
    #[error("write either `ldap:` or `sql:`")]
    Kind,
    /// A field, and what is wrong with it.
    #[error("{field}: {reason}")]
    Field {
        /// As in the configuration: `ldap.url`.
        field: &'static str,
        /// With the remedy.
        reason: String,
    },
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            found_seconds: 300,
            missing_seconds: 60,
            size_max: 16 * 1024 * 1024,
        }
    }
}

const fn timeout_default() -> u64 {
    2000
}

const fn connections_default() -> u32 {
    4
}

const fn entries_default() -> u32 {
    10
}

const fn size_default() -> usize {
    64 * 1024
}

// === impl DirectoryConfig ===

impl DirectoryConfig {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let within = |field, value: u64, max: u64| {
            let reason = format!("{value} is not from 1 to {max}");
            let good = (1..=max).contains(&value);
            good.then_some(()).ok_or(wrong(field, reason))
        };
        within("timeoutMs", self.timeout_ms, 60_000)?;
        within("connectionsMax", self.connections_max.into(), 64)?;
        within("entriesMax", self.entries_max.into(), 1000)?;
        within("sizeMax", self.size_max as u64, 16 * 1024 * 1024)?;
        let day = 86_400;
        let longest = self.cache.found_seconds.max(self.cache.missing_seconds);
        within(
            "cache.foundSeconds, cache.missingSeconds",
            longest.max(1),
            day,
        )?;
        within("cache.sizeMax", self.cache.size_max, 4 << 30)
    }
}

// === impl LdapConfig ===

impl LdapConfig {
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, ConfigError> {
        let urls = match &self.url {
            OneOrMany::One(url) => std::slice::from_ref(url),
            OneOrMany::Many(urls) => urls,
        };
        if urls.is_empty() || urls.len() > SERVERS_MAX {
            return Err(wrong(
                "ldap.url",
                format!("name 1 to {SERVERS_MAX} servers"),
            ));
        }
        let parse = |url: &String| {
            let endpoint =
                Endpoint::parse(url, self.start_tls).map_err(|r| wrong("ldap.url", r))?;
            if endpoint.is_in_the_clear() && !self.insecure_plaintext {
                return Err(wrong(
                    "ldap.url",
                    in_the_clear(url, "ldaps://, or startTls: true"),
                ));
            }
            Ok(endpoint)
        };
        urls.iter().map(parse).collect()
    }

    /// DN and password file. RFC 4513 §5.1.2: a name without password would be let in as nobody.
    pub(crate) fn credential(&self) -> Result<Option<(String, PathBuf)>, ConfigError> {
        match (&self.bind_dn, &self.bind_password_file) {
            (None, None) => Ok(None),
            (Some(dn), Some(file)) if !dn.is_empty() => {
                password(file).map_err(|reason| wrong("ldap.bindPasswordFile", reason))?;
                Ok(Some((dn.clone(), file.clone())))
            }
            _ => Err(wrong(
                "ldap.bindDn, ldap.bindPasswordFile",
                "write both, or none of them for an anonymous bind".to_owned(),
            )),
        }
    }
}

pub(crate) fn check_attributes(names: &[String]) -> Result<(), ConfigError> {
    let is_name = |name: &String| {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b';');
        !name.is_empty() && name.bytes().all(good)
    };
    if names.len() > ATTRIBUTES_MAX {
        return Err(wrong(
            "ldap.attributes",
            format!("more than {ATTRIBUTES_MAX}"),
        ));
    }
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(wrong(
            "ldap.attributes",
            format!("`{name}` is not the name of an attribute"),
        )),
        None => Ok(()),
    }
}

pub(crate) fn wrong(field: &'static str, reason: String) -> ConfigError {
    ConfigError::Field { field, reason }
}

pub(crate) fn in_the_clear(url: &str, remedy: &str) -> String {
    format!(
        "addresses would go over the network in the clear to {url}\n  help: write {remedy}, or insecurePlaintext: true if the network is trusted"
    )
}

/// The first line of a file.
pub(crate) fn password(path: &Path) -> Result<SecretString, String> {
    let place = |reason: String| format!("{}: {reason}", path.display());
    let size = std::fs::metadata(path).map_err(|error| place(error.to_string()))?;
    if size.len() > PASSWORD_OCTETS_MAX {
        return Err(place("it is too large for a password".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| place(error.to_string()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.into()),
        _ => Err(place("it is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests;
