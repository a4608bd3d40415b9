//! From text, YAML or an inline configuration to a checked [`Map`].

use std::collections::BTreeMap;
use std::path::Path;

use opes_smtp::grammar::ForwardPath;
use serde::Deserialize;

use super::{ENTRIES_MAX, Map, Target, join, parts, plain};

/// Why a text is no map.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {message}")]
pub struct MapError {
    place: String,
    message: String,
}

/// The right side in YAML and JSON; a word as in the text form, or spelt out.
#[derive(Deserialize)]
#[serde(try_from = "Written")]
struct Entry(Target);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`joe@fr.example.org`, `host:port`, or {address: …, nextHop: …}"
)]
enum Written {
    Words(String),
    Spelt(Spelt),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spelt {
    address: Option<String>,
    next_hop: Option<String>,
}

// === impl Map ===

impl Map {
    /// Reads `file`: YAML if it is called `.yaml` or `.yml`, else a line per entry: `address  target`.
    pub fn from_file(file: &Path, text: &str) -> Result<Self, MapError> {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Self::from_yaml(file, text),
            _ => Self::from_lines(file, text),
        }
    }

    /// `address  new-address|host:port[/lmtp]`, `#` starts a comment at the start of a line.
    fn from_lines(file: &Path, text: &str) -> Result<Self, MapError> {
        let mut map = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, target) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            Target::parse(target)
                .and_then(|target| map.add(key, target))
                .map_err(|message| {
                    let place = format!("{}:{}", file.display(), index + 1);
                    MapError { place, message }
                })?;
        }
        Ok(map)
    }

    fn from_yaml(file: &Path, text: &str) -> Result<Self, MapError> {
        let place = |error: &serde_saphyr::Error| match error.location() {
            Some(at) => format!("{}:{}:{}", file.display(), at.line(), at.column()),
            None => file.display().to_string(),
        };
        let entries: BTreeMap<String, Entry> =
            serde_saphyr::from_str(text).map_err(|error| MapError {
                place: place(&error),
                message: first_line(&error.without_snippet().to_string()),
            })?;
        Self::from_entries(&file.display().to_string(), entries)
    }

    /// Reads a map that stands in the configuration itself.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, MapError> {
        let Some(object) = json.as_object() else {
            return Err(MapError {
                place: "map".to_owned(),
                message: "must be a mapping of addresses to targets".to_owned(),
            });
        };
        let entries = object.iter().map(|(key, value)| {
            let entry = serde_json::from_value(value.clone()).map_err(|error| MapError {
                place: format!("map.\"{key}\""),
                message: error.to_string(),
            });
            Ok((key.clone(), entry?))
        });
        Self::from_entries("map", entries.collect::<Result<_, MapError>>()?)
    }

    fn from_entries(place: &str, entries: BTreeMap<String, Entry>) -> Result<Self, MapError> {
        let mut map = Self::default();
        for (key, Entry(target)) in entries {
            map.add(&key, target).map_err(|message| MapError {
                place: place.to_owned(),
                message,
            })?;
        }
        Ok(map)
    }

    fn add(&mut self, key: &str, target: Target) -> Result<(), String> {
        if self.entries.len() == ENTRIES_MAX {
            return Err(format!("more than {ENTRIES_MAX} entries"));
        }
        let normal = normal_key(key).ok_or_else(|| {
            format!("`{key}` is no key; write joe@example.org, or @example.org for a whole domain")
        })?;
        match self.entries.insert(normal, target) {
            None => Ok(()),
            Some(_) => Err(format!("`{key}` stands twice; remove one")),
        }
    }
}

fn normal_key(key: &str) -> Option<String> {
    if let Some(domain) = key.strip_prefix('@') {
        return ForwardPath::parse(&format!("a@{domain}")).map(|_| key.to_lowercase());
    }
    let path = ForwardPath::parse(key)?;
    let (local, domain) = parts(&path);
    Some(join(&plain(local), &domain.to_lowercase()))
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

// === impl Entry ===

impl TryFrom<Written> for Entry {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Words(words) => Target::parse(&words),
            Written::Spelt(Spelt { address, next_hop }) => {
                Target::parse(&[address, next_hop].map(Option::unwrap_or_default).join(" "))
            }
        }
        .map(Self)
    }
}
