//! The two files of a held message. The `.json` comes last and goes first, so a message without it was never acknowledged, or is with
//! the store already.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use opes_content::View;
use opes_spool::Files;

use super::Held;

const CONTENT: &str = "eml";
const ENVELOPE: &str = "json";

/// What could not be read; kept for the postmaster.
const DAMAGED: &str = "damaged";

/// The pair of one message.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) content: PathBuf,
    envelope: PathBuf,
}

impl Pair {
    pub(super) fn of(folder: &Path, id: &str) -> Self {
        Self {
            content: folder.join(format!("{id}.{CONTENT}")),
            envelope: folder.join(format!("{id}.{ENVELOPE}")),
        }
    }

    /// Both files written aside, synced, renamed, and the folder synced.
    pub(super) async fn write(
        &self,
        files: &Files,
        folder: &Path,
        held: &Held,
        view: &View,
    ) -> Result<()> {
        let json = serde_json::to_vec_pretty(held)?;
        let content = aside(folder, &held.id, CONTENT);
        files
            .publish(view, &content, &self.content)
            .await
            .with_context(|| format!("cannot write {}", self.content.display()))?;
        let envelope = aside(folder, &held.id, ENVELOPE);
        files
            .publish_octets(json, &envelope, &self.envelope)
            .await
            .with_context(|| format!("cannot write {}", self.envelope.display()))?;
        sync(files, folder).await
    }

    pub(super) async fn read(&self) -> Result<Held> {
        let json = tokio::fs::read(&self.envelope)
            .await
            .with_context(|| format!("cannot read {}", self.envelope.display()))?;
        serde_json::from_slice(&json)
            .with_context(|| format!("{} makes no sense", self.envelope.display()))
    }

    pub(super) async fn exists(&self) -> bool {
        tokio::fs::try_exists(&self.envelope).await.unwrap_or(true)
    }

    pub(super) async fn remove(&self, files: &Files) -> io::Result<()> {
        files
            .remove(vec![self.envelope.clone(), self.content.clone()])
            .await
    }

    /// Whatever a failed [`Pair::write`] left.
    pub(super) async fn clear(&self, files: &Files, folder: &Path, id: &str) {
        let asides = [CONTENT, ENVELOPE].map(|extension| aside(folder, id, extension));
        let ours = [self.envelope.clone(), self.content.clone()];
        for path in ours.into_iter().chain(asides) {
            // A file that cannot be removed is found at the next start.
            let _ = files.remove(vec![path]).await;
        }
    }

    /// Out of the way of the others, still there for the postmaster.
    pub(super) async fn set_aside(&self) -> io::Result<()> {
        tokio::fs::rename(&self.envelope, self.envelope.with_extension(DAMAGED)).await
    }
}

/// Ids of complete pairs, at most `max`, oldest first; none if there is no folder yet. With `tidy`, when nothing is being written, removes halves.
pub(super) fn scan(folder: &Path, max: usize, tidy: bool) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    let files = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
        files => files?,
    };
    for file in files {
        let path = file?.path();
        let Some(id) = path.file_stem().and_then(|stem| stem.to_str()) else {
            continue;
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some(CONTENT | ENVELOPE) if id.starts_with('.') && tidy => {
                std::fs::remove_file(&path)?;
            }
            Some(ENVELOPE) if !id.starts_with('.') => ids.push(id.to_owned()),
            Some(CONTENT) if tidy && is_half(&path) => std::fs::remove_file(&path)?,
            _ => {}
        }
        if ids.len() >= max {
            break;
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

fn is_half(content: &Path) -> bool {
    [ENVELOPE, DAMAGED]
        .into_iter()
        .all(|extension| !content.with_extension(extension).exists())
}

pub(super) async fn sync(files: &Files, folder: &Path) -> Result<()> {
    files
        .sync_dir(folder)
        .await
        .with_context(|| format!("cannot sync {}", folder.display()))
}

fn aside(folder: &Path, id: &str, extension: &str) -> PathBuf {
    folder.join(format!(".{id}.{extension}"))
}
