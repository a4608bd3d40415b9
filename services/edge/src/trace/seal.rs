//! The last look at a copy before it leaves: trace fields of this pass on top, ours intact, forged ones out (C-60, C-63, R3897-26).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use opes_content::{ContentError, View};
use opes_mime::{Rope, RopeError, Splice};
use opes_trace::{Guard, HeaderTrace};

use super::{Agents, Asked, Tracer};

/// Trace fields from which on a message is in a loop; RFC 5321 §6.3 wants the limit at 100 at least.
const HOPS_MAX: usize = 100;

/// Octets of the header section that are searched for trace fields, which stand at its top.
const TRACE_OCTETS_MAX: u64 = 128 << 10;
const READ_OCTETS: usize = 32 << 10;

/// One copy's way through the edge.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) tracer: &'a Tracer,
    pub(crate) agents: &'a Agents,
    /// Trace id.
    pub(crate) id: &'a str,
    /// What [`Tracer::first_octets`] gave when the message began.
    pub(crate) first_octets: &'a Bytes,
    /// Fields that bear our name may come from this client: it is one of ours.
    pub(crate) believed: bool,
    /// [`Tracer::may_bypass`] of this client.
    pub(crate) may_bypass: bool,
    /// Parameters of MAIL.
    pub(crate) parameters: &'a [String],
    /// Services that ran for this copy, by name.
    pub(crate) ran: &'a [&'a str],
    /// Services that were left out on request, by name.
    pub(crate) bypassed: &'a [&'a str],
    /// The `Received` field with its CRLF.
    pub(crate) received: String,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// The copy as it leaves.
    pub(crate) view: View,
    /// A service had taken our field out or changed it.
    pub(crate) restored: bool,
    /// Fields with our name that a service had put in.
    pub(crate) forged: usize,
    /// Fields with our name that the message came with.
    pub(crate) inherited: usize,
    /// What its sender asked to have left out.
    pub(crate) asked: Asked,
}

/// Why a copy cannot leave.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error("{HOPS_MAX} or more trace fields: the message goes in circles")]
    Looping,
    #[error("the message can no longer be read: {0}")]
    Content(#[from] ContentError),
    #[error("trace fields cannot be spliced in: {0}")]
    Rope(#[from] RopeError),
}

/// Fields with our name and what is to become of them.
struct Findings {
    remove: Vec<std::ops::Range<usize>>,
    restore: bool,
    forged: usize,
    inherited: usize,
}

/// `view` with this pass's trace on top of it.
pub(crate) async fn seal(view: &View, pass: &Pass<'_>) -> Result<Sealed, SealError> {
    let header = read_header(view, 0).await?;
    let trace = HeaderTrace::scan(&header);
    if trace.hops() >= HOPS_MAX {
        return Err(SealError::Looping);
    }
    let findings = pass.inspect(view, &header, &trace).await?;
    let mut top = pass.received.clone();
    let asked = Tracer::asked(
        pass.agents,
        pass.may_bypass,
        pass.parameters,
        trace.bypass_request(&header),
    );
    if !pass.first_octets.is_empty() {
        let via = pass
            .tracer
            .via(pass.id, pass.agents, &asked, pass.ran, pass.bypassed);
        top.push_str(&via);
    }
    let mut top = BytesMut::from(top.as_bytes());
    if findings.restore {
        top.extend_from_slice(pass.first_octets);
    }
    let rope =
        Rope::identity(view.len_now()).splice_all(splices(top.freeze(), &findings.remove))?;
    Ok(Sealed {
        view: view.compose(Some(rope))?,
        restored: findings.restore,
        forged: findings.forged,
        inherited: findings.inherited,
        asked,
    })
}

// === impl Pass ===

impl Pass<'_> {
    async fn inspect(
        &self,
        view: &View,
        header: &[u8],
        trace: &HeaderTrace,
    ) -> Result<Findings, ContentError> {
        let guard = Guard {
            system: &self.tracer.system,
            field: self.first_octets,
        };
        let own = guard.inspect(header, trace, &[]);
        let mut findings = Findings {
            restore: own.restore && !self.first_octets.is_empty(),
            forged: 0,
            inherited: 0,
            remove: own.remove,
        };
        if findings.remove.is_empty() {
            return Ok(findings);
        }
        let brought = self.brought(view, &guard).await?;
        let brought: Vec<&[u8]> = brought.iter().map(|field| &**field).collect();
        let by_services = guard.inspect(header, trace, &brought).remove;
        findings.forged = by_services.len();
        if self.believed {
            findings.remove = by_services;
        } else {
            findings.inherited = findings.remove.len() - by_services.len();
        }
        Ok(findings)
    }

    /// Fields with our name in what the client sent.
    async fn brought(
        &self,
        view: &View,
        guard: &Guard<'_>,
    ) -> Result<Vec<Arc<[u8]>>, ContentError> {
        let original = View::original(view.content().clone());
        let header = read_header(&original, self.first_octets.len() as u64).await?;
        let trace = HeaderTrace::scan(&header);
        let claims = guard.claims_in(&header, &trace);
        Ok(claims.into_iter().map(Arc::from).collect())
    }
}

/// `top` in front, the fields out.
fn splices(top: Bytes, remove: &[std::ops::Range<usize>]) -> Vec<Splice> {
    let mut splices = vec![Splice {
        offset: 0,
        size: 0,
        replacement: top,
    }];
    splices.extend(remove.iter().map(|range| Splice {
        offset: range.start as u64,
        size: range.len() as u64,
        replacement: Bytes::new(),
    }));
    splices
}

/// The header section from `start` on, as far as trace fields are looked for.
pub(super) async fn read_header(view: &View, start: u64) -> Result<Bytes, ContentError> {
    let mut header = BytesMut::new();
    while (header.len() as u64) < TRACE_OCTETS_MAX {
        let octets = view
            .read_at(start + header.len() as u64, READ_OCTETS)
            .await?;
        if octets.is_empty() {
            break;
        }
        let seen = header.len().saturating_sub(3);
        header.extend_from_slice(&octets);
        if ends_in(&header, seen) {
            break;
        }
    }
    Ok(header.freeze())
}

/// Is there an empty line in `header`, of which `seen` octets have been looked at?
fn ends_in(header: &[u8], seen: usize) -> bool {
    let new = header.get(seen..).unwrap_or_default();
    header.starts_with(b"\r\n")
        || header.starts_with(b"\n")
        || new.windows(2).any(|octets| octets == b"\n\n")
        || new.windows(3).any(|octets| octets == b"\n\r\n")
}
