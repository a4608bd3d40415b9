//! The files of the workspace that people write.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Folders that nobody writes by hand.
const SKIPPED_FOLDERS: &[&str] = &["target", ".git", ".opes", "node_modules"];
/// Files that nobody writes by hand; `.git` is one in a linked worktree.
const SKIPPED_FILES: &[&str] = &["Cargo.lock", "LICENSE", ".git"];

/// A text file.
#[derive(Debug)]
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// The root of this workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every text file below `root`; files that are not UTF-8 are left out.
pub fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) {
                open.push(entry.path());
            } else if kind.is_file() && !SKIPPED_FILES.contains(&name.as_str()) {
                found.extend(source(root, &entry.path())?);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn source(root: &Path, path: &Path) -> anyhow::Result<Option<Source>> {
    let octets = fs::read(path).with_context(|| path.display().to_string())?;
    let path = path.strip_prefix(root)?.to_string_lossy().into_owned();
    Ok(String::from_utf8(octets)
        .ok()
        .map(|text| Source { path, text }))
}

// === impl Source ===

impl Source {
    /// Does its name end in one of these, without the dot?
    pub fn has_extension(&self, extensions: &[&str]) -> bool {
        self.path
            .rsplit_once('.')
            .is_some_and(|(_, extension)| extensions.contains(&extension))
    }

    /// Rust that runs in production: below a `src`, and no test module.
    pub fn is_production_rust(&self) -> bool {
        let test = self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        self.has_extension(&["rs"]) && self.path.contains("/src/") && !test
    }
}
