//! The files of a folder as a mounted Secret has them: flat, some of them symbolic links, a few with a dot in front.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{FILE_OCTETS_MAX, FILES_MAX, KeysError};

/// Files directly in `folder`, in the order of their names; none whose name starts with a dot.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let unreadable = |error: std::io::Error| KeysError::Unreadable {
        path: folder.to_owned(),
        reason: error.to_string(),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Through links: that is how a Secret is mounted.
        if !hidden && entry.path().is_file() {
            files.push(entry.path());
        }
        if files.len() > FILES_MAX {
            return Err(KeysError::TooMany(folder.to_owned()));
        }
    }
    files.sort();
    Ok(files)
}

/// A whole file; its memory is cleared afterwards.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let unreadable = |reason: String| KeysError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    if size > FILE_OCTETS_MAX {
        return Err(unreadable(format!("more than {FILE_OCTETS_MAX} octets")));
    }
    // Room at once: a vector that grows leaves copies behind.
    let capacity = usize::try_from(size).unwrap_or(0).saturating_add(1);
    let mut octets = Zeroizing::new(Vec::with_capacity(capacity));
    let read = file.take(FILE_OCTETS_MAX).read_to_end(&mut octets);
    read.map_err(|error| unreadable(error.to_string()))?;
    Ok(octets)
}
