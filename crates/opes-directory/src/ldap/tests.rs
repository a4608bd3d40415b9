//! Against a server of the test's own, which also says what no server should. The real one is in `tests/e2e`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::guard::element;
use super::guard::tests::{message, wrap};
use super::*;
use crate::{Answer, Directory, DirectoryConfig, Inputs, LookupError, Metrics};

/// What the server says to a search.
#[derive(Clone)]
pub(crate) enum Says {
    /// So many entries with `mailHost: mx.example.org`.
    Entries(usize),
    Code(u8),
    Nothing,
    Goodbye,
    Octets(Vec<u8>),
}

pub(crate) struct Server {
    pub(crate) port: u16,
    says: Arc<Mutex<Says>>,
    searches: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            says: Arc::new(Mutex::new(says)),
            searches: Arc::default(),
            connections: Arc::default(),
        };
        let (says, searches) = (Arc::clone(&server.says), Arc::clone(&server.searches));
        let connections = Arc::clone(&server.connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&says), Arc::clone(&searches)));
            }
        });
        server
    }

    pub(crate) fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    pub(crate) fn searches(&self) -> usize {
        self.searches.load(Ordering::SeqCst)
    }

    pub(crate) fn directory(&self, more: serde_json::Value) -> Directory {
        let mut config = json!({
            "ldap": { "url": format!("ldap://127.0.0.1:{}", self.port), "base": "o=example", "filter": "(mail=%s)" },
            "timeoutMs": 30_000,
        });
        if let (Some(config), serde_json::Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        let config: DirectoryConfig = serde_json::from_value(config).unwrap();
        let attributes = ["mailHost".to_owned()];
        Directory::new(
            "test",
            &config,
            &["s", "u", "d"],
            &attributes,
            Metrics::default(),
        )
        .unwrap()
    }
}

