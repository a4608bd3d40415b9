//! Where the gate compiles to: a folder per dependency set outside the checkout, so that a clean checkout is tested warm.
//!
//! `CARGO_TARGET_DIR` wins. Otherwise `${XDG_CACHE_HOME:-~/.cache}/opes/target-HASH`, where HASH is of `Cargo.lock`. Folders
//! of other dependency sets are removed a day after their last use, except the most recent one.
//!
//! Checkouts share it. What Cargo makes of the workspace has paths of the checkout in it, and is fresh to Cargo in another one: the
//! folder knows whose it is, and the workspace's own part is made anew when it changes hands.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};

use crate::step::{cargo_command, root};

const MARKER: &str = ".opes-last-used";
/// Path of the checkout that was built last.
const CHECKOUT: &str = ".opes-checkout";
const UNUSED_FOR: Duration = Duration::from_hours(24);
const OTHERS_KEPT: usize = 1;

/// The folder, made and marked as used.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = FOLDER.get() {
        return Ok(folder.clone());
    }
    let folder = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(given) => root().join(given),
        None => cached_folder()?,
    };
    Ok(FOLDER.get_or_init(|| folder).clone())
}

fn cached_folder() -> anyhow::Result<PathBuf> {
    let lock = fs::read(root().join("Cargo.lock")).context("Cargo.lock")?;
    let folder = keyed("target", &lock)?;
    let here = root().canonicalize()?;
    if is_handed_over(&folder, &here)? {
        println!("xtask: {} was another checkout's", folder.display());
        for profile in [
            &["clean", "--workspace"][..],
            &["clean", "--workspace", "--release"],
        ] {
            let mut clean = cargo_command(&folder);
            let status = clean.args(profile).status().context("cargo clean")?;
            ensure!(status.success(), "{clean:?}: {status}");
        }
    }
    fs::write(folder.join(CHECKOUT), here.as_os_str().as_encoded_bytes())?;
    Ok(folder)
}

/// Whether `folder` has something in it that may be of another checkout than `here`.
fn is_handed_over(folder: &Path, here: &Path) -> anyhow::Result<bool> {
    match fs::read(folder.join(CHECKOUT)) {
        Ok(last) => Ok(last != here.as_os_str().as_encoded_bytes()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(folder.join("debug").exists()),
        Err(error) => Err(error).context(CHECKOUT),
    }
}

/// The folder of this kind for what is made from `key`, marked as used; unused ones of other keys are removed.
pub(crate) fn keyed(kind: &str, key: &[u8]) -> anyhow::Result<PathBuf> {
    let cache = cache_home()?.join("opes");
    let folder = cache.join(format!("{kind}-{:016x}", fnv1a(key)));
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}; set CARGO_TARGET_DIR", folder.display()))?;
    fs::write(folder.join(MARKER), b"").context("cannot write the cache folder")?;
    for old in outdated(others(&cache, kind, &folder)?, SystemTime::now()) {
        println!(
            "xtask: removing {}, which nothing has used for a day",
            old.display()
        );
        fs::remove_dir_all(&old).with_context(|| old.display().to_string())?;
    }
    Ok(folder)
}

fn cache_home() -> anyhow::Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .context("neither HOME nor XDG_CACHE_HOME is set; set CARGO_TARGET_DIR")
}

/// Folders of this kind for other keys with the time of their last use.
fn others(cache: &Path, kind: &str, current: &Path) -> anyhow::Result<Vec<(SystemTime, PathBuf)>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        let marker = fs::metadata(path.join(MARKER)).and_then(|marker| marker.modified());
        let same_kind = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(kind)?.strip_prefix('-'))
            .is_some();
        if let (true, Ok(used)) = (same_kind && path != current, marker) {
            others.push((used, path));
        }
    }
    Ok(others)
}

fn outdated(mut folders: Vec<(SystemTime, PathBuf)>, now: SystemTime) -> Vec<PathBuf> {
    folders.sort_by(|a, b| b.cmp(a));
    let unused = |used: &SystemTime| now.duration_since(*used).is_ok_and(|age| age > UNUSED_FOR);
    let beyond = folders.into_iter().skip(OTHERS_KEPT);
    beyond
        .filter(|(used, _)| unused(used))
        .map(|(_, path)| path)
        .collect()
}

/// FNV-1a, 64 bits: equal inputs get equal folder names, on every version of Rust.
fn fnv1a(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_folder_knows_whose_it_is() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let handed_over = |here| is_handed_over(folder.path(), Path::new(here));
        assert!(!handed_over("/a")?, "it is new");
        fs::create_dir(folder.path().join("debug"))?;
        assert!(handed_over("/a")?, "nobody knows whose");
        fs::write(folder.path().join(CHECKOUT), "/a")?;
        assert!(!handed_over("/a")?);
        assert!(handed_over("/b")?);
        Ok(())
    }

    #[test]
    fn recent_and_most_recent_folders_stay() {
        let hour = Duration::from_hours(1);
        let now = SystemTime::UNIX_EPOCH + 1000 * hour;
        let used = |hours: u32, name: &str| (now - hours * hour, PathBuf::from(name));
        assert!(outdated(vec![used(900, "only")], now).is_empty());
        assert!(outdated(vec![used(1, "a"), used(2, "b")], now).is_empty());
        let old = outdated(vec![used(30, "b"), used(90, "c"), used(25, "a")], now);
        assert_eq!(old, [PathBuf::from("b"), PathBuf::from("c")]);
    }
}
