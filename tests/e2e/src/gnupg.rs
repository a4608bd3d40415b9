//! GnuPG with a home of its own.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};

use crate::{need, run};

/// A key ring. Its agent ends with it.
pub struct GnuPg {
    home: tempfile::TempDir,
}

impl Drop for GnuPg {
    fn drop(&mut self) {
        let mut end = Command::new("gpgconf");
        let end = end.arg("--homedir").arg(self.home.path());
        let _gone = end.args(["--kill", "all"]).output();
    }
}

impl GnuPg {
    /// With new keys of these people: Ed25519 and Curve25519, as GnuPG makes them by default now.
    pub fn of(people: &[&str]) -> Result<Self> {
        need("gpg");
        let made = Self {
            home: tempfile::Builder::new().prefix("gpg").tempdir()?,
        };
        for address in people {
            let name = format!("Somebody <{address}>");
            made.gpg(
                &[
                    "--quick-generate-key",
                    &name,
                    "future-default",
                    "default",
                    "never",
                ],
                b"",
            )?;
        }
        Ok(made)
    }

    /// `gpg` in batch mode.
    pub fn gpg(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.home.path()).args([
            "--batch",
            "--no-tty",
            "--trust-model",
            "always",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        ]);
        run(command.args(arguments), input)
    }

    /// Puts the public key of `address` into `folder`.
    pub fn publish(&self, address: &str, folder: &Path) -> Result<()> {
        let key = self.gpg(&["--armor", "--export", address], b"")?.stdout;
        ensure!(!key.is_empty(), "no key of {address}");
        Ok(std::fs::write(folder.join(format!("{address}.asc")), key)?)
    }

    /// Puts the secret key of `address` into `folder`.
    pub fn hand_over(&self, address: &str, folder: &Path) -> Result<()> {
        let key = self.gpg(&["--armor", "--export-secret-keys", address], b"")?;
        let path = folder.join(format!("{address}.secret.asc"));
        Ok(std::fs::write(path, key.stdout)?)
    }

    /// What is in `armor`, and what GnuPG says of it on its status lines.
    pub fn decrypt(&self, armor: &str) -> Result<(String, String)> {
        let output = self.gpg(&["--status-fd", "2", "--decrypt"], armor.as_bytes())?;
        Ok((
            String::from_utf8(output.stdout)?,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// What GnuPG says of a detached signature over `content`.
    pub fn verify(&self, content: &str, signature: &str) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let (text, armor) = (folder.path().join("text"), folder.path().join("text.asc"));
        std::fs::write(&text, content)?;
        std::fs::write(&armor, signature)?;
        let (text, armor) = (text.display().to_string(), armor.display().to_string());
        let output = self.gpg(&["--status-fd", "2", "--verify", &armor, &text], b"")?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
