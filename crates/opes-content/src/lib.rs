//! The original octets of one message, while they arrive and afterwards.
//!
//! Owns: memory up to a threshold per message, then an unlinked file; one [`Budget`] over all sessions. The one who receives holds a
//! [`Writer`]; anyone may hold a [`Content`] and read at any offset while it still grows. A [`View`] is a content as a
//! callout service left it: a rope over the untouched original and the octets that services brought, which are held in the same way.
//!
//! Fails with [`ContentError`], which knows who is to blame. A message that has no room left in memory goes to disk earlier; only a
//! disk that refuses is an error. Must not know: SMTP, callouts, the spool.

mod adaptation;
mod budget;
mod chunks;
mod content;
mod error;
mod view;
mod writer;

pub use adaptation::Adaptation;
pub use budget::{Budget, Reservation};
pub use content::{Content, Progress, State};
pub use error::{ContentError, Disposition};
pub use view::View;
pub use writer::{Limits, Writer, create};

/// Most octets one read takes from a file.
pub const FILE_READ_OCTETS_MAX: usize = 64 * 1024;

/// Octets of a message beyond [`Limits::memory_max`] that are collected before they are written to its file in one go.
pub const WRITE_BEHIND_OCTETS: usize = 64 * 1024;

#[cfg(test)]
mod tests;
