//! The blocking part: write to `tmp`, make durable, rename to `new`, make the folder durable.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use opes_smtp::reply::Reply;
use tokio::sync::mpsc;

/// One message for one mailbox.
#[derive(Debug)]
pub(super) struct Deposit {
    /// Relative to the root.
    pub(super) mailbox: PathBuf,
    /// Name of the file.
    pub(super) name: String,
    /// Goes before the content, which stays as it is.
    pub(super) header: String,
    pub(super) body: Body,
    /// The file may be there already.
    pub(super) suspect: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Memory(Vec<Bytes>),
    /// Ends with an empty chunk, or with the reason why there is no more.
    Stream(mpsc::Receiver<Result<Bytes, String>>),
}

/// Why a message is not in its mailbox.
#[derive(Debug, thiserror::Error)]
pub(super) enum DepositError {
    #[error("Maildir folder {} does not exist; create it, or mount the volume it belongs to", .0.display())]
    NoRoot(PathBuf),
    #[error("cannot {action} {}: {source}; give this user the right to write there, or check the volume", path.display())]
    Disk {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("no mailbox can be named after the address {0:?}; shorten or correct it")]
    Address(String),
    #[error("cannot read the message: {0}")]
    Source(String),
}

impl DepositError {
    fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk {
            action,
            path,
            source,
        }
    }

    /// What a client is told. Paths of ours are not its business.
    pub(super) fn reply(&self) -> Reply {
        match self {
            Self::Address(_) => Reply::RECIPIENT_SYNTAX,
            Self::Disk { source, .. } if is_full(source) => Reply::INSUFFICIENT_STORAGE,
            Self::NoRoot(_) | Self::Disk { .. } | Self::Source(_) => Reply::LOCAL_ERROR,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Writes all; gives the path of each file, in order. A file counts only when its folder is durable, which is done once a folder.
pub(super) fn deposit_all(
    root: &Path,
    deposits: Vec<Deposit>,
) -> Vec<Result<PathBuf, DepositError>> {
    let mut results: Vec<_> = deposits
        .into_iter()
        .map(|deposit| deposit.write(root))
        .collect();
    let folders: BTreeSet<PathBuf> = results
        .iter()
        .flatten()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    for folder in folders {
        let Err(error) = sync_folder(&folder) else {
            continue;
        };
        let text = error.to_string();
        for result in &mut results {
            if matches!(result, Ok(path) if path.parent() == Some(&folder)) {
                *result = Err(DepositError::disk("make durable", &folder)(io::Error::new(
                    error.kind(),
                    text.clone(),
                )));
            }
        }
    }
    results
}

impl Deposit {
    /// Everything but the folder's durability.
    fn write(self, root: &Path) -> Result<PathBuf, DepositError> {
        let mailbox = root.join(&self.mailbox);
        if self.suspect
            && let Some(path) = self.find(&mailbox)?
        {
            return Ok(path);
        }
        let tmp = mailbox.join("tmp").join(&self.name);
        let new = mailbox.join("new").join(&self.name);
        let file = create(root, &mailbox, &tmp)?;
        let written = self.fill(file, &tmp);
        let moved = written.and_then(|()| rename(root, &mailbox, &tmp, &new));
        if let Err(error) = moved {
            // The next attempt takes the same name and would overwrite it anyway.
            let _ = fs::remove_file(&tmp);
            return Err(error);
        }
        Ok(new)
    }

    /// Where an earlier attempt left the file: in `new`, or in `cur` with flags behind its name.
    fn find(&self, mailbox: &Path) -> Result<Option<PathBuf>, DepositError> {
        let new = mailbox.join("new").join(&self.name);
        if new.exists() {
            return Ok(Some(new));
        }
        let cur = mailbox.join("cur");
        let entries = match fs::read_dir(&cur) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DepositError::disk("read", &cur)(error)),
        };
        let is_ours = |name: &str| {
            name.strip_prefix(&self.name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        let found = entries
            .flatten()
            .find(|entry| entry.file_name().to_str().is_some_and(is_ours));
        Ok(found.map(|entry| entry.path()))
    }

    fn fill(self, mut file: File, tmp: &Path) -> Result<(), DepositError> {
        match self.body {
            Body::Memory(chunks) => write_vectored(&mut file, self.header.as_bytes(), &chunks)
                .map_err(DepositError::disk("write", tmp))?,
            Body::Stream(chunks) => write_stream(&mut file, self.header.as_bytes(), chunks, tmp)?,
        }
        file.sync_all()
            .map_err(DepositError::disk("make durable", tmp))
    }
}

fn write_vectored(file: &mut File, header: &[u8], chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<_> = std::iter::once(header)
        .chain(chunks.iter().map(|chunk| &chunk[..]))
        .map(IoSlice::new)
        .collect();
    let mut left = &mut slices[..];
    while left.iter().any(|slice| !slice.is_empty()) {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_stream(
    file: &mut File,
    header: &[u8],
    mut chunks: mpsc::Receiver<Result<Bytes, String>>,
    tmp: &Path,
) -> Result<(), DepositError> {
    file.write_all(header)
        .map_err(DepositError::disk("write", tmp))?;
    loop {
        match chunks.blocking_recv() {
            Some(Ok(chunk)) if chunk.is_empty() => return Ok(()),
            Some(Ok(chunk)) => file
                .write_all(&chunk)
                .map_err(DepositError::disk("write", tmp))?,
            Some(Err(why)) => return Err(DepositError::Source(why)),
            None => return Err(DepositError::Source("the reader ended early".into())),
        }
    }
}

/// Opens the file in `tmp`. Only when its folder is missing are the folders looked at, so that the usual case costs one call.
fn create(root: &Path, mailbox: &Path, tmp: &Path) -> Result<File, DepositError> {
    match open(tmp) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_mailbox(root, mailbox)?;
            open(tmp)
        }
        other => other,
    }
    .map_err(DepositError::disk("create", tmp))
}

/// `new` is missing where a crash came while the folders were made, or somebody has removed it.
fn rename(root: &Path, mailbox: &Path, tmp: &Path, new: &Path) -> Result<(), DepositError> {
    match fs::rename(tmp, new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_mailbox(root, mailbox)?;
            fs::rename(tmp, new)
        }
        other => other,
    }
    .map_err(DepositError::disk("move a message to", new))
}

/// What a crash left in `tmp` is overwritten.
fn open(tmp: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(tmp)
}

/// Folders of the domain and the mailbox, durable. The root is not ours to make.
fn make_mailbox(root: &Path, mailbox: &Path) -> Result<(), DepositError> {
    if !root.is_dir() {
        return Err(DepositError::NoRoot(root.to_owned()));
    }
    // `tmp` last: where it is, the others are.
    for folder in ["cur", "new", "tmp"] {
        let folder = mailbox.join(folder);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(DepositError::disk("create folder", &folder))?;
    }
    for folder in [Some(mailbox), mailbox.parent(), Some(root)]
        .into_iter()
        .flatten()
    {
        sync_folder(folder).map_err(DepositError::disk("make durable", folder))?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
