//! One connection to an operator: mutual TLS, then HTTP/2 with keepalive. Errors are words for whoever is paged.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opes_host::Host;
use opes_tls::{Call, CallError, CallStream, ClientTls, complaint, refusal, rustls_error};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::config::Address;

/// For name, connection and handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An operator that is gone without a word is noticed after this and [`KEEP_ALIVE_TIMEOUT`].
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A table should not take a round trip for each 64 KiB of it.
const WINDOW_OCTETS: u32 = 1 << 20;

/// What is remembered of a connection's handshake.
pub(crate) struct Link {
    pub(crate) call: Call,
    tls: ClientTls,
}

type Stream = CallStream<opes_host::Stream>;

/// Connects and shakes hands; the operator is `server_name`, or there is no connection.
pub(crate) async fn dial(
    host: &Host,
    tls: &ClientTls,
    address: &Address,
    server_name: &str,
) -> Result<(Channel, Link), String> {
    let dialled = tokio::time::timeout(CONNECT_TIMEOUT, connect(host, tls, address, server_name));
    dialled
        .await
        .unwrap_or_else(|_| Err(format!("no connection within {CONNECT_TIMEOUT:?}")))
}

async fn connect(
    host: &Host,
    tls: &ClientTls,
    address: &Address,
    server_name: &str,
) -> Result<(Channel, Link), String> {
    let stream = host.network.connect(address.host(), address.port()).await;
    let stream =
        stream.map_err(|error| format!("{error}; is an operator running and listening there?"))?;
    stream.set_nodelay().map_err(|error| error.to_string())?;
    let called = opes_tls::call(tls, stream, server_name).await;
    let (stream, call) = called.map_err(|error| match error {
        CallError::Handshake(error) => handshake_failed(&error, tls),
        CallError::NotHttp2 | CallError::Name(_) => error.to_string(),
    })?;
    let link = Link {
        call,
        tls: tls.clone(),
    };
    let channel = channel(address, stream).await;
    let channel = channel.map_err(|error| link.why(error.as_ref()))?;
    Ok((channel, link))
}

/// A channel of one connection: it never reconnects by itself, and to another replica without our knowing.
async fn channel(
    address: &Address,
    stream: Stream,
) -> Result<Channel, Box<dyn Error + Send + Sync>> {
    let endpoint = Endpoint::from_shared(address.to_string())?
        .initial_stream_window_size(WINDOW_OCTETS)
        .initial_connection_window_size(2 * WINDOW_OCTETS)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// The handshake ended before it was over for us.
fn handshake_failed(error: &io::Error, tls: &ClientTls) -> String {
    match rustls_error(error) {
        Some(rustls::Error::InvalidCertificate(wrong)) => {
            let complaint = complaint(wrong, &tls.files().ca);
            format!("its certificate {}; {}", complaint.clause, complaint.remedy)
        }
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        Some(alert) => refused(alert, tls).unwrap_or_else(|| format!("TLS handshake: {alert}")),
        None => format!("TLS handshake: {error}"),
    }
}

fn refused(alert: &rustls::Error, tls: &ClientTls) -> Option<String> {
    let complaint = refusal(alert)?;
    let certificate = tls.files().certificate.display();
    Some(format!(
        "our certificate {certificate} {}; {}",
        complaint.clause, complaint.remedy
    ))
}

// === impl Link ===

impl Link {
    /// Why there is no connection, or no stream on it, any more: "transport error" helps nobody, its innermost cause does.
    pub(crate) fn why(&self, error: &(dyn Error + 'static)) -> String {
        let alert = self.call.alert();
        if let Some(said) = alert.and_then(|alert| refused(alert, &self.tls)) {
            return said;
        }
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let kind = cause.downcast_ref().map(io::Error::kind);
        if kind == Some(io::ErrorKind::NotConnected) {
            // Its alert may be lost with the connection.
            let certificate = self.tls.files().certificate.display();
            return format!(
                "the connection was closed at once; if the operator does not accept our certificate {certificate}, its log says why"
            );
        }
        match error.downcast_ref::<Status>() {
            Some(status) if status.source().is_none() => {
                format!("{}: {}", status.code(), status.message())
            }
            _ => cause.to_string(),
        }
    }
}
