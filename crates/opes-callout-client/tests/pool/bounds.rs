use std::time::{Duration, Instant};

use opes_callout_client::{BreakerState, CalloutError, ServiceClient, ServiceClientConfig};

use crate::worker::{PATIENCE, Server, client, config, ready, request, servers};

#[tokio::test]
async fn beyond_the_bounds_a_callout_fails_at_once() {
    let servers = servers(1, Duration::from_secs(1));
    let client = ServiceClient::new(ServiceClientConfig {
        max_in_flight: 2,
        max_queued: 1,
        ..config(&servers)
    });
    ready(&client).await;
    let calls = (0..4).map(|_| Box::pin(client.run(request(PATIENCE))));
    // At once: before any of the others is answered.
    let (first, _, others) = futures_util::future::select_all(calls).await;
    let Err(CalloutError::Unavailable { reason, .. }) = first else {
        panic!("{first:?}");
    };
    assert!(reason.contains("limits.maxInFlight"), "{reason}");
    for result in futures_util::future::join_all(others).await {
        result.unwrap();
    }
    assert_eq!(client.snapshot().refused_full, 1);
}

#[tokio::test]
async fn a_service_that_is_away_is_known_to_be_and_found_when_it_is_back() {
    let mut servers = servers(1, Duration::ZERO);
    let client = client(&servers, false);
    ready(&client).await;
    servers[0].kill();
    // First callouts wait for the next dial; after a while the outage is known.
    let known = async {
        while client.snapshot().breaker != BreakerState::Open {
            client.run(request(PATIENCE)).await.unwrap_err();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap();
    let started = Instant::now();
    for _ in 0..100 {
        client.run(request(PATIENCE)).await.unwrap_err();
    }
    // Waiting for the next dial would be a second each.
    assert!(started.elapsed() < Duration::from_secs(20), "at once");
    let back = Server::start(Duration::ZERO);
    client.set_endpoints(&[back.target()]);
    client.run(request(PATIENCE)).await.unwrap();
    assert_eq!(client.snapshot().breaker, BreakerState::Closed);
}
