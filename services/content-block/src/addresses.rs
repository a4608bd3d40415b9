//! A list of addresses, looked up in the same time however long it is.

use std::collections::HashSet;

/// `joe@example.org`, `joe@` (in any domain), `@example.org` (everybody there), `@.example.org` (everybody below it).
#[derive(Debug, Clone, Default)]
pub struct AddressList {
    entries: HashSet<String>,
}

// === impl AddressList ===

impl AddressList {
    /// The error is the entry that is none of the four forms.
    pub fn new(entries: &[String]) -> Result<Self, String> {
        let mut list = Self::default();
        for entry in entries {
            let (local, domain) = entry.rsplit_once('@').ok_or_else(|| entry.clone())?;
            let name = domain.strip_prefix('.').unwrap_or(domain);
            let below_of_somebody = domain.starts_with('.') && !local.is_empty();
            let nobody = local.is_empty() && name.is_empty();
            if nobody || below_of_somebody || (name.is_empty() && !domain.is_empty()) {
                return Err(entry.clone());
            }
            list.entries.insert(entry.to_lowercase());
        }
        Ok(list)
    }

    /// The entry that an address is on the list by. The null reverse-path is on none.
    pub fn find(&self, address: &str) -> Option<&str> {
        let address = address.to_lowercase();
        let (local, domain) = address.rsplit_once('@')?;
        let get = |entry: String| self.entries.get(&entry).map(String::as_str);
        get(address.clone())
            .or_else(|| get(format!("{local}@")))
            .or_else(|| get(format!("@{domain}")))
            .or_else(|| {
                let parents = domain.match_indices('.').map(|(at, _)| &domain[at + 1..]);
                parents
                    .into_iter()
                    .find_map(|parent| get(format!("@.{parent}")))
            })
    }

    /// Nobody is refused.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Result<AddressList, String> {
        let entries: Vec<_> = entries.iter().map(|&entry| entry.to_owned()).collect();
        AddressList::new(&entries)
    }

    #[test]
    fn each_form() {
        let list = list(&[
            "Joe@example.org",
            "sales@",
            "@spam.example",
            "@.bad.example",
        ])
        .unwrap();
        for (address, found) in [
            ("joe@EXAMPLE.org", Some("joe@example.org")),
            ("sales@anything.example", Some("sales@")),
            ("a@spam.example", Some("@spam.example")),
            ("a@b.c.bad.example", Some("@.bad.example")),
            ("a@bad.example", None),
            ("a@sub.spam.example", None),
            ("ann@example.org", None),
            ("", None),
            ("postmaster", None),
        ] {
            assert_eq!(list.find(address), found, "{address}");
        }
    }

    #[test]
    fn what_is_no_entry_is_named() {
        for bad in ["example.org", "@", "joe@.example.org", "@.", ""] {
            assert_eq!(list(&["a@b", bad]).unwrap_err(), bad);
        }
    }
}
