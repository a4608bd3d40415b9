//! Rules: from `OpesRule` and `CalloutService` objects to a plan for one event of an SMTP dialog.
//!
//! The way of a rule is [`parse()`] (text to typed objects, every mistake with line and remedy),
//! [`compile()`] (objects to an immutable [`RoutingTable`], every contradiction found), and
//! [`RoutingTable::plan`] (facts about the dialog to what has to run, for whom, in which stage).
//! [`load`] does the first two for a list of sources. [`explain`] says why a rule runs or not.
//!
//! This crate knows neither Kubernetes nor sockets, files or clocks: the operator, `opes dev`,
//! `opes rules check` and an admission webhook call the same functions and get the same answers.
//! It fails only with [`Diagnostic`]s; planning cannot fail. A condition that cannot be evaluated
//! does not match and is listed in [`Plan::skipped`].

pub mod compile;
pub mod condition;
pub mod diagnostic;
pub mod explain;
pub mod facts;
mod matcher;
pub mod object;
pub mod parse;
pub mod permission;
pub mod plan;
pub mod point;
pub mod table;

pub use compile::{Candidate, Isolated, compile, compile_isolated, load};
pub use diagnostic::{Diagnostic, Origin, Position, Severity};
pub use facts::{Facts, Headers, Recipient, Sender};
pub use object::{Object, Resource, TlsMode};
pub use opes_trace::Bypass;
pub use parse::parse;
pub use permission::{Permission, PermissionSet};
pub use plan::{ActionStep, Plan, RecipientSet, Skipped, Step};
pub use point::{Class, OnFailure, Point};
pub use table::{
    CalloutSpec, ContentWant, LocalAction, LocalReply, RoutingTable, Rule, Service, Target,
};
