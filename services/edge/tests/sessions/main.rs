//! Whole edges on loopback: what a client sees and what is delivered.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by where it stops"
)]

mod annotations;
mod deadline;
mod harness;
mod messages;
mod notifications;
mod recipients;
mod verdicts;
