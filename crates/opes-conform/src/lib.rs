//! Does a callout server keep to OCP/SMTP? [`check`] plays the processor, message by message, legal and illegal, and judges what
//! comes back by the checklist of docs/ocp-smtp.md.
//!
//! It shares nothing with `opes-ocp` on purpose: a kit that used our own state machine could not send what breaks the rules, and
//! would call right whatever we get wrong on both sides. Every wait has an end; a server that hangs is a finding, not a hang.

mod checklist;
mod connect;
mod fault;
mod mail;
mod messages;
mod observer;
mod peer;
mod report;
mod run;
mod scenarios;
mod transaction;
mod wire;

pub use report::{Finding, Report, Row, State};
pub use run::{ConformError, Options, check};
