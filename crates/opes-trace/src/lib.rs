//! Trace and bypass (RFC 3897, RFC 4902): who handled a message, and the request not to.
//!
//! Owns the syntax of `OPES-System`, `OPES-Via` and `OPES-Bypass` (RFC 4236 §4 and §5 with mail's folding), of the ESMTP parameter
//! `OPESBYPASS`, and of the identity that refusals carry. Who may ask for a bypass, and when the fields are
//! written, is the edge's business (docs/adr/0008-trace-and-bypass.md).
//!
//! Everything that is parsed here comes from strangers: sizes and counts are bounded, nothing panics, and what cannot be parsed is an
//! error or, where only our own name matters, looked at as text.

mod bypass;
mod entry;
mod field;
mod header;
mod identity;
mod uri;
mod verify;
mod xtext;

pub use bypass::{Bypass, BypassRequest, BypassSyntax, URIS_MAX};
pub use entry::{ENTRIES_MAX, Entry, PARAMETERS_MAX, Parameter, TraceSyntax, VALUE_OCTETS_MAX};
pub use field::{BypassMark, REASON_REQUIRED, Ran, SystemTrace, VIA_SERVICES_MAX, Via};
pub use header::{HeaderTrace, TraceField, TraceKind};
pub use identity::Identity;
pub use uri::{AgentUri, SYSTEM_OCTETS_MAX, URI_OCTETS_MAX, UriError};
pub use verify::{Guard, Repair};

/// Field that names the OPES system, one per pass (RFC 4236 §4).
pub const SYSTEM_FIELD: &str = "OPES-System";
/// Field that names processor and services, one per pass (RFC 4236 §4).
pub const VIA_FIELD: &str = "OPES-Via";
/// Field that asks for a bypass (RFC 4236 §5, R4902-22).
pub const BYPASS_FIELD: &str = "OPES-Bypass";
