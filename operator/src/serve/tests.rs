//! The routing port over real sockets and real TLS.

pub(crate) mod bed;
mod rotation;

use opes_proto::routing::{Fault, Nack, Peers, from_operator};
use tonic::Code;

use self::bed::{Bed, NAMESPACE, channel, follow, now, snapshot, texts_by, until};
use super::*;
use crate::certificates::authority::Authority;
use crate::certificates::{edge_name, service_name};

fn peers(addresses: &[&str]) -> Arc<Peers> {
    Arc::new(Peers {
        addresses: addresses.iter().map(|&address| address.into()).collect(),
        server_name: bed::SERVER.into(),
    })
}

#[tokio::test]
async fn peers_then_the_table_then_what_changes() {
    let bed = Bed::start().await;
    bed.peers.send_replace(peers(&["https://192.0.2.1:9443"]));
    let first = snapshot("1111", &["{}"], &["https://192.0.2.9:9000"]);
    bed.publish(first.clone());
    let mut edge = bed.edge("edge-0").await;
    let Some(from_operator::Kind::Peers(found)) = edge.next().await.unwrap() else {
        panic!("no peers first");
    };
    assert_eq!(found, *peers(&["https://192.0.2.1:9443"]));
    assert_eq!(edge.table().await, first.table);

    // Only the endpoints: the rules are not sent again.
    let scaled = snapshot(
        "1111",
        &["{}"],
        &["https://192.0.2.9:9000", "https://192.0.2.10:9000"],
    );
    bed.publish(scaled.clone());
    let Some(from_operator::Kind::Endpoints(endpoints)) = edge.next().await.unwrap() else {
        panic!("no endpoints");
    };
    assert_eq!(Some(endpoints), scaled.table.endpoints);

    let second = snapshot("2222", &["{}", "{}"], &["https://192.0.2.9:9000"]);
    bed.publish(second.clone());
    assert_eq!(edge.table().await, second.table);
    bed.peers.send_replace(peers(&["https://192.0.2.2:9443"]));
    let moved = edge.next().await.unwrap();
    assert!(
        matches!(moved, Some(from_operator::Kind::Peers(_))),
        "{moved:?}"
    );
}

#[tokio::test]
async fn an_edge_waits_for_the_first_table_and_hears_nothing_of_no_peers() {
    let bed = Bed::start().await;
    let mut edge = bed.edge("edge-0").await;
    until(|| bed.edges.states().len() == 1).await;
    bed.publish(snapshot("1111", &[], &[]));
    assert_eq!(edge.table().await.revision, "1111");
}

#[tokio::test]
async fn what_edges_say_reaches_the_registry() {
    let bed = Bed::start().await;
    bed.publish(snapshot("1111", &[], &[]));
    let (mut one, mut two) = (bed.edge("edge-0").await, bed.edge("edge-1").await);
    one.table().await;
    two.table().await;
    one.ack("1111").await;
    one.load("mail/scan", 3, 1).await;
    let fault = Fault {
        kind: "OpesRule".into(),
        name: "mail/r".into(),
        message: "spec.when: no".into(),
    };
    two.nack(Nack {
        revision: "1111".into(),
        faults: vec![fault],
    })
    .await;
    two.load("mail/scan", 4, 0).await;
    until(|| bed.edges.load("mail/scan").in_flight == 7).await;
    let states = bed.edges.states();
    assert_eq!(states[0].edge, "opes/edge-0");
    assert_eq!(states[0].running, "1111");
    assert_eq!(states[1].refused.as_ref().unwrap().faults[0].name, "mail/r");
    assert!((bed.figure("opes_operator_nacks_total ") - 1.0).abs() < 0.1);
    assert!((bed.figure("opes_operator_edge_streams ") - 2.0).abs() < 0.1);
    drop(two);
    until(|| bed.edges.states()[1].left.is_some()).await;
    assert_eq!(bed.edges.load("mail/scan").in_flight, 3);
}