async fn serve(mut stream: TcpStream, says: Arc<Mutex<Says>>, searches: Arc<AtomicUsize>) {
    while let Some((id, operation)) = request(&mut stream).await {
        let mut answer = Vec::new();
        if operation == 0x63 {
            searches.fetch_add(1, Ordering::SeqCst);
            let says = says.lock().unwrap().clone();
            match says {
                Says::Entries(count) => {
                    for _ in 0..count {
                        answer.extend(with_id(&id, 0x64, &entry()));
                    }
                    answer.extend(with_id(&id, 0x65, &[10, 1, 0, 4, 0, 4, 0]));
                }
                Says::Code(code) => answer = with_id(&id, 0x65, &[10, 1, code, 4, 0, 4, 0]),
                Says::Nothing => {}
                Says::Goodbye => return,
                Says::Octets(octets) => answer = octets,
            }
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

fn with_id(id: &[u8], tag: u8, content: &[u8]) -> Vec<u8> {
    wrap(0x30, &[wrap(2, id), wrap(tag, content)].concat())
}

fn entry() -> Vec<u8> {
    let values = wrap(0x31, &wrap(4, b"mx.example.org"));
    let attribute = wrap(0x30, &[wrap(4, b"mailHost"), values].concat());
    [wrap(4, b"uid=joe"), wrap(0x30, &attribute)].concat()
}

/// Number and tag of the next request.
async fn request(stream: &mut TcpStream) -> Option<(Vec<u8>, u8)> {
    let mut octets = Vec::new();
    loop {
        octets.push(stream.read_u8().await.ok()?);
        if let Some((_, content, _)) = element(&octets) {
            let (_, id, rest) = element(content)?;
            return Some((id.to_vec(), *rest.first()?));
        }
    }
}

pub(crate) async fn ask(directory: &Directory, address: &str) -> Result<Arc<Answer>, LookupError> {
    let inputs = Inputs::default().address(address, "joe", "example.org");
    directory.look_up(&inputs).await
}

#[tokio::test]
async fn an_entry_is_found_over_a_connection_that_is_used_again() {
    let server = Server::start(Says::Entries(1)).await;
    let directory = server.directory(json!({}));
    for address in ["joe@example.org", "ann@example.org", "bob@example.org"] {
        let answer = ask(&directory, address).await.unwrap();
        let [entry] = &answer.entries[..] else {
            panic!("{answer:?}")
        };
        assert_eq!(entry.values("mailhost"), ["mx.example.org"]);
    }
    assert_eq!(server.searches(), 3);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_nothing() {
    let server = Server::start(Says::Entries(1)).await;
    let directory = server.directory(json!({}));
    ask(&directory, "a@example.org").await.unwrap();
    server.say(Says::Goodbye);
    let error = ask(&directory, "b@example.org").await.unwrap_err();
    assert!(matches!(error, LookupError::Unreachable { .. }), "{error}");
    // Once over the old connection, once over a new one.
    assert_eq!(server.searches(), 3);
    server.say(Says::Entries(1));
    assert!(ask(&directory, "b@example.org").await.unwrap().is_found());
}

#[tokio::test]
async fn too_much_is_an_error_that_names_the_bound() {
    let server = Server::start(Says::Entries(3)).await;
    for (more, said) in [
        (
            json!({ "entriesMax": 2 }),
            "more than entriesMax (2) entries",
        ),
        (json!({ "sizeMax": 200 }), "more than sizeMax octets"),
    ] {
        let error = ask(&server.directory(more), "a@example.org")
            .await
            .unwrap_err();
        assert!(
            matches!(error, LookupError::Excess { .. }) && error.to_string().contains(said),
            "{error}"
        );
    }
    server.say(Says::Code(4));
    let error = ask(&server.directory(json!({})), "a@example.org")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("entriesMax"), "{error}");
    for (code, said) in [(32, "result code 32"), (10, "refers to another server")] {
        server.say(Says::Code(code));
        let error = ask(&server.directory(json!({})), "a@example.org")
            .await
            .unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn silence_ends_with_the_time() {
    let server = Server::start(Says::Nothing).await;
    // As much for the dial, which must not be what takes it all.
    let directory = server.directory(json!({ "timeoutMs": 1000 }));
    let error = ask(&directory, "a@example.org").await.unwrap_err();
    assert_eq!(error.to_string(), "test did not answer within 1000 ms");
}

#[tokio::test]
async fn a_server_that_is_gone_or_silent_leaves_the_next_one_to_answer() {
    // Bound and never listened on: nobody else gets the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = socket.local_addr().unwrap().port();
    let (silent, good) = (
        Server::start(Says::Nothing).await,
        Server::start(Says::Entries(1)).await,
    );
    let urls = [gone, silent.port, good.port].map(|port| format!("ldap://127.0.0.1:{port}"));
    let ldap = json!({ "url": urls, "base": "o=example", "filter": "(mail=%s)" });
    // Each server has a third of it to be connected to.
    let directory = good.directory(json!({ "ldap": ldap, "timeoutMs": 3000 }));
    let error = ask(&directory, "a@example.org").await.unwrap_err();
    assert!(matches!(error, LookupError::Timeout { .. }), "{error}");
    for address in ["a@example.org", "b@example.org"] {
        assert!(ask(&directory, address).await.unwrap().is_found());
    }
    assert_eq!((silent.searches(), good.searches()), (1, 2));
}

#[tokio::test]
async fn what_was_idle_for_long_is_probed_and_for_longer_is_replaced() {
    let server = Server::start(Says::Entries(1)).await;
    let config: DirectoryConfig = serde_json::from_value(json!({ "ldap": {
        "url": format!("ldap://127.0.0.1:{}", server.port), "base": "o=example", "filter": "(mail=%s)",
    }}))
    .unwrap();
    let gauge = Gauge::default();
    let ldap = config.ldap.as_ref().unwrap();
    let ldap = Ldap::new(ldap, &config, &["s"], &[], gauge.clone()).unwrap();
    let connections = || server.connections.load(Ordering::SeqCst);
    for (idle, searches, connections_made) in [
        (Duration::ZERO, 1, 1),
        (Duration::ZERO, 2, 1),
        (PROBE_AFTER, 4, 1),
        (IDLE_MAX + PROBE_AFTER, 5, 2),
    ] {
        ldap.with_idle(|all| all.iter_mut().for_each(|one| one.since -= idle));
        assert_eq!(
            ldap.search(&["a".to_owned()]).await.unwrap().entries.len(),
            1
        );
        assert_eq!(
            (server.searches(), connections()),
            (searches, connections_made),
            "{idle:?}"
        );
    }
    assert_eq!(gauge.get(), 1);
    // One that does not answer the probe is not asked at all.
    server.say(Says::Nothing);
    ldap.with_idle(|all| all.iter_mut().for_each(|one| one.since -= PROBE_AFTER));
    assert!(ldap.healthy().await.is_none());
    assert_eq!(gauge.get(), 0);
}

/// As a hostile server would have it: whole messages of the kinds there are, with anything in them.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let tag = proptest::sample::select(vec![0x61u8, 0x64, 0x65, 0x73, 0x78]);
    let octets = proptest::collection::vec(any::<u8>(), 0..100);
    let one = (tag, octets.clone()).prop_map(|(tag, octets)| message(tag, &octets));
    prop_oneof![
        octets,
        proptest::collection::vec(one, 0..4).prop_map(|all| all.concat())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_server_says_is_an_answer_or_an_error(octets in hostile()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start(Says::Octets(octets)).await;
            let directory = server.directory(json!({ "timeoutMs": 100 }));
            let _answer_or_error = ask(&directory, "a@example.org").await;
            server.say(Says::Entries(1));
            let directory = server.directory(json!({}));
            assert!(ask(&directory, "a@example.org").await.unwrap().is_found());
        });
    }
}
