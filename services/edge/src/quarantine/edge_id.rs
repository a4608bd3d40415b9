//! The name of a spool, for life: releases are begun for one, and only its edge knows whether they were stored.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

const FILE: &str = "edge-id";

/// Octets of an id.
const ID_LEN: usize = 16;

/// Read from the spool folder, made at the first start.
pub(crate) fn edge_id(spool: &Path) -> Result<String> {
    let path = spool.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let id = text.trim().to_owned();
            let is_id = id.len() == ID_LEN && id.bytes().all(|octet| octet.is_ascii_hexdigit());
            ensure!(
                is_id,
                "{} is damaged\n  help: remove it; releases that were under way must then be given again with --again",
                path.display()
            );
            Ok(id)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(spool, &path),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn make(spool: &Path, path: &Path) -> Result<String> {
    // The standard library seeds this from the system's randomness.
    let id = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let aside = spool.join(format!(".{FILE}"));
    let write = || {
        let mut file = File::create(&aside)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        File::open(spool)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_a_damaged_one_is_not_replaced() {
        let spool = tempfile::tempdir().unwrap();
        let id = edge_id(spool.path()).unwrap();
        assert_eq!(edge_id(spool.path()).unwrap(), id);
        std::fs::write(spool.path().join(FILE), "").unwrap();
        assert!(edge_id(spool.path()).is_err());
    }
}
