//! AUTH against a user file: lines `name:PHC-string`, argon2.
//!
//! Hashing is slow on purpose, so it runs on the blocking pool, [`VERIFICATIONS_MAX`] at once. The file is read again when it
//! changes; a broken edit keeps the last good one.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Argon2, password_hash::rand_core::OsRng};
use opes_reload::Reloaded;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

/// Password hashes computed at once; more wait.
pub(crate) const VERIFICATIONS_MAX: usize = 2;

/// The users of one listener.
#[derive(Debug)]
pub(crate) struct Users {
    hashes: Reloaded<HashMap<String, String>>,
    permits: Semaphore,
    /// Verified for unknown names, so that they take as long as known ones.
    decoy: String,
}

impl Users {
    /// Reads the file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let hashes = Reloaded::open(path, |path, text| {
            // Its causes too: the last good file stays, and this is all that the log says.
            read(path, text).map_err(|error| format!("{error:#}"))
        });
        Ok(Self {
            hashes: hashes.context("user file")?,
            permits: Semaphore::new(VERIFICATIONS_MAX),
            decoy: hash("decoy")?,
        })
    }

    /// Is this the password of `name`?
    pub(crate) async fn verify(&self, name: &str, password: SecretString) -> bool {
        let known = self.hashes.current().get(name).cloned();
        let exists = known.is_some();
        let hash = known.unwrap_or_else(|| self.decoy.clone());
        let Ok(_permit) = self.permits.acquire().await else {
            return false;
        };
        let matches = tokio::task::spawn_blocking(move || matches(&hash, &password));
        matches.await.unwrap_or(false) && exists
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

fn read(path: &Path, text: &str) -> Result<HashMap<String, String>> {
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
        let message = format!("{:#}", Users::load(file.path()).unwrap_err());
        assert!(
            message.contains(":2:") && message.contains("opes user hash"),
            "{message}"
        );
        assert!(!message.contains("secret"), "{message}");
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |name: &str, password: &str| format!("{name}:{}\n", hash(password).unwrap());
        std::fs::write(file.path(), line("paul", "old")).unwrap();
        let users = Users::load(file.path()).unwrap();
        let settle = || while users.hashes.look() != opes_reload::Look::Unchanged {};
        std::fs::write(file.path(), line("paul", "new") + &line("steve", "x")).unwrap();
        settle();
        assert!(users.verify("paul", "new".into()).await);
        assert!(!users.verify("paul", "old".into()).await);
        std::fs::write(file.path(), "paul:").unwrap();
        settle();
        assert!(users.verify("paul", "new".into()).await);
    }
}
