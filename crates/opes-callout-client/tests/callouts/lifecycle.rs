use std::time::Duration;

use opes_callout_client::{CalloutError, ServiceClient, ServiceClientConfig};
use opes_callout_server::ServerConfig;

use crate::harness::{Server, config, content, mail, request, run};

async fn killed_and_back(address: &str) {
    let server = Server::start_at(address, ServerConfig::default());
    let client = server.client();
    let view = content(mail(20 << 20)).await;
    let running = {
        let (client, view) = (client.clone(), view.clone());
        tokio::spawn(async move { run(&client, request("wait", Some(view))).await })
    };
    server.signals.begun.notified().await;
    let address = server.kill();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, CalloutError::Unavailable { .. }), "{error}");
    let error = run(&client, request("proceed", None)).await.unwrap_err();
    assert!(matches!(error, CalloutError::Unavailable { .. }), "{error}");

    let _server = Server::start_at(&address, ServerConfig::default());
    run(&client, request("count", Some(view))).await.unwrap();
}

#[tokio::test]
async fn killed_in_the_middle_of_a_body_and_back_on_the_same_port() {
    killed_and_back("127.0.0.1:0").await;
}

#[tokio::test]
async fn killed_in_the_middle_of_a_body_and_back_on_the_same_socket() {
    let dir = tempfile::tempdir().unwrap();
    killed_and_back(&format!("unix:{}", dir.path().join("s").display())).await;
}

#[tokio::test]
async fn an_idempotent_service_is_asked_again_when_the_connection_is_lost() {
    let server = Server::start();
    let config = ServiceClientConfig {
        idempotent: true,
        ..config(&server.target())
    };
    let client = ServiceClient::new(config);
    run(&client, request("proceed", None)).await.unwrap();
    let address = server.kill();
    let _server = Server::start_at(&address, ServerConfig::default());
    run(&client, request("proceed", None)).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_the_next_one_opened() {
    let server = Server::start();
    let config = ServiceClientConfig {
        connection_idle: Duration::from_millis(100),
        ..config(&server.target())
    };
    let client = ServiceClient::new(config);
    for _ in 0..3 {
        run(&client, request("proceed", None)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

#[tokio::test]
async fn a_draining_server_finishes_what_runs_and_takes_nothing_new() {
    let mut server = Server::start();
    let client = server.client();
    let view = content(mail(4096)).await;
    let running = {
        let (client, view) = (client.clone(), view.clone());
        tokio::spawn(async move { run(&client, request("wait", Some(view))).await })
    };
    server.signals.begun.notified().await;
    server.shutdown.cancel();
    let refused = async {
        // The order to drain is on its way; until it arrives, transactions are served.
        loop {
            if let Err(error) = run(&client, request("proceed", None)).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(crate::harness::PATIENCE, refused)
        .await
        .unwrap();
    assert!(matches!(error, CalloutError::Unavailable { .. }), "{error}");
    server.signals.go_on.notify_one();
    assert_eq!(running.await.unwrap().unwrap().outcome.reason, "waited");
    let done = server.done.take().unwrap();
    done.await.unwrap().unwrap();
    let address = server.kill();
    let _server = Server::start_at(&address, ServerConfig::default());
    run(&client, request("count", Some(view))).await.unwrap();
}

#[tokio::test]
async fn a_server_for_one_transaction_at_a_time_is_given_no_more() {
    let one = ServerConfig {
        transactions_max: 1,
        ..ServerConfig::default()
    };
    let server = Server::start_at("127.0.0.1:0", one);
    let client = server.client();
    let all = (0..20).map(|_| run(&client, request("proceed", None)));
    for answer in futures_util::future::join_all(all).await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn many_rules_share_a_connection_and_old_ones_go() {
    let server = Server::start();
    let client = server.client();
    for _ in 0..400 {
        // Each request here has a group of its own.
        run(&client, request("proceed", None)).await.unwrap();
    }
}
