//! Links that cannot be guessed, changed or used too late.
//!
//! A link is `BASE/TOKEN`. A token is 37 octets in base64url without padding (RFC 4648 §5): the object's id (16, random), the second in
//! which it expires (5, since 1970, big-endian), and the first 16 octets of HMAC-SHA256 over both (RFC 2104 §5 allows half the hash). It
//! says nothing of the message, its sender or its recipient. A token is judged without the store: whoever tries tokens costs one hash each.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use opes_reload::Reloaded;

/// Octets of an object's id.
pub const ID_OCTETS: usize = 16;
/// Octets of the time in a token: enough until the year 36812.
const EXPIRY_OCTETS: usize = 5;
/// Octets of the signature in a token.
const MAC_OCTETS: usize = 16;
/// Characters of a token.
pub const TOKEN_CHARS: usize = (ID_OCTETS + EXPIRY_OCTETS + MAC_OCTETS) * 4 / 3 + 1;
/// Octets that a key must have at least.
const KEY_OCTETS_MIN: usize = 32;
/// Most keys at once.
const KEYS_MAX: usize = 16;
/// Said under the key before anything else, so that it can serve nothing but links.
const DOMAIN: &[u8] = b"opes attachment link 1\0";

/// What a link is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Nobody can guess it.
    pub id: [u8; ID_OCTETS],
    /// Second since 1970 from which on the link does not work.
    pub expires: u64,
}

/// Why a token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not signed by any of the keys, or no token at all.
    Unknown,
    /// It was good until this second since 1970.
    Expired(u64),
}

/// The keys that sign links; a file of them is read again when it changes.
#[derive(Clone)]
pub struct Keys(Source);

#[derive(Clone)]
enum Source {
    File(Reloaded<Vec<hmac::Key>>),
    Own(Arc<Vec<hmac::Key>>),
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be used.
    #[error("keyFile: {0}")]
    File(#[from] opes_reload::OpenError),
    /// The key beside the folder cannot be read or made.
    #[error("{path}: {source}; make the folder writable for the service, or name a keyFile")]
    Own {
        /// Of the key.
        path: String,
        /// From the system.
        source: io::Error,
    },
    /// The key beside the folder is none.
    #[error("{0}")]
    Malformed(String),
}

// === impl Key ===

impl Key {
    /// A new object that expires then.
    pub fn random(expires: u64) -> anyhow::Result<Self> {
        let mut id = [0; ID_OCTETS];
        rand::fill(&mut id).map_err(|_| anyhow::anyhow!("the system gives no random octets"))?;
        Ok(Self { id, expires })
    }

    fn octets(&self) -> [u8; ID_OCTETS + EXPIRY_OCTETS] {
        let mut octets = [0; ID_OCTETS + EXPIRY_OCTETS];
        let [_, _, _, expiry @ ..] = self.expires.to_be_bytes();
        for (to, from) in octets.iter_mut().zip(self.id.iter().chain(&expiry)) {
            *to = *from;
        }
        octets
    }
}

// === impl Keys ===

impl Keys {
    /// From a file with one key a line, in base64; the first one signs, all of them are good.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        Ok(Self(Source::File(Reloaded::open(path, parse)?)))
    }

    /// From a file of the service's own, which is made with a random key, for its owner alone, if it is not there.
    pub fn own(path: &Path) -> Result<Self, KeyError> {
        let error = |source| KeyError::Own {
            path: path.display().to_string(),
            source,
        };
        let text = match read(path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                make(path).and_then(|()| read(path))
            }
            other => other,
        };
        let keys = parse(path, &text.map_err(error)?).map_err(KeyError::Malformed)?;
        Ok(Self(Source::Own(Arc::new(keys))))
    }

    /// The token for an object.
    pub fn sign(&self, key: Key) -> String {
        let octets = key.octets();
        // A reading without a key is refused by the parser.
        let mac = self.current().first().map(|with| mac(with, &octets));
        URL_SAFE_NO_PAD.encode([&octets[..], &mac.unwrap_or_default()].concat())
    }

    /// What the token is about, if it is good at `now`, in seconds since 1970.
    pub fn verify(&self, token: &str, now: u64) -> Result<Key, Refusal> {
        let (signed, key) = take_apart(token).ok_or(Refusal::Unknown)?;
        let octets = key.octets();
        let keys = self.current();
        let is_by =
            |with: &hmac::Key| verify_slices_are_equal(&mac(with, &octets), &signed).is_ok();
        if !keys.iter().any(is_by) {
            return Err(Refusal::Unknown);
        }
        if key.expires <= now {
            return Err(Refusal::Expired(key.expires));
        }
        Ok(key)
    }

    fn current(&self) -> Arc<Vec<hmac::Key>> {
        match &self.0 {
            Source::File(keys) => keys.current(),
            Source::Own(keys) => Arc::clone(keys),
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

fn mac(with: &hmac::Key, octets: &[u8]) -> [u8; MAC_OCTETS] {
    let mut context = hmac::Context::with_key(with);
    context.update(DOMAIN);
    context.update(octets);
    let tag = context.sign();
    let mut mac = [0; MAC_OCTETS];
    for (to, from) in mac.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    mac
}

/// Signature and claim; `None`: not the one spelling that a token has.
fn take_apart(token: &str) -> Option<([u8; MAC_OCTETS], Key)> {
    if token.len() != TOKEN_CHARS {
        return None;
    }
    let octets = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (id, rest) = octets.split_at_checked(ID_OCTETS)?;
    let (expiry, signed) = rest.split_at_checked(EXPIRY_OCTETS)?;
    let expires = expiry
        .iter()
        .fold(0, |number, octet| (number << 8) | u64::from(*octet));
    let id = id.try_into().ok()?;
    Some((signed.try_into().ok()?, Key { id, expires }))
}

fn parse(path: &Path, text: &str) -> Result<Vec<hmac::Key>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut keys = Vec::new();
    for (index, line) in lines {
        let octets = STANDARD.decode(line).unwrap_or_default();
        if octets.len() < KEY_OCTETS_MIN || keys.len() >= KEYS_MAX {
            return Err(format!(
                "{}:{}: not one of at most {KEYS_MAX} keys of {KEY_OCTETS_MIN} octets or more in base64, one a line; `openssl rand -base64 32` makes one",
                path.display(),
                index + 1
            ));
        }
        keys.push(hmac::Key::new(hmac::HMAC_SHA256, &octets));
    }
    if keys.is_empty() {
        return Err(format!(
            "{}: has no key; `openssl rand -base64 32` makes one",
            path.display()
        ));
    }
    Ok(keys)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // A key has 44 characters; more than this is another file.
    File::open(path)?
        .take(64 * 1024)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Whole or not at all: written under another name, and given its own only if nobody else has made one meanwhile.
fn make(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_OCTETS_MIN];
    let mut name = [0; 8];
    let no_random = |_| io::Error::other("the system gives no random octets");
    rand::fill(&mut key).map_err(no_random)?;
    rand::fill(&mut name).map_err(no_random)?;
    let draft = path.with_extension(URL_SAFE_NO_PAD.encode(name));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file
        .write_all(format!("{}\n", STANDARD.encode(key)).as_bytes())
        .and_then(|()| file.sync_all());
    let linked = written.and_then(|()| std::fs::hard_link(&draft, path));
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
    }
}

#[cfg(test)]
mod tests;
