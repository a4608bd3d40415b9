//! The admin server as a prober and a scraper see it.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::time::Duration;

use opes_telemetry::{ADMIN_CONNECTIONS_MAX, Health, Registry, serve_admin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(30);

async fn start() -> (std::net::SocketAddr, Health) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health = Health::new();
    tokio::spawn(serve_admin(listener, Registry::new(), health.clone()));
    (address, health)
}

async fn ask(address: std::net::SocketAddr, request_line: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request =
            format!("{request_line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap()
}

#[tokio::test]
async fn readiness_follows_health_and_names_the_reason() {
    let (address, health) = start().await;
    health.not_ready("rules", "no routing table yet");
    let answer = ask(address, "GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.ends_with("rules: no routing table yet\n"),
        "{answer}"
    );
    assert!(
        ask(address, "GET /healthz")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    health.ready("rules");
    assert!(
        ask(address, "GET /readyz")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn metrics_are_open_metrics_text() {
    let (address, _health) = start().await;
    let answer = ask(address, "GET /metrics").await;
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    assert!(
        answer.contains("process_resident_memory_bytes "),
        "{answer}"
    );
    assert!(answer.contains("process_cpu_seconds_total "), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let (address, _health) = start().await;
    assert!(ask(address, "GET /").await.starts_with("HTTP/1.1 404 "));
    assert!(
        ask(address, "POST /metrics")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(ask(address, "GARBAGE").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn idle_connections_do_not_keep_a_prober_out() {
    let (address, _health) = start().await;
    let mut idle = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_MAX {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(
        ask(address, "GET /healthz")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}
