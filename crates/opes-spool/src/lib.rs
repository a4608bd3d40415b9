//! The durable spool: a message is in it before it is answered 250, and leaves it when every recipient is settled.
//!
//! Owns one directory: append-only segment files shared by all messages, a file each for very large contents, a lock. One thread
//! writes; many stores share one `fdatasync`. What may be on disk, what recovery makes of it and what the postmaster reads in
//! an error is written down in `docs/spool.md`; [`recovery`] is a function of the table there.
//!
//! Fails with [`SpoolError`], which knows its blame; [`Spool::unhealthy_reason`] is for shedding load before a message is taken.
//! Must not know: SMTP dialogs, schedules, next hops.

mod cleaner;
mod disk;
mod envelope;
mod error;
mod files;
mod health;
mod id;
mod index;
mod open;
mod own_file;
mod queue;
mod queued;
mod record;
mod recovery;
mod segment;
mod spool;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use disk::{Disk, SystemDisk};
pub use envelope::{Envelope, NextHop, Recipient, ReportsOn};
pub use error::SpoolError;
pub use files::Files;
pub use id::{QueueId, QueueIdError};
pub use opes_content::Disposition;
pub use queued::{Queued, Settlement, StoredContent};
pub use spool::{Spool, SpoolConfig, Stats};
