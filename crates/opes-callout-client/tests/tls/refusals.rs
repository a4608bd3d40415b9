//! Who cannot prove who it is: the right error at the client, a reason in the server's log, and no transaction.

use std::process::Stdio;

use opes_callout_client::{CalloutError, ServiceClient, ServiceClientConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::authority::{Authority, For, install};
use crate::log::Log;
use crate::peers::{Ends, NAME, PATIENCE, Server, ask};

async fn untrusted(client: &ServiceClient, server: &Server, said: &[&str]) {
    let error = ask(client).await.unwrap_err();
    assert!(matches!(error, CalloutError::Untrusted { .. }), "{error:?}");
    let text = error.to_string();
    for part in said.iter().chain(&["default/filter", "help: "]) {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    assert_eq!(server.calls(), 0);
}

#[tokio::test]
async fn two_ends_that_trust_each_other() {
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    ask(&server.client(ends.client_tls())).await.unwrap();
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_service_of_another_name() {
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    let client = server.client_for(ends.client_tls(), Some("other.example.com"));
    let said = format!(
        "certificate presented by {} is not for name other.example.com (it is for {NAME})",
        server.address
    );
    untrusted(&client, &server, &[&said, "transport.serverName"]).await;
    // Without a name of its own, a service goes by the host of its endpoint.
    let client = server.client_for(ends.client_tls(), None);
    untrusted(&client, &server, &["is not for name 127.0.0.1 (it is for"]).await;
}

#[tokio::test]
async fn the_host_of_the_endpoint_is_the_name() {
    let ends = Ends::new();
    let pair = ends.authority.issue(For::Service, &["127.0.0.1"]);
    install(&ends.service, &pair, &[&ends.authority]);
    let server = Server::start(&ends.service).await;
    ask(&server.client_for(ends.client_tls(), None))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_service_of_another_authority() {
    let log = Log::capture();
    let ends = Ends::new();
    let strange = Authority::new("strange");
    let pair = strange.issue(For::Service, &[NAME]);
    install(&ends.service, &pair, &[&ends.authority]);
    let server = Server::start(&ends.service).await;
    let said = format!("is not signed by {}", ends.edge.ca.display());
    untrusted(&server.client(ends.client_tls()), &server, &[&said]).await;
    log.refused("does not accept our certificate").await;
}

#[tokio::test]
async fn a_service_whose_certificate_expired() {
    let ends = Ends::new();
    let pair = ends.authority.issue_expired(For::Service, &[NAME]);
    install(&ends.service, &pair, &[&ends.authority]);
    let server = Server::start(&ends.service).await;
    untrusted(
        &server.client(ends.client_tls()),
        &server,
        &["expired ", " d ago"],
    )
    .await;
}

#[tokio::test]
async fn a_service_with_an_edges_certificate() {
    let ends = Ends::new();
    let pair = ends.authority.issue(For::Edge, &[NAME]);
    install(&ends.service, &pair, &[&ends.authority]);
    let server = Server::start(&ends.service).await;
    untrusted(&server.client(ends.client_tls()), &server, &["serverAuth"]).await;
}

#[tokio::test]
async fn a_service_without_tls() {
    let ends = Ends::new();
    let server = Server::start_plain().await;
    untrusted(
        &server.client(ends.client_tls()),
        &server,
        &["does not speak TLS"],
    )
    .await;
}

#[tokio::test]
async fn an_edge_of_another_authority() {
    let log = Log::capture();
    let ends = Ends::new();
    let strange = Authority::new("strange");
    let pair = strange.issue(For::Edge, &["edge.example.com"]);
    install(&ends.edge, &pair, &[&ends.authority]);
    let server = Server::start(&ends.service).await;
    let ours = format!(
        "our certificate {} is not signed by an authority that the other end knows",
        ends.edge.certificate.display()
    );
    untrusted(&server.client(ends.client_tls()), &server, &[&ours]).await;
    log.refused(&format!("is not signed by {}", ends.service.ca.display()))
        .await;
}

#[tokio::test]
async fn an_edge_whose_certificate_expired() {
    let log = Log::capture();
    let ends = Ends::new();
    let pair = ends
        .authority
        .issue_expired(For::Edge, &["edge.example.com"]);
    install(&ends.edge, &pair, &[&ends.authority]);
    let server = Server::start(&ends.service).await;
    untrusted(
        &server.client(ends.client_tls()),
        &server,
        &["our certificate", "expired"],
    )
    .await;
    log.refused("showed a certificate that expired").await;
}

#[tokio::test]
async fn an_edge_without_a_certificate() {
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    let target = format!("https://{}", server.address);
    let client = ServiceClient::new(ServiceClientConfig::new("default/filter", target));
    untrusted(&client, &server, &["no certificate"]).await;
}

#[tokio::test]
async fn an_edge_without_tls() {
    let log = Log::capture();
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    let target = format!("http://{}", server.address);
    let client = ServiceClient::new(ServiceClientConfig::new("default/filter", target));
    let error = ask(&client).await.unwrap_err();
    assert!(
        matches!(
            error,
            CalloutError::Unavailable { .. } | CalloutError::Protocol { .. }
        ),
        "{error:?}"
    );
    assert_eq!(server.calls(), 0);
    log.refused("does not speak TLS").await;
}

/// A caller of any kind, and whether the server still serves others while it is there.
#[tokio::test]
async fn strangers_keep_nobody_out() {
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(&server.address).await.unwrap());
    }
    let mut plain = TcpStream::connect(&server.address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut rest))
        .await
        .expect("a plain caller is closed");
    ask(&server.client(ends.client_tls())).await.unwrap();
}

/// Foreign software: what OpenSSL says to a handshake with these files.
async fn s_client(server: &Server, ends: &Ends, with_certificate: bool) -> String {
    let mut command = tokio::process::Command::new("openssl");
    command
        .args(["s_client", "-connect", &server.address, "-servername", NAME])
        .args([
            "-verify_hostname",
            NAME,
            "-verify_return_error",
            "-alpn",
            "h2",
        ])
        .arg("-CAfile")
        .arg(&ends.edge.ca);
    if with_certificate {
        command.arg("-cert").arg(&ends.edge.certificate);
        command.arg("-key").arg(&ends.edge.key);
    }
    // The end of its input ends it after the handshake.
    let said = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let said = tokio::time::timeout(PATIENCE, said)
        .await
        .expect("openssl ends")
        .expect("openssl is installed");
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

#[tokio::test]
async fn openssl_is_let_in_with_a_certificate() {
    let log = Log::capture();
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    let said = s_client(&server, &ends, true).await;
    for part in ["Verification: OK", "ALPN protocol: h2", "TLSv1.3"] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
    ask(&server.client(ends.client_tls())).await.unwrap();
    assert!(!log.text().contains("refused"), "{}", log.text());
}

#[tokio::test]
async fn openssl_is_refused_without_one() {
    let log = Log::capture();
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    s_client(&server, &ends, false).await;
    log.refused("showed no certificate").await;
}
