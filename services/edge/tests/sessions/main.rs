//! Whole edges on loopback: what a client sees and what is delivered.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by where it stops"
)]

mod annotations;
mod auth;
mod deadline;
mod groups;
mod harness;
mod identity;
mod log;
mod messages;
mod notifications;
mod outcomes;
mod probe;
mod recipients;
mod shadow;
mod verdicts;
