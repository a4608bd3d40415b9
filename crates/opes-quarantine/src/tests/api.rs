//! Client and server of the API, over a Unix socket and over TCP.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;

use super::{Bench, MESSAGE, held};
use crate::api::{Api, Released, Releaser, serve_tcp, serve_unix, unix_socket};
use crate::{Client, ClientError, Endpoint, Fate, Filter, ReleaseRequest, Store, StoreError};

const TOKEN: &str = "0123456789abcdef";

/// An edge that delivers at once.
struct Edge(Store);

impl Releaser for Edge {
    fn release<'a>(
        &'a self,
        id: &'a str,
        request: &'a ReleaseRequest,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Released, StoreError>> {
        Box::pin(async move {
            let release = self.0.begin_release(id, request, "edge1", by).await?;
            assert_eq!(self.0.finish_release(&release.id).await?, Fate::Deliver);
            let recipients = release.envelope.recipients.into_iter();
            Ok(Released {
                release: release.id,
                recipients: recipients.map(|recipient| recipient.address).collect(),
            })
        })
    }
}

fn api(bench: &Bench) -> Api {
    Api {
        store: bench.store.clone(),
        releaser: Arc::new(Edge(bench.store.clone())),
    }
}

fn status(refused: &ClientError) -> u16 {
    match refused {
        ClientError::Refused { status, .. } => *status,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_operator_on_this_machine_can_do_everything() {
    let bench = Bench::sqlite();
    let path = bench.dir.path().join("socket");
    // What a killed process left.
    drop(unix_socket(&path).unwrap());
    tokio::spawn(serve_unix(unix_socket(&path).unwrap(), api(&bench)));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let client = Client::new(Endpoint::Socket(path.clone()), "Zoe");

    bench
        .hold(&held("a", &["paul@example.com", "ann@example.net"]))
        .await;
    let filter = Filter {
        sender: Some("steve@example.org".into()),
        reason: Some("100% odd".into()),
        limit: Some(5),
        ..Filter::default()
    };
    assert_eq!(client.list(&filter).await.unwrap().entries.len(), 1);
    let mut octets = Vec::new();
    client.content("a", &mut octets).await.unwrap();
    assert_eq!(octets, MESSAGE);
    let request = ReleaseRequest {
        recipients: Some(vec!["ann@example.net".into()]),
        again: false,
    };
    let released = client.release("a", &request).await.unwrap();
    assert_eq!(released.recipients, ["ann@example.net"]);
    assert_eq!(
        status(&client.release("a", &request).await.unwrap_err()),
        409
    );
    assert_eq!(
        client.show("a").await.unwrap().audit.last().unwrap().by,
        "Zoe"
    );
    assert_eq!(client.expire().await.unwrap().expired, 1);
    assert_eq!(status(&client.delete("a").await.unwrap_err()), 410);
    assert_eq!(status(&client.show("..%2Fx").await.unwrap_err()), 404);
    assert_eq!(
        status(
            &client
                .list(&Filter {
                    cursor: Some("x".into()),
                    ..Filter::default()
                })
                .await
                .unwrap_err()
        ),
        400
    );
    let nameless = Client::new(Endpoint::Socket(path), "");
    bench.hold(&held("b", &["paul@example.com"])).await;
    nameless.delete("b").await.unwrap();
    let gone = nameless.show("b").await.unwrap_err().to_string();
    assert!(gone.contains("deleted by uid "), "{gone}");
}

#[tokio::test]
async fn over_tcp_only_who_knows_the_token_gets_an_answer() {
    let bench = Bench::sqlite();
    bench.hold(&held("a", &["paul@example.com"])).await;
    let file = bench.dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve_tcp(listener, api(&bench), file.clone()));
    let client = |token: &str| {
        let endpoint = Endpoint::Tcp {
            authority: authority.clone(),
            token: token.into(),
        };
        Client::new(endpoint, "Zoe")
    };
    assert!(client(TOKEN).show("a").await.is_ok());
    for wrong in [
        "",
        "0123456789abcdeF",
        "0123456789abcde",
        "0123456789abcdef0",
    ] {
        assert_eq!(
            status(&client(wrong).show("a").await.unwrap_err()),
            401,
            "{wrong}"
        );
    }
    // Replaced while we run; a token that can be guessed is none.
    for (token, expected) in [
        ("fedcba9876543210", Ok(())),
        ("short", Err(503)),
        ("", Err(503)),
    ] {
        std::fs::write(&file, token).unwrap();
        let shown = client(token).show("a").await;
        assert_eq!(
            shown.map(|_| ()).map_err(|error| status(&error)),
            expected,
            "{token}"
        );
    }
}
