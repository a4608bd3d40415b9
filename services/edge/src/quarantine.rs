//! Held messages as pairs of files: `ID.eml` (octets as they would have been delivered) and `ID.json` (envelope and reason).
//!
//! The pair is durable before the client is answered: both files are written aside, synced, renamed, and the folder is synced. The
//! `.json` comes last, so a message without it was never acknowledged.

use std::path::Path;

use anyhow::{Context as _, Result};
use opes_content::View;
use opes_spool::{Envelope, Files, Spool};
use serde::Serialize;

use crate::engine::Hold;

#[derive(Serialize)]
struct Held<'a> {
    reason: &'a str,
    queue: &'a str,
    envelope: &'a Envelope,
}

/// Writes the pair.
pub(crate) async fn hold(
    spool: &Spool,
    folder: &Path,
    id: &str,
    envelope: &Envelope,
    view: &View,
    advice: &Hold,
) -> Result<()> {
    let files = spool.files();
    files
        .make_dir(folder)
        .await
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let held = Held {
        reason: &advice.reason,
        queue: &advice.queue,
        envelope,
    };
    let json = serde_json::to_vec_pretty(&held)?;

    let place = |extension: &str| {
        let name = format!("{id}.{extension}");
        (folder.join(format!(".{name}")), folder.join(name))
    };
    let (aside, name) = place("eml");
    let published = files.publish(view, &aside, &name);
    published
        .await
        .with_context(|| format!("cannot write {}", name.display()))?;
    let (aside, name) = place("json");
    let published = files.publish_octets(json, &aside, &name);
    published
        .await
        .with_context(|| format!("cannot write {}", name.display()))?;

    sync(&files, folder).await?;
    // The first message made the folder, which must not vanish either.
    match folder.parent() {
        Some(parent) => sync(&files, parent).await,
        None => Ok(()),
    }
}

/// Takes a message back whose client was not told 250 after all.
pub(crate) async fn withdraw(spool: &Spool, folder: &Path, id: &str) -> Result<()> {
    let files = spool.files();
    // The other way round than it came: without its `.json` it was never acknowledged.
    let names = ["json", "eml"].map(|extension| folder.join(format!("{id}.{extension}")));
    files
        .remove(names.into())
        .await
        .with_context(|| format!("cannot remove {id} from {}", folder.display()))?;
    sync(&files, folder).await
}

async fn sync(files: &Files, folder: &Path) -> Result<()> {
    files
        .sync_dir(folder)
        .await
        .with_context(|| format!("cannot sync {}", folder.display()))
}
