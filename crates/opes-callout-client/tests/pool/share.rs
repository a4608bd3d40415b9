use std::time::Duration;

use opes_callout_client::{ServiceClient, ServiceClientConfig};

use crate::load::Load;
use crate::worker::{PATIENCE, Server, client, config, ready, request, servers};

const WORK: Duration = Duration::from_millis(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eleventh_endpoint_takes_its_share_within_ten_seconds() {
    let mut servers = servers(10, WORK);
    let client = client(&servers, false);
    ready(&client).await;
    let load = Load::start(&client);
    load.run_until(Duration::from_secs(1)).await;
    servers.push(Server::start(WORK));
    let endpoints: Vec<_> = servers.iter().map(Server::target).collect();
    client.set_endpoints(&endpoints);
    let added = load.elapsed();
    load.run_until(added + Duration::from_secs(8)).await;
    let begun = || servers.iter().map(Server::begun).collect::<Vec<_>>();
    let before = begun();
    load.run_until(added + Duration::from_secs(10)).await;
    // On a busy machine two seconds may be too few callouts to tell shares from chance.
    while begun().iter().sum::<usize>() < before.iter().sum::<usize>() + 1000 {
        load.run_until(load.elapsed() + Duration::from_millis(50))
            .await;
    }
    let after = begun();
    let shares: Vec<_> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    let figures = load.finish().await;
    let total: usize = shares.iter().sum();
    println!("8 to 10 s after the eleventh came: {shares:?} of {total}");
    assert_eq!(figures.errors(), [""; 0]);
    // A fair share would be an eleventh.
    assert!(shares[10] * 11 * 10 > total * 6, "{shares:?}");
}

#[tokio::test]
async fn those_that_leave_finish_what_they_have() {
    let servers = servers(2, Duration::ZERO);
    let client = client(&servers, false);
    ready(&client).await;
    for server in &servers {
        server.hold.send_replace(true);
    }
    let begun = || servers.iter().map(Server::begun).sum::<usize>();
    let all = begun() + 20;
    let running: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.run(request(PATIENCE)).await })
        })
        .collect();
    let before = servers[0].begun();
    while begun() < all {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(servers[0].begun() > before, "some run there");
    client.set_endpoints(&[servers[1].target()]);
    let left = servers[0].begun();
    for server in &servers {
        server.hold.send_replace(false);
    }
    for call in running {
        call.await.unwrap().unwrap();
    }
    client.run(request(PATIENCE)).await.unwrap();
    assert_eq!(servers[0].begun(), left);
    assert_eq!(client.snapshot().endpoints.len(), 1);
}

#[tokio::test]
async fn all_addresses_of_a_name_are_endpoints() {
    let servers = servers(1, Duration::ZERO);
    let (_, port) = servers[0].address.rsplit_once(':').unwrap();
    let client = ServiceClient::new(ServiceClientConfig {
        endpoints: vec![format!("dns://localhost:{port}")],
        ..config(&servers)
    });
    for _ in 0..20 {
        client.run(request(PATIENCE)).await.unwrap();
    }
    assert_eq!(servers[0].begun(), 20);
    let endpoints = client.snapshot().endpoints;
    let own = format!("http://127.0.0.1:{port}");
    assert!(endpoints.iter().any(|e| e.target == own), "{endpoints:?}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_unavailable_service() {
    let servers = servers(1, Duration::ZERO);
    let client = ServiceClient::new(ServiceClientConfig {
        endpoints: vec!["dns://nobody.invalid:9000".into()],
        ..config(&servers)
    });
    let error = client.run(request(PATIENCE)).await.unwrap_err().to_string();
    assert!(error.contains("nobody.invalid:9000"), "{error}");
    client.set_endpoints(&["dns://elsewhere.invalid:9000".into()]);
    let error = client.run(request(PATIENCE)).await.unwrap_err().to_string();
    assert!(
        error.contains("elsewhere.invalid:9000") && !error.contains("nobody"),
        "{error}"
    );
    client.set_endpoints(&[servers[0].target()]);
    client.run(request(PATIENCE)).await.unwrap();
}
