//! Whole edges on loopback: what a client sees and what is delivered.

mod annotations;
mod harness;
mod messages;
mod recipients;
