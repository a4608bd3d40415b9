//! The conformance checklist: one test or more for each statement, the id in front of its name. The numbers are those of
//! `docs/ocp-smtp.md`. Statements about SMTP itself are tested where SMTP is known.

mod connection;
mod data;
mod early_end;
mod flow_control;
mod fuzz;
mod negotiation;
mod preservation;
mod simulation;
mod support;
mod transactions;
