//! Where builds are kept between runs: a folder per user, keyed by the lock file, so that a clean checkout starts warm.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::step;

/// Target folders of older lock files that stay.
const KEPT: usize = 1;

/// `CARGO_TARGET_DIR` if it is set, else `~/.cache/opes/target-HASH`.
pub(crate) fn target_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(folder.into());
    }
    let cache = cache_folder()?;
    let lock = std::fs::read(step::root().join("Cargo.lock")).context("Cargo.lock")?;
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(lock);
    let folder = cache.join(format!("target-{hash:016x}"));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    // The marker's time says when the folder was last used.
    std::fs::write(folder.join("last-used"), "")?;
    prune(&cache, &folder)?;
    Ok(folder)
}

fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(PathBuf::from(home).join(".cache"))
        });
    Ok(base
        .context("neither CARGO_TARGET_DIR nor XDG_CACHE_HOME nor HOME is set")?
        .join("opes"))
}

/// Removes the builds of lock files that have not been used for longest.
fn prune(cache: &Path, current: &Path) -> Result<()> {
    let mut others: Vec<_> = std::fs::read_dir(cache)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path != current
                && path
                    .file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with("target-"))
        })
        .map(|path| {
            let used = std::fs::metadata(path.join("last-used"))
                .and_then(|meta| meta.modified())
                .ok();
            (used, path)
        })
        .collect();
    others.sort();
    let surplus = others.len().saturating_sub(KEPT);
    for (_, path) in others.into_iter().take(surplus) {
        std::fs::remove_dir_all(&path)
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
