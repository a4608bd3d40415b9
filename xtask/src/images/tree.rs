//! Files and folders, and the tar archive of them: the same octets each time it is made of the same.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// What is in a layer or a layout, by path without a leading slash.
#[derive(Default)]
pub(super) struct Tree {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    owner: u32,
    /// `None` = folder.
    content: Option<Vec<u8>>,
}

// === impl Tree ===

impl Tree {
    /// A file of root's; its folders come along, readable by all.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.folders_of(path);
        let content = Some(content);
        let entry = Entry {
            mode,
            owner: 0,
            content,
        };
        self.entries.insert(path.to_owned(), entry);
    }

    /// An empty folder.
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u32) {
        self.folders_of(path);
        let entry = Entry {
            mode,
            owner,
            content: None,
        };
        self.entries.insert(path.to_owned(), entry);
    }

    fn folders_of(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let folder = path.get(..at).unwrap_or_default().to_owned();
            self.entries.entry(folder).or_insert(Entry {
                mode: 0o755,
                owner: 0,
                content: None,
            });
        }
    }

    /// The archive, with all times at `time` (seconds since 1970).
    pub(super) fn tar(&self, time: u64) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            append(&mut tar, path, entry, time)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, entry: &Entry, time: u64) -> Result<()> {
    let content = entry.content.as_deref();
    let mut header = tar::Header::new_ustar();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.into());
    header.set_gid(entry.owner.into());
    header.set_mtime(time);
    header.set_size(content.map_or(0, |content| content.len() as u64));
    let kind = if content.is_some() {
        tar::EntryType::Regular
    } else {
        tar::EntryType::Directory
    };
    header.set_entry_type(kind);
    tar.append_data(&mut header, path, content.unwrap_or_default())
        .with_context(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_owned_by_numbers_and_without_times() -> Result<()> {
        let mut tree = Tree::default();
        tree.file("usr/bin/program", 0o755, b"\x7fELF".to_vec());
        tree.file("etc/passwd", 0o644, Vec::new());
        tree.folder("tmp", 0o755, 0);
        let tar = tree.tar(0)?;
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut paths = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            assert_eq!(entry.header().mtime()?, 0);
            assert_eq!(entry.header().uid()?, 0);
            assert_eq!(entry.header().username()?, Some(""));
            paths.push(entry.path()?.display().to_string());
        }
        let expected = [
            "etc",
            "etc/passwd",
            "tmp",
            "usr",
            "usr/bin",
            "usr/bin/program",
        ];
        assert_eq!(paths, expected);
        Ok(())
    }
}
