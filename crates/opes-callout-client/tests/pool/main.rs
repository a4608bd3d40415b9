//! A pool of real callout servers, each with a runtime of its own, that die, hang, drain and come.

mod bounds;
mod drain;
mod failures;
mod load;
mod share;
mod worker;
