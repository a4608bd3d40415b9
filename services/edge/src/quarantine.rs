//! Held messages as pairs of files: `ID.eml` (octets as they would have been delivered) and `ID.json` (envelope and reason).
//!
//! The pair is durable before the client is answered: both files are written aside, synced, renamed, and the folder is synced. The
//! `.json` comes last, so a message without it was never acknowledged.

use std::path::Path;

use anyhow::{Context as _, Result};
use opes_content::View;
use opes_spool::Envelope;
use serde::Serialize;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::engine::Hold;

#[derive(Serialize)]
struct Held<'a> {
    reason: &'a str,
    queue: &'a str,
    envelope: &'a Envelope,
}

/// Writes the pair.
pub(crate) async fn hold(
    folder: &Path,
    id: &str,
    envelope: &Envelope,
    view: &View,
    advice: &Hold,
) -> Result<()> {
    tokio::fs::create_dir_all(folder)
        .await
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let held = Held {
        reason: &advice.reason,
        queue: &advice.queue,
        envelope,
    };
    let json = serde_json::to_vec_pretty(&held)?;

    let aside = folder.join(format!(".{id}.eml"));
    let mut file = File::create(&aside)
        .await
        .with_context(|| format!("cannot write {}", aside.display()))?;
    view.write_to(&mut file).await?;
    publish(file, &aside, &folder.join(format!("{id}.eml"))).await?;

    let aside = folder.join(format!(".{id}.json"));
    let mut file = File::create(&aside)
        .await
        .with_context(|| format!("cannot write {}", aside.display()))?;
    file.write_all(&json).await?;
    publish(file, &aside, &folder.join(format!("{id}.json"))).await?;

    sync(folder).await?;
    // The first message made the folder, which must not vanish either.
    match folder.parent() {
        Some(parent) => sync(parent).await,
        None => Ok(()),
    }
}

/// Takes a message back whose client was not told 250 after all.
pub(crate) async fn withdraw(folder: &Path, id: &str) -> Result<()> {
    // The other way round than it came: without its `.json` it was never acknowledged.
    for name in [format!("{id}.json"), format!("{id}.eml")] {
        let path = folder.join(name);
        tokio::fs::remove_file(&path)
            .await
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    sync(folder).await
}

async fn sync(folder: &Path) -> Result<()> {
    let synced = async { File::open(folder).await?.sync_all().await };
    synced
        .await
        .with_context(|| format!("cannot sync {}", folder.display()))
}

async fn publish(mut file: File, aside: &Path, name: &Path) -> Result<()> {
    file.flush().await?;
    file.sync_all()
        .await
        .with_context(|| format!("cannot sync {}", aside.display()))?;
    tokio::fs::rename(aside, name)
        .await
        .with_context(|| format!("cannot rename to {}", name.display()))
}
