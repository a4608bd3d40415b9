//! Filters and statements with places for what is asked for.
//!
//! Checked once, when the configuration is read. A place stands for one value: within an LDAP filter only where RFC 4515 has an
//! assertion value, and what goes there is escaped octet by octet; within an SQL statement as a parameter of its own. So no
//! address, however it is written, changes what is asked.

mod filter;
mod query;

use std::collections::BTreeMap;

pub use filter::FilterTemplate;
pub use query::QueryTemplate;

/// Octets of a filter or statement, as configured.
pub(crate) const TEMPLATE_OCTETS_MAX: usize = 8 * 1024;
/// Octets of one value; an address has 254 (RFC 5321 §4.5.3.1.3), an identity may be longer.
pub(crate) const VALUE_OCTETS_MAX: usize = 1024;

/// What is asked for: a value for each name that a template may use. A name without value makes the answer "unknown" without
/// a question, as the domain of an address that has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Inputs(BTreeMap<&'static str, String>);

/// A value that no question is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unaskable;

// === impl Inputs ===

impl Inputs {
    /// With one more value.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// `s`, `u` and `d`: the whole address, local part and domain. Parts that are empty are left out.
    #[must_use]
    pub fn address(self, whole: &str, local_part: &str, domain: &str) -> Self {
        let parts = [("s", whole), ("u", local_part), ("d", domain)];
        let there = parts.into_iter().filter(|(_, value)| !value.is_empty());
        there.fold(self, |inputs, (name, value)| inputs.with(name, value))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The values of `names`, in this order.
    pub(crate) fn values(&self, names: &[String]) -> Result<Vec<String>, Unaskable> {
        let value = |name: &String| {
            let value = self.get(name).filter(|value| !value.is_empty());
            let askable = |value: &&str| value.len() <= VALUE_OCTETS_MAX && !value.contains('\0');
            value.filter(askable).map(str::to_owned).ok_or(Unaskable)
        };
        names.iter().map(value).collect()
    }
}

/// Is `name` one of `known`? The error lists them, as `mark` introduces them.
fn check_name(name: &str, known: &[&str], mark: &str) -> Result<(), String> {
    if known.contains(&name) {
        return Ok(());
    }
    let all: Vec<String> = known.iter().map(|name| format!("{mark}{name}")).collect();
    Err(format!(
        "there is no `{mark}{name}`; there are {}",
        all.join(", ")
    ))
}
