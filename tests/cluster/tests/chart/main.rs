//! The chart `charts/opes`: what it renders, what it refuses, what an API server makes of it.
//!
//! Tests that run helm stand in `control_plane`, because helm comes with the programs of the control plane (`cargo xtask kubernetes`).

mod alerts;
mod cases;
mod control_plane;
mod docs;
mod helm;
mod readme;
mod schema;
mod versions;
