//! The operator's core on a real API server: what it says of objects, what it makes of services, who writes, and what it costs.

#[path = "operator_core/bed.rs"]
mod bed;
#[path = "operator_core/control_plane.rs"]
mod control_plane;
#[path = "operator_core/edge.rs"]
mod edge;
