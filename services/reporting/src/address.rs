//! How much of an address is kept: all of it, a keyed hash, or its domain.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;

use crate::config::{AddressMode, Config, ConfigError};
use crate::text::{clean, hexadecimal};

/// Octets of an address (RFC 5321 §4.5.3.1) and of a domain that are kept.
const ADDRESS_OCTETS_MAX: usize = 320;
const DOMAIN_OCTETS_MAX: usize = 255;

/// Octets of a key.
const KEY_OCTETS: usize = 32;

/// Octets of a hash that are kept: two addresses of a trillion have the same by accident with a chance of 2⁻⁴⁸.
const HASH_OCTETS: usize = 16;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else is in it.
    #[error("{0} has not 64 hexadecimal digits; make a key with `openssl rand -hex 32`")]
    NoKey(PathBuf),
    /// The system has no randomness.
    #[error("no random octets for a key")]
    Random,
}

/// Turns addresses into what is kept of them.
#[derive(Debug)]
pub(crate) enum Addresses {
    Full,
    Hashed(Box<hmac::Key>),
    Domains,
}

/// What is kept of one address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kept {
    /// Empty for the null reverse-path, and where domains only are kept.
    pub(crate) address: String,
    /// In lower case; empty if there is none.
    pub(crate) domain: String,
}

// === impl Addresses ===

impl Addresses {
    /// Reads the key, or makes it where that is for us to do.
    pub(crate) fn open(config: &Config) -> Result<Self, ConfigError> {
        Ok(match config.addresses {
            AddressMode::Full => Self::Full,
            AddressMode::Domains => Self::Domains,
            AddressMode::Hashed => {
                let (path, may_make) = config.key_place()?;
                let octets = key(&path, may_make)?;
                Self::Hashed(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &octets)))
            }
        })
    }

    /// Of a reverse-path or forward-path without brackets.
    pub(crate) fn keep(&self, address: &str) -> Kept {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        let domain = clean(&domain.to_lowercase(), DOMAIN_OCTETS_MAX);
        let address = match self {
            _ if address.is_empty() => String::new(),
            Self::Full => clean(address, ADDRESS_OCTETS_MAX),
            Self::Hashed(key) => hash(key, address),
            Self::Domains => String::new(),
        };
        Kept { address, domain }
    }
}

/// Of the address in lower case: people write theirs in many ways, and mean one mailbox.
fn hash(key: &hmac::Key, address: &str) -> String {
    let tag = hmac::sign(key, address.to_lowercase().as_bytes());
    hexadecimal(tag.as_ref().get(..HASH_OCTETS).unwrap_or_default())
}

fn key(path: &Path, may_make: bool) -> Result<[u8; KEY_OCTETS], KeyError> {
    let file = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    match read(path) {
        Ok(text) => parse(&text).ok_or_else(|| KeyError::NoKey(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_make => {
            make(path)?;
            let text = read(path).map_err(file)?;
            parse(&text).ok_or_else(|| KeyError::NoKey(path.to_owned()))
        }
        Err(error) => Err(file(error)),
    }
}

/// No more than a key and its line end.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(1024).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> Option<[u8; KEY_OCTETS]> {
    let digits = text.trim();
    if digits.len() != 2 * KEY_OCTETS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut octets = [0; KEY_OCTETS];
    for (octet, at) in octets.iter_mut().zip((0..).step_by(2)) {
        *octet = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(octets)
}

/// Whole or not at all, for its owner only; the first of two processes that make one wins.
fn make(path: &Path) -> Result<(), KeyError> {
    let mut octets = [0; KEY_OCTETS];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| KeyError::Random)?;
    let file = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    let mut name = path.as_os_str().to_owned();
    name.push(format!(
        ".{}-{}",
        std::process::id(),
        hexadecimal(octets.get(..4).unwrap_or(&[]))
    ));
    let draft = PathBuf::from(name);
    let written = write(&draft, &hexadecimal(&octets));
    let linked = written.and_then(|()| match std::fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    // Left over at worst: a key that nothing is hashed with.
    let _removed = std::fs::remove_file(&draft);
    linked.map_err(file)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn open(config: &serde_json::Value) -> Result<Addresses, ConfigError> {
        Addresses::open(&Config::from_json(config).unwrap())
    }

    #[test]
    fn a_hash_is_the_same_for_an_installation_and_another_elsewhere() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |folder: &tempfile::TempDir| {
            open(&json!({ "database": { "sqlite": folder.path().join("r.sqlite") } })).unwrap()
        };
        let kept = at(&here).keep("Ann@Example.org");
        assert_eq!(kept, at(&here).keep("ann@example.ORG"));
        assert_eq!(
            (kept.address.len(), kept.domain.as_str()),
            (32, "example.org")
        );
        assert!(!kept.address.to_lowercase().contains("ann"));
        assert_ne!(kept, at(&there).keep("ann@example.org"));
        let key = here.path().join("r.sqlite.key");
        let mode = key.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            here.path().read_dir().unwrap().count(),
            1,
            "drafts are left"
        );
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_one_that_is_named_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let config = json!({
            "keyFile": file,
            "database": { "postgres": { "url": "postgres://a@b/c" } },
        });
        let error = open(&config).unwrap_err().to_string();
        assert!(error.starts_with("keyFile: "), "{error}");
        std::fs::write(&file, "secret\n").unwrap();
        let error = open(&config).unwrap_err().to_string();
        assert!(error.contains("openssl rand -hex 32"), "{error}");
        std::fs::write(&file, "0f".repeat(32)).unwrap();
        open(&config).unwrap();
    }

    #[test]
    fn the_other_modes() {
        let full = open(&json!({ "addresses": "full" })).unwrap();
        assert_eq!(full.keep("Ann@Example.org").address, "Ann@Example.org");
        let domains = open(&json!({ "addresses": "domains" })).unwrap();
        let kept = domains.keep("ann@example.org");
        assert_eq!(
            (kept.address.as_str(), kept.domain.as_str()),
            ("", "example.org")
        );
        assert_eq!(domains.keep("").domain, "");
        assert_eq!(domains.keep("postmaster").domain, "");
    }

    proptest! {
        #[test]
        fn whatever_the_address_what_is_kept_is_bounded(address in any::<String>()) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; KEY_OCTETS]);
            for addresses in [Addresses::Full, Addresses::Hashed(Box::new(key)), Addresses::Domains] {
                let kept = addresses.keep(&address);
                prop_assert!(kept.address.len() <= ADDRESS_OCTETS_MAX);
                prop_assert!(kept.domain.len() <= DOMAIN_OCTETS_MAX);
                prop_assert!(!kept.domain.contains('\0') && !kept.address.contains('\0'));
            }
        }

        #[test]
        fn whatever_the_key_file_it_is_a_key_or_none(text in any::<String>()) {
            let digits = text.trim();
            let is_key = digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            prop_assert_eq!(parse(&text).is_some(), is_key);
        }

        #[test]
        fn a_key_is_what_was_written(octets in any::<[u8; KEY_OCTETS]>()) {
            prop_assert_eq!(parse(&hexadecimal(&octets)), Some(octets));
        }
    }
}
