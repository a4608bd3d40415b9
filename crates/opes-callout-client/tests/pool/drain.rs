use std::time::Duration;

use crate::load::Load;
use crate::worker::{PATIENCE, Server, client, ready, servers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_costs_no_message_although_nothing_may_be_repeated() {
    let mut servers = servers(3, Duration::from_millis(10));
    let client = client(&servers, false);
    ready(&client).await;
    let load = Load::start(&client);
    for n in 0..3 {
        load.run_until(load.elapsed() + Duration::from_millis(500))
            .await;
        servers[n].shutdown.cancel();
        servers.push(Server::start(Duration::from_millis(10)));
        let rest: Vec<_> = servers[n + 1..].iter().map(Server::target).collect();
        load.run_until(load.elapsed() + Duration::from_millis(500))
            .await;
        client.set_endpoints(&rest);
    }
    load.run_until(load.elapsed() + Duration::from_millis(500))
        .await;
    let all_used = async {
        while servers[3..].iter().any(|server| server.begun() == 0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_used).await.unwrap();
    let figures = load.finish().await;
    assert_eq!(figures.errors(), [""; 0]);
}
