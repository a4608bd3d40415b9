//! What can go wrong in the spool, and whose fault it is.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opes_content::{ContentError, Disposition};

/// Why the spool could not be opened, or a message not be stored or settled. Cloned for every message of a failed commit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SpoolError {
    /// The directory cannot be made or written.
    #[error("cannot use spool directory {}: {source}; create it, or give this user the right to write there", path.display())]
    Directory {
        /// The directory or a file in it.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process has it.
    #[error("spool directory {} is in use by process {holder}; stop that process or use another directory", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Process id found in the lock file, or `?`.
        holder: String,
    },
    /// Written by a newer version of this program.
    #[error("{} was written by a newer version ({what}); start that version, or let it drain the queue first", path.display())]
    Newer {
        /// The segment file.
        path: PathBuf,
        /// What was not understood.
        what: String,
    },
    /// A file of the spool cannot be read.
    #[error("cannot read {}: {source}; check the disk, or move the file away to start without the messages in it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Not enough space on the volume.
    #[error("spool volume of {} has {free} octets free and {needed} are needed; make room or deliver the queue", dir.display())]
    Full {
        /// The directory.
        dir: PathBuf,
        /// Octets free for this user.
        free: u64,
        /// Octets needed, with the reserve.
        needed: u64,
    },
    /// A write failed.
    #[error("cannot write {}: {source}; check the volume", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// `fsync` failed, so nobody knows what is on disk.
    #[error("cannot make {} durable: {source}; check the disk before you trust it again", path.display())]
    Sync {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The content to be stored could not be read.
    #[error("cannot read the message to be stored: {0}")]
    Content(Arc<ContentError>),
    /// The envelope has no recipient, so nothing would ever remove the message.
    #[error("a message without recipients cannot be stored")]
    NoRecipients,
    /// Envelope or outcome too large for a segment.
    #[error(
        "a record of {octets} octets does not fit a spool segment of {max}; use fewer recipients a message"
    )]
    RecordTooLarge {
        /// Octets of the record.
        octets: u64,
        /// Octets that fit.
        max: u64,
    },
    /// Too many requests wait for the disk.
    #[error("more than {waiting} requests wait for the spool disk; slow down")]
    Busy {
        /// Requests that wait.
        waiting: usize,
    },
    /// The message is not in the spool (any more).
    #[error("message {id} is not in the spool; it was settled before")]
    Unknown {
        /// Queue id.
        id: String,
    },
    /// What is on disk is not what was written.
    #[error("message {id} is damaged in {}; see the folder `damaged` of the spool", path.display())]
    Damaged {
        /// Queue id.
        id: String,
        /// The segment file.
        path: PathBuf,
    },
    /// The spool is shutting down.
    #[error("the spool is closed; the program is about to end")]
    Closed,
}

impl SpoolError {
    /// Who is to blame. Everything the disk does is transient: 452 4.3.1 for [`SpoolError::Full`], 451 4.3.0 for the rest.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Content(error) => error.disposition(),
            Self::RecordTooLarge { .. } => Disposition::Permanent,
            Self::NoRecipients | Self::Unknown { .. } => Disposition::OurBug,
            _ => Disposition::Transient,
        }
    }

    /// Is it for want of space? Then the reply is 452 4.3.1.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Write { source, .. } | Self::Sync { source, .. } => no_space(source),
            Self::Content(error) => match &**error {
                ContentError::Spill { source, .. } => no_space(source),
                _ => false,
            },
            _ => false,
        }
    }

    pub(crate) fn directory(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Directory {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Read {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Write {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn sync(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| Self::Sync {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

pub(crate) fn no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl From<ContentError> for SpoolError {
    fn from(error: ContentError) -> Self {
        Self::Content(Arc::new(error))
    }
}
