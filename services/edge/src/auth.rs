//! AUTH against a user file: lines `name:PHC-string`, argon2.
//!
//! Hashing is slow on purpose, so it runs on the blocking pool, [`VERIFICATIONS_MAX`] at once. The file is read anew when it
//! changes; a broken edit keeps the last good one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Argon2, password_hash::rand_core::OsRng};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

/// Password hashes computed at once; more wait.
pub(crate) const VERIFICATIONS_MAX: usize = 2;

/// The users of one listener.
#[derive(Debug)]
pub(crate) struct Users {
    path: PathBuf,
    state: Mutex<State>,
    permits: Semaphore,
    /// Verified for unknown names, so that they take as long as known ones.
    decoy: String,
}

#[derive(Debug)]
struct State {
    modified: Option<SystemTime>,
    hashes: Arc<HashMap<String, String>>,
}

impl Users {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let hashes = Arc::new(read(path)?);
        Ok(Self {
            path: path.into(),
            state: Mutex::new(State {
                modified: modified(path),
                hashes,
            }),
            permits: Semaphore::new(VERIFICATIONS_MAX),
            decoy: hash("decoy")?,
        })
    }

    /// Is this the password of `name`?
    pub(crate) async fn verify(&self, name: &str, password: SecretString) -> bool {
        let known = self.hashes().get(name).cloned();
        let exists = known.is_some();
        let hash = known.unwrap_or_else(|| self.decoy.clone());
        let Ok(_permit) = self.permits.acquire().await else {
            return false;
        };
        let matches = tokio::task::spawn_blocking(move || matches(&hash, &password));
        matches.await.unwrap_or(false) && exists
    }

    fn hashes(&self) -> Arc<HashMap<String, String>> {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = modified(&self.path);
        if now != state.modified {
            state.modified = now;
            match read(&self.path) {
                Ok(hashes) => state.hashes = Arc::new(hashes),
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "user file refused, the last good one stays"
                    );
                }
            }
        }
        Arc::clone(&state.hashes)
    }
}

/// A PHC string for a user file.
pub fn hash(password: &str) -> Result<String> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hash
        .map_err(|error| anyhow::anyhow!("cannot hash the password: {error}"))?
        .to_string())
}

fn matches(hash: &str, password: &SecretString) -> bool {
    PasswordHash::new(hash).is_ok_and(|parsed| {
        Argon2::default()
            .verify_password(password.expose_secret().as_bytes(), &parsed)
            .is_ok()
    })
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|meta| meta.modified())
        .ok()
}

fn read(path: &Path) -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the user file {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    lines
        .map(|(number, line)| parse_line(path, number + 1, line))
        .collect()
}

fn parse_line(path: &Path, number: usize, line: &str) -> Result<(String, String)> {
    let place = || format!("{}:{number}", path.display());
    let (name, hash) = line.trim().split_once(':').with_context(|| {
        format!(
            "{}: expected `name:argon2-hash`; `opes user hash` makes one",
            place()
        )
    })?;
    PasswordHash::new(hash).map_err(|error| {
        anyhow::anyhow!(
            "{}: the hash of `{name}` is not a PHC string ({error}); `opes user hash` makes one",
            place()
        )
    })?;
    Ok((name.to_owned(), hash.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            format!("# users\npaul:{}\n", hash("correct horse").unwrap()),
        )
        .unwrap();
        let users = Users::load(file.path()).unwrap();
        assert!(users.verify("paul", "correct horse".into()).await);
        assert!(!users.verify("paul", "wrong".into()).await);
        assert!(!users.verify("steve", "decoy".into()).await);
    }

    #[test]
    fn a_plain_password_is_refused_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\npaul:secret\n").unwrap();
        let message = Users::load(file.path()).unwrap_err().to_string();
        assert!(
            message.contains(":2:") && message.contains("opes user hash"),
            "{message}"
        );
        assert!(!message.contains("secret"), "{message}");
    }
}
