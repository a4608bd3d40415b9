//! The authority and everything that it signed is replaced, twice, while edges follow and KEDA asks: no call fails.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use opes_proto::externalscaler::ScaledObjectRef;
use opes_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use opes_tls::ClientTls;

use super::bed::{Bed, EdgeEnd, NAMESPACE, SERVER, channel, follow, snapshot, texts, until};
use super::*;
use crate::certificates::state::{Authorities, Step};
use crate::certificates::{Lifetimes, edge_name, service_name};

#[derive(Default)]
struct Counts {
    asked: AtomicUsize,
    followed: AtomicUsize,
    stop: AtomicBool,
}

async fn enter(address: std::net::SocketAddr, tls: &ClientTls) -> EdgeEnd {
    let channel = channel(address, tls).await.expect("an edge is let in");
    let mut end = follow(channel).await.expect("an edge may follow");
    end.hello("edge-0").await;
    end.table().await;
    end
}

/// Follows, and comes again whenever the stream ends. Panics when it may not, or when an end is not a clean one.
async fn edge(address: std::net::SocketAddr, tls: ClientTls, counts: Arc<Counts>) {
    while !counts.stop.load(Ordering::Relaxed) {
        let mut end = enter(address, &tls).await;
        counts.followed.fetch_add(1, Ordering::Relaxed);
        let gone = async { while end.hear.message().await.expect("a clean end").is_some() {} };
        let stopped = async {
            while !counts.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! { () = gone => {}, () = stopped => {} }
    }
}

/// Asks again and again, half of the time over a new connection.
async fn keda(address: std::net::SocketAddr, tls: ClientTls, counts: Arc<Counts>) {
    let metadata = HashMap::from([("service".to_owned(), "mail/scan".to_owned())]);
    let object = ScaledObjectRef {
        name: "opes-scan".into(),
        namespace: "mail".into(),
        scaler_metadata: metadata,
    };
    while !counts.stop.load(Ordering::Relaxed) {
        let channel = channel(address, &tls).await.expect("KEDA is let in");
        let mut client = ExternalScalerClient::new(channel);
        for _ in 0..2 {
            let answer = client.is_active(object.clone()).await;
            answer.expect("an answer");
            counts.asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_authority_and_certificates_are_replaced() {
    let bed = Bed::start().await;
    bed.publish(snapshot("1111", &[], &[]));
    let names = [edge_name(NAMESPACE), service_name("mail", "scan")];
    let ends = names.map(|name| {
        let tls = ClientTls::client_in_memory(&bed.texts(&name)).unwrap();
        (name, tls)
    });
    let counts = Arc::new(Counts::default());
    let following = edge(bed.address, ends[0].1.clone(), Arc::clone(&counts));
    let following = tokio::spawn(following);
    // Without any edge there is no figure to ask for.
    until(|| counts.followed.load(Ordering::Relaxed) > 0).await;
    let asking = keda(bed.address, ends[1].1.clone(), Arc::clone(&counts));
    let callers = [following, tokio::spawn(asking)];
    let go_on = async || {
        let enough = counts.asked.load(Ordering::Relaxed) + 20;
        until(|| {
            let ended = callers.iter().any(tokio::task::JoinHandle::is_finished);
            ended || counts.asked.load(Ordering::Relaxed) >= enough
        })
        .await;
    };
    let lifetimes = Lifetimes {
        settle: Duration::ZERO,
        overlap: Duration::ZERO,
        ..Lifetimes::default()
    };
    let (mut state, first) = (bed.authorities.clone(), bed.authorities.issuer.id.clone());
    for _rotation in 0..2 {
        state.asked = true;
        for expected in ["announced", "switched", "steady"] {
            let next = state.next_step(bed::now(), &lifetimes, true);
            state = next.unwrap().unwrap();
            let step = match state.step {
                Step::Announced(_) => "announced",
                Step::Switched(_) => "switched",
                Step::Steady => "steady",
            };
            assert_eq!(step, expected);
            go_on().await;
            let followed = counts.followed.load(Ordering::Relaxed);
            bed.own.send_replace(Some(Arc::new(texts(&state, SERVER))));
            // The others' Secrets arrive later.
            go_on().await;
            for (name, tls) in &ends {
                tls.replace(&texts(&state, name)).unwrap();
            }
            go_on().await;
            // Nobody lives on with what is no longer in force.
            until(|| counts.followed.load(Ordering::Relaxed) > followed).await;
        }
    }
    assert_ne!(state.issuer.id, first);
    counts.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a call failed");
    }
    assert!(old_is_refused(&bed, &bed.authorities).await);
}

/// What the first authority signed is good for nothing any more.
async fn old_is_refused(bed: &Bed, old: &Authorities) -> bool {
    let mut shown = texts(old, &edge_name(NAMESPACE));
    shown.ca = bed.own.borrow().as_ref().unwrap().ca.clone();
    let tls = ClientTls::client_in_memory(&shown).unwrap();
    match channel(bed.address, &tls).await {
        Ok(channel) => follow(channel).await.is_err(),
        Err(_) => true,
    }
}
