//! The milter protocol (Sendmail's, versions 2 to 6) from the MTA's side: [`frame`], [`Command`], [`Reply`], and [`Session`], which knows what may
//! follow what.
//!
//! Owns limits, negotiation, the macro lists, and which replies are legal where. Sans-I/O: octets in, events out; sockets, time and what a
//! verdict means for a message are the caller's. Whatever a milter sends is either an event or a typed error, and never a panic.

pub mod flags;
pub mod frame;

mod command;
mod macros;
mod reply;
mod session;

pub use command::{BODY_OCTETS_MAX, ClientAddress, Command};
pub use flags::{Actions, Steps};
pub use frame::{FRAME_OCTETS_MAX, Frame, FrameError};
pub use macros::{Macros, Stage};
pub use reply::{Modification, Options, Refusal, Reply, ReplyError};
pub use session::{
    Event, MODIFICATIONS_MAX, OrderError, PROGRESS_MAX, ProtocolError, Sent, Session, VERSION,
    VERSION_MIN, Verdict,
};
