//! A name whose addresses change while the service is in use, in virtual time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opes_callout_client::{CalloutError, EndpointState, ServiceClient, ServiceClientConfig};
use opes_callout_server::{Listener, ServerConfig, serve};
use opes_host::{Host, Network, Random};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::network::Wires;
use crate::worker::{PATIENCE, Worker, request};

const PORT: u16 = 9000;
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// How often a name is looked up, and a bit for the dial.
const SOON: Duration = Duration::from_millis(5_100);

/// Of a transaction.
const WORK: Duration = Duration::from_secs(2);
/// Between two of them.
const EVERY: Duration = Duration::from_millis(50);

/// A service behind the name, and a load.
struct World {
    wires: Arc<Wires>,
    client: ServiceClient,
    begun: [Arc<AtomicUsize>; 2],
    load: JoinHandle<()>,
    failures: Arc<std::sync::Mutex<Vec<CalloutError>>>,
}

impl World {
    /// Two servers; the name stands for the first. A transaction begins every [`EVERY`].
    async fn start() -> Self {
        let wires = Arc::new(Wires::default());
        wires.answer(Some(&[FIRST]));
        let network = Network::Other(Arc::clone(&wires) as Arc<_>);
        let begun = [FIRST, SECOND].map(|_| Arc::<AtomicUsize>::default());
        for (address, begun) in [FIRST, SECOND].into_iter().zip(&begun) {
            let worker = Worker {
                time: WORK,
                begun: Arc::clone(begun),
                held: tokio::sync::watch::channel(false).1,
            };
            let address = SocketAddr::new(address, PORT);
            let listener = Listener::Host(network.bind(address).await.unwrap());
            let forever = CancellationToken::new();
            let serving = serve(Arc::new(worker), listener, ServerConfig::default(), forever);
            tokio::spawn(serving);
        }
        let client = ServiceClient::new(ServiceClientConfig {
            endpoints: vec![format!("dns://filter.example.com:{PORT}")],
            host: Host {
                network,
                random: Random::seeded(1),
                ..Host::default()
            },
            ..ServiceClientConfig::new("worker", "")
        });
        let failures = Arc::<std::sync::Mutex<Vec<_>>>::default();
        let (calling, failed) = (client.clone(), Arc::clone(&failures));
        let load = tokio::spawn(async move {
            loop {
                let (client, failed) = (calling.clone(), Arc::clone(&failed));
                tokio::spawn(async move {
                    let result = client.run(request(PATIENCE)).await;
                    failed.lock().unwrap().extend(result.err());
                });
                sleep(EVERY).await;
            }
        });
        Self {
            wires,
            client,
            begun,
            load,
            failures,
        }
    }

    fn begun(&self) -> [usize; 2] {
        [0, 1].map(|server: usize| self.begun[server].load(Ordering::Relaxed))
    }

    /// How many each server begins in this time.
    async fn share(&self, time: Duration) -> [usize; 2] {
        let before = self.begun();
        sleep(time).await;
        let after = self.begun();
        [after[0] - before[0], after[1] - before[1]]
    }

    fn ready(&self) -> Vec<String> {
        let endpoints = self.client.snapshot().endpoints.into_iter();
        let ready = endpoints.filter(|endpoint| endpoint.state == EndpointState::Ready);
        ready.map(|endpoint| endpoint.target).collect()
    }

    fn open(&self, address: IpAddr) -> usize {
        self.wires.open(SocketAddr::new(address, PORT))
    }

    /// Ends the load; nothing has failed.
    async fn finish(self) {
        self.load.abort();
        sleep(WORK + EVERY).await;
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
    }
}

fn target(address: IpAddr) -> String {
    format!("http://{address}:{PORT}")
}

#[tokio::test(start_paused = true)]
async fn an_address_that_joins_a_name_takes_its_share() {
    let world = World::start().await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.ready(), [target(FIRST)]);
    assert_eq!(world.begun()[1], 0);
    world.wires.answer(Some(&[FIRST, SECOND]));
    let joined = Instant::now();
    while world.begun()[1] == 0 {
        assert!(joined.elapsed() < SOON, "not used in time");
        sleep(EVERY).await;
    }
    // It has all of its weight five seconds later.
    sleep(Duration::from_secs(6)).await;
    let share = world.share(Duration::from_secs(10)).await;
    let total: usize = share.iter().sum();
    println!("used after {:?}, shares then: {share:?}", joined.elapsed());
    assert!(share[1] * 10 > total * 4, "{share:?}");
    assert_eq!(world.open(FIRST), 1, "the first was left alone");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_leaves_a_name_finishes_what_it_has_and_gets_no_more() {
    let world = World::start().await;
    world.wires.answer(Some(&[SECOND, FIRST, SECOND]));
    sleep(SOON + Duration::from_secs(6)).await;
    assert_eq!(world.ready(), [target(FIRST), target(SECOND)]);
    world.wires.answer(Some(&[SECOND]));
    let left = Instant::now();
    while world.ready().len() > 1 {
        assert!(left.elapsed() < SOON, "still used");
        sleep(EVERY).await;
    }
    let begun = world.begun();
    assert_eq!(world.open(FIRST), 1, "something runs there");
    sleep(WORK + EVERY).await;
    assert_eq!(world.open(FIRST), 0, "let go when that has ended");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.begun()[0], begun[0]);
    assert!(world.begun()[1] > begun[1]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_answer_stays_while_there_is_no_other() {
    let world = World::start().await;
    sleep(Duration::from_secs(1)).await;
    world.wires.answer(None);
    let before = world.wires.look_ups();
    let share = world.share(Duration::from_mins(1)).await;
    assert!(share[0] > 1000, "{share:?}");
    let asked = world.wires.look_ups() - before;
    assert!((11..=12).contains(&asked), "{asked} look-ups in a minute");
    // A name without addresses is no answer either: an instance of a headless service is not ready for a moment.
    world.wires.answer(Some(&[]));
    let share = world.share(Duration::from_secs(20)).await;
    assert!(share[0] > 300, "{share:?}");
    world.wires.answer(Some(&[SECOND]));
    sleep(SOON).await;
    assert_eq!(world.ready(), [target(SECOND)]);
    world.finish().await;
}
