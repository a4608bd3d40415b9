//! What can go wrong with content, and whose fault it is.

use std::path::PathBuf;
use std::{fmt, io};

/// Who is to blame for an error, and so what the SMTP client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// This machine cannot just now; the client should try again: 4xx.
    Transient,
    /// Trying again will not help: 5xx.
    Permanent,
    /// The peer did something it must not.
    PeerFault,
    /// A mistake in this program; the client should try again: 4xx.
    OurBug,
}

/// Why content could not be taken or read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// More octets than the limit allows.
    #[error(
        "the message is larger than {max} octets; send less or raise the size limit of the listener"
    )]
    TooLarge {
        /// The limit, octets.
        max: u64,
    },
    /// The temporary file could not be made or written.
    #[error("cannot keep message content in {}: {source}; make room there or name another folder", dir.display())]
    Spill {
        /// The folder of temporary files.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The temporary file could not be read back.
    #[error("cannot read message content back from {}: {source}; check the disk", dir.display())]
    Read {
        /// The folder of temporary files.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer went away before the end of the message.
    #[error("the message ended before its last octet; the client has gone")]
    Aborted,
    /// A view names octets that the original does not have.
    #[error("octet {offset} is beyond the {len} octets of the original message")]
    OutOfRange {
        /// What was asked for.
        offset: u64,
        /// What there is.
        len: u64,
    },
}

impl ContentError {
    /// Who is to blame.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::TooLarge { .. } => Disposition::Permanent,
            Self::Spill { .. } | Self::Read { .. } => Disposition::Transient,
            Self::Aborted => Disposition::PeerFault,
            Self::OutOfRange { .. } => Disposition::OurBug,
        }
    }
}

impl From<ContentError> for io::Error {
    fn from(error: ContentError) -> Self {
        Self::other(error)
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::PeerFault => "peer fault",
            Self::OurBug => "our bug",
        })
    }
}
