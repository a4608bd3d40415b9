//! Servers that keep the rules pass, and each that breaks one is convicted of that one.

// Unwrapping is how these tests fail.
#![allow(clippy::unwrap_used)]

mod broken;
mod right;
mod server;