#[tokio::test]
async fn only_an_edge_may_follow() {
    let bed = Bed::start().await;
    let service = bed.texts(&service_name("mail", "scan"));
    let other = bed.texts(&edge_name("elsewhere"));
    for texts in [&service, &other] {
        let refused = follow(bed.channel(texts).await.unwrap()).await;
        let refused = refused.err().expect("let in");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(
            refused.message().contains(&edge_name(NAMESPACE)),
            "{refused}"
        );
    }
    // TLS 1.3 tells a client of its refusal when it reads: some error, at one of the two.
    let stranger = Authority::make(now(), Duration::from_hours(1)).unwrap();
    let forged = texts_by(&stranger, bed.authorities.bundle(), &edge_name(NAMESPACE));
    let refused = match bed.channel(&forged).await {
        Ok(channel) => follow(channel).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    until(|| bed.figure("opes_operator_callers_refused_total{reason=\"Handshake\"} ") > 0.5).await;
    assert!(bed.edges.states().is_empty());
}

#[tokio::test]
async fn an_edge_says_first_who_it_is_and_once() {
    let bed = Bed::start_with(Waits {
        hello: Duration::from_secs(2),
        ..Waits::default()
    })
    .await;
    let edge = bed.texts(&edge_name(NAMESPACE));
    let open = async || follow(bed.channel(&edge).await.unwrap()).await.unwrap();
    let code = async |end: &mut bed::EdgeEnd| end.next().await.unwrap_err().code();

    let mut silent = open().await;
    let error = silent.next().await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::InvalidArgument, "no Hello in time")
    );
    let mut hasty = open().await;
    hasty.ack("1111").await;
    assert_eq!(code(&mut hasty).await, Code::InvalidArgument);
    let mut nameless = open().await;
    nameless.hello("").await;
    assert_eq!(code(&mut nameless).await, Code::InvalidArgument);
    let mut odd = open().await;
    odd.hello("a/b\n").await;
    assert_eq!(code(&mut odd).await, Code::InvalidArgument);
    let mut twice = open().await;
    twice.hello("edge-0").await;
    twice.hello("edge-0").await;
    assert_eq!(code(&mut twice).await, Code::InvalidArgument);
    assert!(bed.figure("opes_operator_callers_refused_total{reason=\"Hello\"} ") > 3.5);
}

#[tokio::test]
async fn a_table_that_is_too_large_is_held_back() {
    let bed = Bed::start().await;
    let mut edge = bed.edge("edge-0").await;
    bed.publish(snapshot("1111", &[], &[]));
    assert_eq!(edge.table().await.revision, "1111");
    let huge = "x".repeat(TABLE_OCTETS_MAX);
    bed.publish(snapshot("2222", &[&huge], &[]));
    until(|| bed.figure("opes_operator_tables_held_back_total ") > 0.5).await;
    bed.publish(snapshot("3333", &[], &[]));
    assert_eq!(edge.table().await.revision, "3333");
}

#[tokio::test]
async fn a_slow_edge_gets_the_newest_table_not_all_of_them() {
    let bed = Bed::start().await;
    let mut edge = bed.edge("edge-0").await;
    let mut quick = bed.edge("edge-1").await;
    let large = "x".repeat(1 << 20);
    for revision in 1..=30 {
        bed.publish(snapshot(&revision.to_string(), &[&large], &[]));
        assert_eq!(quick.table().await.revision, revision.to_string());
    }
    let mut revisions = vec![edge.table().await.revision];
    while revisions.last().unwrap() != "30" {
        revisions.push(edge.table().await.revision);
    }
    assert!(revisions.len() < 10, "{revisions:?}");
}

#[tokio::test]
async fn the_end_is_a_clean_one() {
    let bed = Bed::start().await;
    bed.publish(snapshot("1111", &[], &[]));
    let mut edge = bed.edge("edge-0").await;
    edge.table().await;
    bed.shutdown.cancel();
    assert!(edge.next().await.unwrap().is_none());
    drop(edge);
    let ended = tokio::time::timeout(bed::PATIENCE, bed.running).await;
    ended.unwrap().unwrap().unwrap();
    let tls = opes_tls::ClientTls::client_in_memory(&texts_by(
        &bed.authorities.issuer,
        bed.authorities.bundle(),
        &edge_name(NAMESPACE),
    ));
    assert!(channel(bed.address, &tls.unwrap()).await.is_err());
}
