//! STARTTLS (RFC 3207).
//!
//! Octets that arrive behind STARTTLS before the handshake come from whoever sits on the wire; taken as commands later they would
//! pass for encrypted ones (CVE-2011-0411). Both before the callout and before the 220 the input must be empty.

use bytes::{Bytes, BytesMut};

use super::{Action, Asked, Check, Phase, Session, TlsInfo};
use crate::reply::Reply;

impl Session {
    pub(super) fn check_start_tls(&mut self, line: Bytes, input: &BytesMut) -> Option<Action> {
        if !input.is_empty() {
            self.close_with(&Reply::TLS_PIPELINED);
            return None;
        }
        self.asked = Asked::StartTls;
        Some(Action::Check(Check::StartTls { line }))
    }

    pub(super) fn poll_start_tls(&mut self, input: &BytesMut) -> Option<Action> {
        if !input.is_empty() {
            self.close_with(&Reply::TLS_PIPELINED);
            return None;
        }
        self.push(&Reply::READY_FOR_TLS);
        self.phase = Phase::Handshake;
        Some(Action::StartTls)
    }

    /// The handshake that [`Action::StartTls`] asked for is done. The session forgets what the client said before (RFC 3207 §4.2).
    pub fn tls_established(&mut self, tls: TlsInfo) {
        self.abort_transaction();
        self.hello = None;
        self.authenticated = None;
        self.tls = Some(tls);
        self.phase = Phase::Commands;
    }
}
