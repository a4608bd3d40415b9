//! An authority made by `openssl`, with people.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use opes_e2e::need;

use opes_e2e::run;

/// An authority in a folder of its own.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    /// With certificates of these people.
    pub(crate) fn of(people: &[&str]) -> Result<Self> {
        need("openssl");
        let made = Self {
            folder: tempfile::tempdir()?,
        };
        made.openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=Authority -days 2",
        )?;
        for address in people {
            std::fs::write(
                made.path().join("extensions"),
                format!(
                    "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=emailProtection\nsubjectAltName=email:{address}\n"
                ),
            )?;
            made.openssl(&format!(
                "req -newkey rsa:2048 -nodes -keyout {address}.key -out request -subj /CN={address}"
            ))?;
            made.openssl(&format!(
                "x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -out {address}.crt -days 1 -extfile extensions"
            ))?;
        }
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `openssl` in the folder; words are separated by blanks.
    pub(crate) fn openssl(&self, words: &str) -> Result<Vec<u8>> {
        let mut command = Command::new("openssl");
        command.current_dir(self.path()).args(words.split(' '));
        Ok(run(&mut command, b"")?.stdout)
    }

    /// The authority, for signatures.
    pub(crate) fn publish_authority(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir(folder.join("anchors"))?;
        std::fs::copy(self.path().join("ca.crt"), folder.join("anchors/ca.crt"))?;
        Ok(())
    }

    /// The certificate of `address`.
    pub(crate) fn publish(&self, address: &str, folder: &Path) -> Result<()> {
        let from = self.path().join(format!("{address}.crt"));
        std::fs::copy(from, folder.join(format!("{address}.crt.pem")))?;
        Ok(())
    }

    /// Certificate and key of `address`.
    pub(crate) fn hand_over(&self, address: &str, folder: &Path) -> Result<()> {
        self.publish(address, folder)?;
        let from = self.path().join(format!("{address}.key"));
        std::fs::copy(from, folder.join(format!("{address}.key.pem")))?;
        Ok(())
    }
}
