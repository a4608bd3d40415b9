use std::time::Duration;

use opes_callout_client::{CalloutError, ServiceClient, ServiceClientConfig};
use tokio::task::JoinSet;

use crate::load::Load;
use crate::worker::{PATIENCE, Server, client, config, ready, request, servers};

const WORK: Duration = Duration::from_millis(30);

const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Two seconds as it should be, then half of the endpoints go; five seconds later all must be as before.
async fn half_of_them(go: impl Fn(&mut Server), how: &str) {
    let mut servers = servers(10, WORK);
    let client = client(&servers, true);
    ready(&client).await;
    let load = Load::start(&client);
    load.run_until(s(2)).await;
    for server in &mut servers[..5] {
        go(server);
    }
    let gone = load.elapsed();
    load.run_until(gone + s(7)).await;
    let figures = load.finish().await;
    let before = figures.p99(s(0), s(2));
    let (during, after) = (
        figures.p99(s(2), gone + s(5)),
        figures.p99(gone + s(5), gone + s(7)),
    );
    let (count, retries) = (figures.count(), client.snapshot().retries);
    println!(
        "five of ten {how}: {count} callouts, {retries} repeated, p99 {before:?} before, {during:?} in the 5 s after, {after:?} then"
    );
    assert_eq!(figures.errors(), [""; 0], "no callout fails");
    assert!(retries > 0, "nothing ran on those that went");
    // One that hangs and is still used would cost two seconds; less can be a busy machine.
    assert!(after < before * 3 + s(1), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_of_ten_endpoints_are_killed() {
    half_of_them(Server::kill, "killed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_of_ten_endpoints_hang() {
    half_of_them(Server::hang, "hanging").await;
}

#[tokio::test]
async fn without_idempotence_exactly_what_ran_there_fails_and_nothing_is_repeated() {
    const CALLS: usize = 60;
    let mut servers = servers(10, Duration::ZERO);
    let client = client(&servers, false);
    ready(&client).await;
    for server in &servers {
        server.hold.send_replace(true);
    }
    let before: usize = servers.iter().map(Server::begun).sum();
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let client = client.clone();
        calls.spawn(async move { client.run(request(PATIENCE)).await });
    }
    let begun = || servers.iter().map(Server::begun).sum::<usize>() - before;
    let all_begun = async {
        while begun() < CALLS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_begun).await.unwrap();
    let running: Vec<_> = client
        .snapshot()
        .endpoints
        .iter()
        .map(|e| e.in_flight)
        .collect();
    for server in &mut servers[..5] {
        server.kill();
    }
    for server in &servers[5..] {
        server.hold.send_replace(false);
    }
    let (mut answered, mut lost) = (0, 0);
    while let Some(result) = calls.join_next().await {
        match result.unwrap() {
            Ok(_) => answered += 1,
            Err(CalloutError::Unavailable { .. }) => lost += 1,
            Err(other) => panic!("{other}"),
        }
    }
    let on_killed: u32 = running[..5].iter().sum();
    assert!(on_killed > 0, "{running:?}");
    assert_eq!(lost, on_killed);
    assert_eq!(answered + lost, u32::try_from(CALLS).unwrap());
    let begun = servers.iter().map(Server::begun).sum::<usize>() - before;
    assert_eq!(begun, CALLS, "nothing was begun twice");
}

#[tokio::test]
async fn a_lone_endpoint_that_hangs_is_found_out_long_before_the_time_is_up() {
    let mut servers = servers(1, s(60));
    let client = client(&servers, false);
    let running = {
        let client = client.clone();
        tokio::spawn(async move { client.run(request(s(60))).await })
    };
    while servers[0].begun() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    servers[0].hang();
    let result = tokio::time::timeout(s(40), running).await;
    let error = result.expect("found out").unwrap().unwrap_err();
    assert!(error.to_string().contains("progress query"), "{error}");
}

#[tokio::test]
async fn signs_of_life_without_progress_keep_no_transaction_alive() {
    let servers = servers(1, s(60));
    let client = ServiceClient::new(ServiceClientConfig {
        idle_timeout: s(2),
        ..config(&servers)
    });
    let error = client.run(request(s(60))).await.unwrap_err();
    assert!(
        matches!(&error, CalloutError::Unavailable { reason, .. } if reason.contains("idleTimeout")),
        "{error}"
    );
    // The connection is as good as before.
    assert_eq!(client.snapshot().endpoints[0].connections, 1);
}
