//! Certificates and authorities that are replaced while transactions run: none fails, and nothing old lives on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opes_callout_client::{CalloutError, ClientTls, ServiceClient};
use opes_callout_server::ServerTls;

use crate::authority::{Authority, For, install, trust};
use crate::peers::{Ends, NAME, PATIENCE, Server, ask, request};

/// Callers that ask one transaction after the other until they are stopped.
struct Steady {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<Result<(), CalloutError>>>,
}

impl Steady {
    fn start(client: &ServiceClient) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let callers = (0..4).map(|_| {
            let (client, stop, answered) =
                (client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    ask(&client).await?;
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok(())
            })
        });
        let callers = callers.collect();
        Self {
            stop,
            answered,
            callers,
        }
    }

    /// Until a good number more was answered.
    async fn go_on(&self) {
        let enough = self.answered.load(Ordering::Relaxed) + 50;
        let waiting = async {
            while self.answered.load(Ordering::Relaxed) < enough
                && !self
                    .callers
                    .iter()
                    .any(tokio::task::JoinHandle::is_finished)
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .expect("answers");
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap().unwrap();
        }
    }
}

/// Looks until the files hold still, as the background thread does once a second.
macro_rules! settle {
    ($tls:expr) => {
        while !matches!($tls.look(), opes_reload::Look::Unchanged) {}
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_rotated_and_no_transaction_fails() {
    let ends = Ends::new();
    let service = ServerTls::server(ends.service.clone()).unwrap();
    let edge = ends.client_tls();
    let server = Server::start_with(service.clone()).await;
    let steady = Steady::start(&server.client(edge.clone()));
    steady.go_on().await;

    // The same authority, other certificates.
    let pair = ends.authority.issue(For::Service, &[NAME]);
    install(&ends.service, &pair, &[&ends.authority]);
    settle!(service);
    steady.go_on().await;
    let pair = ends.authority.issue(For::Edge, &["edge.example.com"]);
    install(&ends.edge, &pair, &[&ends.authority]);
    settle!(edge);
    steady.go_on().await;

    // Another authority: both known at both ends, then certificates from the new one, then the old one goes.
    let next = Authority::new("next");
    for (files, tls) in [(&ends.service, None), (&ends.edge, Some(&edge))] {
        trust(files, &[&ends.authority, &next]);
        match tls {
            Some(edge) => settle!(edge),
            None => settle!(service),
        }
        steady.go_on().await;
    }
    let pair = next.issue(For::Service, &[NAME]);
    install(&ends.service, &pair, &[&ends.authority, &next]);
    settle!(service);
    steady.go_on().await;
    let pair = next.issue(For::Edge, &["edge.example.com"]);
    install(&ends.edge, &pair, &[&ends.authority, &next]);
    settle!(edge);
    steady.go_on().await;
    trust(&ends.service, &[&next]);
    settle!(service);
    steady.go_on().await;
    trust(&ends.edge, &[&next]);
    settle!(edge);
    steady.go_on().await;
    steady.finish().await;
}

#[tokio::test]
async fn an_authority_that_the_service_no_longer_knows_does_not_live_on() {
    let ends = Ends::new();
    let service = ServerTls::server(ends.service.clone()).unwrap();
    let server = Server::start_with(service.clone()).await;
    let client = server.client(ends.client_tls());
    ask(&client).await.unwrap();
    let running = {
        let client = client.clone();
        tokio::spawn(async move { client.run(request("slow")).await })
    };
    while server.calls() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    trust(&ends.service, &[&Authority::new("another")]);
    settle!(service);
    let refused = async {
        // The order to drain is on its way; until it arrives, transactions are served.
        loop {
            if let Err(error) = ask(&client).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    assert!(error.to_string().contains("our certificate"), "{error}");
    // What was begun before is finished.
    assert_eq!(running.await.unwrap().unwrap().outcome.reason, "seen");
}

#[tokio::test]
async fn an_authority_that_the_edge_no_longer_knows_does_not_live_on() {
    let ends = Ends::new();
    let server = Server::start(&ends.service).await;
    let edge = ends.client_tls();
    let client = server.client(edge.clone());
    ask(&client).await.unwrap();
    trust(&ends.edge, &[&Authority::new("another")]);
    settle!(edge);
    let error = ask(&client).await.unwrap_err();
    assert!(error.to_string().contains("is not signed by"), "{error}");
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_broken_replacement_leaves_the_last_good_one() {
    let ends = Ends::new();
    let service = ServerTls::server(ends.service.clone()).unwrap();
    let server = Server::start_with(service.clone()).await;
    std::fs::write(&ends.service.key, "half a k").unwrap();
    settle!(service);
    ask(&server.client(ends.client_tls())).await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start_with_their_names() {
    let ends = Ends::new();
    let strange = ends.authority.issue(For::Edge, &["edge.example.com"]);
    let elsewhere = crate::authority::files(ends.folder.path(), "elsewhere");
    install(&elsewhere, &strange, &[&ends.authority]);
    let mixed = opes_callout_client::MutualFiles {
        key: elsewhere.key.clone(),
        ..ends.edge.clone()
    };
    let error = ClientTls::client(mixed).unwrap_err().to_string();
    assert!(
        error.contains("elsewhere.key is not the key of") && error.contains("edge.crt"),
        "{error}"
    );
}
