//! Where the keys are and how much is worked on: the `config` of a `CalloutService`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Most entries in `identities` and in `dkim`.
pub(crate) const ENTRIES_MAX: usize = 1000;

/// What `config` may hold. `keys` has no default.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Folder with keys: `*.asc` is OpenPGP, `*.pem` is X.509 and private keys. As a mounted Secret has them.
    pub keys: PathBuf,
    /// PEM file with the authorities that S/MIME certificates must come from. Without it no S/MIME signature is believed.
    #[serde(default)]
    pub trust_anchors: Option<PathBuf>,
    /// Address, or `@domain` for all of a domain → the address whose key stands for it.
    #[serde(default)]
    pub identities: BTreeMap<String, String>,
    /// Keys of domains.
    #[serde(default)]
    pub dkim: Vec<DkimKey>,
    /// Header field with what was found; empty: none.
    #[serde(default = "header")]
    pub header: String,
    /// Octets of a message that is worked on, and of what comes out of one.
    #[serde(default = "size_max")]
    pub size_max: u64,
    /// Messages of more than 256 KiB that are worked on at the same time.
    #[serde(default = "large_messages")]
    pub large_messages: u32,
}

/// A DKIM key (RFC 6376 §3.6).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DkimKey {
    /// SDID, `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// Name of a file in `keys`: PEM, RSA of at least 2048 bits or Ed25519.
    pub file: String,
}

/// Why a configuration makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the fields above.
    #[error("{0}; docs/services/secure-mail.md lists the fields")]
    Fields(#[from] serde_json::Error),
    /// A limit of nothing.
    #[error("{0}: 0 would let nothing be worked on; leave it out for the default")]
    Zero(&'static str),
    /// Too many.
    #[error("{0}: more than {ENTRIES_MAX} entries; run a second service for the others")]
    TooMany(&'static str),
    /// Not a field name.
    #[error("header: `{0}` is not the name of a header field")]
    Header(String),
    /// Not `@domain` and not an address.
    #[error("identities: `{0}` is neither an address nor `@domain`")]
    Identity(String),
    /// Not a domain, or not a name below one.
    #[error("dkim: `{0}` is not a domain name in ASCII; write it as it stands in DNS (`xn--…`)")]
    Domain(String),
    /// A path.
    #[error("dkim: file `{0}` must be the name of a file in `keys`, without a folder")]
    File(String),
}

fn header() -> String {
    "X-Secure-Mail".to_owned()
}

const fn size_max() -> u64 {
    32 * 1024 * 1024
}

const fn large_messages() -> u32 {
    4
}

// === impl Config ===

impl Config {
    /// Reads and checks it; the files are looked at later.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, ConfigError> {
        let mut config = Self::deserialize(json)?;
        if config.size_max == 0 {
            return Err(ConfigError::Zero("sizeMax"));
        }
        if config.large_messages == 0 {
            return Err(ConfigError::Zero("largeMessages"));
        }
        if config.identities.len() > ENTRIES_MAX {
            return Err(ConfigError::TooMany("identities"));
        }
        if config.dkim.len() > ENTRIES_MAX {
            return Err(ConfigError::TooMany("dkim"));
        }
        let is_name = |octet: u8| octet.is_ascii_graphic() && octet != b':';
        if !config.header.bytes().all(is_name) {
            return Err(ConfigError::Header(config.header));
        }
        config.dkim.iter().try_for_each(DkimKey::check)?;
        let lower = |text: &String| text.to_ascii_lowercase();
        config.identities = config
            .identities
            .iter()
            .map(|(from, to)| match (from.contains('@'), to.find('@')) {
                (true, Some(1..)) => Ok((lower(from), lower(to))),
                (true, _) => Err(ConfigError::Identity(to.clone())),
                (false, _) => Err(ConfigError::Identity(from.clone())),
            })
            .collect::<Result<_, _>>()?;
        Ok(config)
    }

    /// With relative paths below `folder`.
    #[must_use]
    pub fn below(mut self, folder: &Path) -> Self {
        self.keys = folder.join(self.keys);
        let anchors = self.trust_anchors;
        self.trust_anchors = anchors.map(|path| folder.join(path));
        self
    }
}

// === impl DkimKey ===

impl DkimKey {
    fn check(&self) -> Result<(), ConfigError> {
        for name in [&self.domain, &self.selector] {
            let is_label = |label: &str| {
                let mut octets = label.bytes();
                !label.is_empty()
                    && label.len() <= 63
                    && octets.all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
            };
            if name.len() > 253 || !name.split('.').all(is_label) {
                return Err(ConfigError::Domain(name.clone()));
            }
        }
        if self.file.contains('/') || self.file.starts_with('.') || self.file.is_empty() {
            return Err(ConfigError::File(self.file.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let dkim = |domain, file| json!({ "keys": "/k", "dkim": [{ "domain": domain, "selector": "s", "file": file }] });
        for (config, said) in [
            (json!({}), "missing field `keys`"),
            (
                json!({ "keys": "/k", "password": "x" }),
                "unknown field `password`",
            ),
            (json!({ "keys": "/k", "sizeMax": 0 }), "sizeMax: 0"),
            (json!({ "keys": "/k", "header": "X:" }), "header: `X:`"),
            (
                json!({ "keys": "/k", "identities": { "example.com": "a@example.com" } }),
                "identities: `example.com`",
            ),
            (
                json!({ "keys": "/k", "identities": { "@example.com": "@example.com" } }),
                "identities: `@example.com`",
            ),
            (dkim("exa mple.com", "a.pem"), "dkim: `exa mple.com`"),
            (dkim("example.com", "../a.pem"), "file `../a.pem`"),
        ] {
            let error = Config::from_json(&config).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn addresses_are_compared_in_lower_case() {
        let json = json!({ "keys": "/k", "identities": { "@Example.COM": "Gateway@example.com" } });
        let config = Config::from_json(&json).unwrap();
        assert_eq!(
            config.identities.get("@example.com").map(String::as_str),
            Some("gateway@example.com")
        );
    }
}
