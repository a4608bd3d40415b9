//! Whole edges on loopback: what a client sees and what is delivered.

mod harness;
mod recipients;
