//! One connection to an operator: mutual TLS, then HTTP/2 with keepalive. Errors are words for whoever is paged.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use opes_host::Host;
use opes_tls::{ALPN_H2, ClientTls, complaint, refusal};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
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

/// A connection, and the token that says when its certificates are no longer those in force.
pub(crate) async fn dial(
    host: &Host,
    tls: &ClientTls,
    address: &Address,
    server_name: &str,
) -> Result<(Channel, CancellationToken), String> {
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
) -> Result<(Channel, CancellationToken), String> {
    let expected = ServerName::try_from(server_name.to_owned())
        .map_err(|_| format!("`{server_name}` is not a name that a certificate can be for"))?;
    let stream = host.network.connect(address.host(), address.port()).await;
    let stream =
        stream.map_err(|error| format!("{error}; is an operator running and listening there?"))?;
    stream.set_nodelay().map_err(|error| error.to_string())?;
    let (config, over) = tls.current();
    let handshake = TlsConnector::from(config).connect(expected, stream).await;
    let stream = handshake.map_err(|error| handshake_failed(&error, tls))?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err("it speaks TLS, but not HTTP/2 in it (ALPN h2)".to_owned());
    }
    let endpoint = Endpoint::from_shared(address.to_string())
        .map_err(|error| error.to_string())?
        .initial_stream_window_size(WINDOW_OCTETS)
        .initial_connection_window_size(2 * WINDOW_OCTETS)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    // A channel of one connection: it never reconnects by itself, and to another replica without our knowing.
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let channel = endpoint.connect_with_connector(connector).await;
    Ok((channel.map_err(|error| ended(&error, tls))?, over))
}

/// The handshake ended before it was over for us.
fn handshake_failed(error: &io::Error, tls: &ClientTls) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(wrong)) => {
            let complaint = complaint(wrong, &tls.files().ca);
            format!(
                "its certificate {}; {}",
                complaint.clause, complaint.remedy
            )
        }
        Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        Some(alert) => refused(alert, tls).unwrap_or_else(|| format!("TLS handshake: {alert}")),
        None => format!("TLS handshake: {error}"),
    }
}

/// In TLS 1.3 an operator judges our certificate after the handshake is over for us: its alert comes with the first read.
fn refused(alert: &rustls::Error, tls: &ClientTls) -> Option<String> {
    let complaint = refusal(alert)?;
    let certificate = tls.files().certificate.display();
    Some(format!(
        "our certificate {certificate} {}; {}",
        complaint.clause, complaint.remedy
    ))
}

/// The stream or its connection ended: the innermost cause says more than "transport error".
pub(crate) fn ended(error: &(dyn Error + 'static), tls: &ClientTls) -> String {
    let mut cause = error;
    loop {
        if let Some(said) = tls_alert(cause).and_then(|alert| refused(alert, tls)) {
            return said;
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    match error.downcast_ref::<Status>() {
        Some(status) if status.source().is_none() => {
            format!("{}: {}", status.code(), status.message())
        }
        _ => cause.to_string(),
    }
}

fn tls_alert<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref())
}
