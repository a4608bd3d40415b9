//! The map: from a recipient to where it lives (RFC 4496 §4.7).
//!
//! Looked up in this order, first hit wins: the whole address, the address without its detail (`joe+tag` → `joe`), the
//! domain. The result is not looked up again, so that a map cannot loop. Keys are compared without case and without
//! quoting; what is not replaced (detail, local part under a `@domain` entry) stays as the client wrote it.

mod load;
mod target;

use std::collections::HashMap;

use opes_smtp::grammar::ForwardPath;

pub use load::MapError;
use target::NewAddress;
pub use target::{NextHop, Target};

/// Most entries of one map.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Between user and detail (RFC 5233 §4).
pub const DETAIL_SEPARATOR: char = '+';

/// Where recipients live.
#[derive(Debug, Clone, Default)]
pub struct Map {
    /// By address, or by `@domain`; lower case.
    entries: HashMap<String, Target>,
}

/// Where one recipient lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The new address; `None` = it keeps its own.
    pub address: Option<ForwardPath>,
    /// The server to hand it to; `None` = as the processor would.
    pub next_hop: Option<NextHop>,
    /// Who says so.
    pub origin: Origin,
    /// The key of the map that matched, or the name of the entry.
    pub key: String,
}

/// Who says where a recipient lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A map.
    Map,
    /// A directory.
    Directory,
}

/// The rewritten address would be longer than RFC 5321 §4.5.3.1 allows, or is malformed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "entry `{key}` turns a recipient into an address that is malformed or too long; shorten the new domain or list the recipient by itself"
)]
pub struct RewriteError {
    /// The key of the map that matched.
    pub key: String,
}

// === impl Map ===

impl Map {
    /// Where `recipient` lives; `None`: the map does not know it, or sends it where it is.
    pub fn look_up(&self, recipient: &ForwardPath) -> Result<Option<Route>, RewriteError> {
        let Some((key, target, detail)) = self.find(recipient) else {
            return Ok(None);
        };
        let address = match &target.address {
            None => None,
            Some(new) => Some(
                rewritten(recipient, new, detail)
                    .ok_or_else(|| RewriteError { key: key.clone() })?,
            ),
        };
        let address = address.filter(|address| address != recipient);
        if address.is_none() && target.next_hop.is_none() {
            return Ok(None);
        }
        Ok(Some(Route {
            address,
            next_hop: target.next_hop.clone(),
            origin: Origin::Map,
            key,
        }))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A map that changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The matching key, its target, and the detail that the key did not cover.
    fn find<'a>(&self, recipient: &'a ForwardPath) -> Option<(String, &Target, Option<&'a str>)> {
        let (local, domain) = parts(recipient);
        let domain = domain.to_lowercase();
        let get = |key: String| self.entries.get(&key).map(|target| (key, target));
        if let Some((key, target)) = get(join(&plain(local), &domain)) {
            return Some((key, target, None));
        }
        // A quoted local part has no detail of its own: `"joe+tag"` is found as `joe+tag` above.
        if let Some((user, detail)) = split_detail(local)
            && let Some((key, target)) = get(join(&plain(user), &domain))
        {
            return Some((key, target, Some(detail)));
        }
        let (key, target) = get(format!("@{domain}")).filter(|_| !domain.is_empty())?;
        Some((key, target, None))
    }
}

pub(crate) fn rewritten(
    recipient: &ForwardPath,
    new: &NewAddress,
    detail: Option<&str>,
) -> Option<ForwardPath> {
    match (new, detail) {
        (NewAddress::Whole(whole), None) => Some(whole.clone()),
        (NewAddress::Whole(whole), Some(detail)) => {
            let (user, domain) = parts(whole);
            ForwardPath::parse(&format!("{user}{DETAIL_SEPARATOR}{detail}@{domain}"))
        }
        (NewAddress::Domain(domain), _) => {
            ForwardPath::parse(&format!("{}@{domain}", parts(recipient).0))
        }
    }
}

/// Local part and domain as written; `postmaster` alone has no domain.
pub(crate) fn parts(path: &ForwardPath) -> (&str, &str) {
    match path {
        ForwardPath::Postmaster(local) => (local, ""),
        ForwardPath::Mailbox(mailbox) => (mailbox.local_part(), mailbox.domain()),
    }
}

pub(crate) fn join(local: &str, domain: &str) -> String {
    if domain.is_empty() {
        local.to_owned()
    } else {
        format!("{local}@{domain}")
    }
}

/// `joe+tag` → (`joe`, `tag`); none for `+tag`, which has no user.
pub(crate) fn split_detail(local: &str) -> Option<(&str, &str)> {
    local
        .split_once(DETAIL_SEPARATOR)
        .filter(|(user, _)| !user.is_empty() && !local.starts_with('"'))
}

/// Lower case, and without the quoting that has no meaning of its own (RFC 5321 §4.1.2).
pub(crate) fn plain(local: &str) -> String {
    let inner = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(inner) = inner else {
        return local.to_lowercase();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let pair = (character == '\\').then(|| characters.next()).flatten();
        plain.extend(pair.unwrap_or(character).to_lowercase());
    }
    plain
}

#[cfg(test)]
mod tests;
