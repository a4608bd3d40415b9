//! A pool of real callout servers, each with a runtime of its own, that die, hang, drain and come.

// Unwrapping is how these tests fail.
#![allow(clippy::unwrap_used)]

mod bounds;
mod drain;
mod failures;
mod load;
mod names;
mod network;
mod share;
mod worker;
