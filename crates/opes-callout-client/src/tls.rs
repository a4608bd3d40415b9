//! Mutual TLS with a service: the handshake, whose fault it is when it fails, and when a connection is to be renewed.
//!
//! A certificate that is not accepted is a [`CalloutError::Untrusted`] that says whose, why and what to do. Must not know HTTP or
//! OCP.

use std::io;
use std::time::Duration;

use opes_tls::{Call, CallError, CallStream, ClientTls, complaint, refusal, rustls_error};
use tokio::time::Instant;

use crate::error::CalloutError;
use crate::naming::Naming;

/// A connection is renewed after this, so that a certificate that has expired since does not serve for ever.
pub const TLS_CONNECTION_AGE_MAX: Duration = Duration::from_hours(1);

/// What a connection remembers of its handshake.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    call: Call,
    renew_at: Instant,
    tls: ClientTls,
}

/// The encrypted stream.
pub(crate) type Stream = CallStream<opes_host::Stream>;

/// The handshake over a fresh connection to `target`; checks that the service is `name`.
pub(crate) async fn connect(
    tls: &ClientTls,
    connection: opes_host::Stream,
    target: &str,
    name: &str,
    naming: &Naming,
) -> Result<(Stream, Link), CalloutError> {
    let peer = address(&connection).unwrap_or_else(|| target.to_owned());
    let called = opes_tls::call(tls, connection, name).await;
    let (stream, call) = called.map_err(|error| match error {
        CallError::Handshake(error) => failed(&error, &peer, tls, naming),
        CallError::NotHttp2 => naming.protocol(error.to_string()),
        CallError::Name(_) => naming.unavailable(error.to_string()),
    })?;
    let link = Link {
        call,
        renew_at: Instant::now() + TLS_CONNECTION_AGE_MAX,
        tls: tls.clone(),
    };
    Ok((stream, link))
}

/// With the address that a name led to; only the system's connections know theirs.
fn address(connection: &opes_host::Stream) -> Option<String> {
    match connection {
        opes_host::Stream::Tcp(tcp) => tcp.peer_addr().ok().map(|address| address.to_string()),
        opes_host::Stream::Other(_) => None,
    }
}

/// The handshake ended before it was over for us.
fn failed(error: &io::Error, peer: &str, tls: &ClientTls, naming: &Naming) -> CalloutError {
    match rustls_error(error) {
        Some(rustls::Error::InvalidCertificate(wrong)) => {
            let complaint = complaint(wrong, &tls.files().ca);
            let problem = format!("certificate presented by {peer} {}", complaint.clause);
            naming.untrusted(problem, complaint.remedy)
        }
        Some(rustls::Error::InvalidMessage(_)) => naming.untrusted(
            format!("{peer} does not speak TLS"),
            "give the service a certificate (--tls-certificate), or write http:// with transport: { tls: none }",
        ),
        Some(alert) => refused_by_peer(alert, tls, naming)
            .unwrap_or_else(|| naming.unavailable(format!("TLS handshake: {alert}"))),
        None => naming.unavailable(format!("TLS handshake: {error}")),
    }
}

fn refused_by_peer(
    alert: &rustls::Error,
    tls: &ClientTls,
    naming: &Naming,
) -> Option<CalloutError> {
    let complaint = refusal(alert)?;
    let certificate = tls.files().certificate.display();
    let problem = format!("our certificate {certificate} {}", complaint.clause);
    Some(naming.untrusted(problem, complaint.remedy))
}

// === impl Link ===

impl Link {
    /// Other certificates are in force than when this connection was opened.
    pub(crate) fn is_replaced(&self) -> bool {
        self.call.over.is_cancelled()
    }

    /// Waits until new transactions should go to another connection: other certificates are in force, or this one is old.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.call.over.cancelled() => {}
            () = tokio::time::sleep_until(self.renew_at) => {}
        }
    }

    /// The service did not accept our certificate.
    pub(crate) fn refusal(&self, naming: &Naming) -> Option<CalloutError> {
        refused_by_peer(self.call.alert()?, &self.tls, naming)
    }
}
