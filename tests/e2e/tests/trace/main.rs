//! Trace and bypass end to end (RFC 3897, RFC 4902): C-59 to C-63 of docs/ocp-smtp.md.

mod bypass;
mod setup;
mod traces;
