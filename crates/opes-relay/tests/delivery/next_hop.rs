//! Delivery from the spool to a next hop on loopback.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Bench, CONTENT, closed_port, envelope, hop, next_hop, open_spool, view};
use crate::sink::{Behaviour, OnContent, Sink};
use opes_relay::{DeliveryOutcome, Route, Tls};

#[tokio::test]
async fn envelope_goes_in_one_piece_and_content_arrives_as_it_was() {
    let sink = Sink::start(Behaviour::default()).await;
    let mut bench = Bench::start(next_hop(sink.port));
    bench.send(&["b@example.net", "c@example.net"]).await;
    for recipient in ["b@example.net", "c@example.net"] {
        let (event, deferred) = bench.decided().await;
        assert_eq!((event.recipient.as_str(), deferred), (recipient, 0));
        assert!(
            matches!(event.outcome, DeliveryOutcome::Delivered { .. }),
            "{event:?}"
        );
    }
    let received = sink.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].from, "a@example.com");
    assert_eq!(received[0].to, ["b@example.net", "c@example.net"]);
    assert_eq!(received[0].content, CONTENT);
    assert_eq!(sink.record.pipelined.load(Ordering::SeqCst), 1);
    bench.assert_nothing_left();
    bench.shutdown().await;
    assert_eq!(sink.record.quits.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn next_hop_without_pipelining_is_served_step_by_step() {
    let sink = Sink::start(Behaviour {
        pipelining: false,
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start(next_hop(sink.port));
    bench.send(&["b@example.net"]).await;
    bench.decided().await;
    assert_eq!(sink.received()[0].content, CONTENT);
    assert_eq!(sink.record.pipelined.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn large_message_is_streamed_unchanged() {
    let sink = Sink::start(Behaviour::default()).await;
    let mut bench = Bench::start(next_hop(sink.port));
    let line = b".0123456789 and some more text up to a usual length of a line\r\n";
    let content = line.repeat(3 * 1024 * 1024 / line.len());
    let queued = bench.store(&["b@example.net"], &content).await;
    bench.relay.enqueue(queued);
    bench.decided().await;
    assert!(sink.received()[0].content == content, "content differs");
}

#[tokio::test]
async fn one_connection_serves_many_messages() {
    let sink = Sink::start(Behaviour::default()).await;
    let mut bench = Bench::start_with(next_hop(sink.port), |config| config.connections_max = 1);
    for _ in 0..50 {
        bench.send(&["b@example.net"]).await;
    }
    for _ in 0..50 {
        bench.decided().await;
    }
    assert_eq!((sink.received().len(), sink.connections()), (50, 1));
    bench.assert_nothing_left();
}

#[tokio::test]
async fn connections_are_bounded_and_replaced() {
    let sink = Sink::start(Behaviour::default()).await;
    let mut bench = Bench::start_with(next_hop(sink.port), |config| {
        config.connections_max = 3;
        config.connections_total_max = 2;
        config.messages_per_connection_max = 10;
    });
    for _ in 0..40 {
        bench.send(&["b@example.net"]).await;
    }
    for _ in 0..40 {
        bench.decided().await;
    }
    assert_eq!(sink.received().len(), 40);
    let quits = sink.record.quits.load(Ordering::SeqCst);
    assert!(quits >= 2, "connections are replaced with QUIT");
    assert!(sink.record.peak.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn idle_connection_is_closed_with_quit() {
    let sink = Sink::start(Behaviour::default()).await;
    let mut bench = Bench::start_with(next_hop(sink.port), |config| {
        config.timeouts.idle = Duration::from_millis(1);
    });
    for count in 1..=3 {
        bench.send(&["b@example.net"]).await;
        bench.decided().await;
        while sink.record.quits.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(sink.connections(), 3);
}

#[tokio::test]
async fn connection_closed_by_the_next_hop_between_messages_defers_nothing() {
    let sink = Sink::start(Behaviour {
        close_after_message: true,
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start_with(next_hop(sink.port), |config| config.connections_max = 1);
    for _ in 0..20 {
        bench.send(&["b@example.net"]).await;
    }
    for _ in 0..20 {
        assert_eq!(bench.decided().await.1, 0);
    }
    assert_eq!(sink.received().len(), 20);
}

#[tokio::test]
async fn transient_refusal_is_tried_again() {
    let sink = Sink::start(Behaviour {
        on_rcpt: Box::new(|_, count| {
            if count < 2 {
                "451 4.7.1 greylisted"
            } else {
                "250 Ok"
            }
        }),
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start(next_hop(sink.port));
    bench.send(&["b@example.net"]).await;
    assert_eq!(bench.decided().await.1, 2);
    assert_eq!(sink.received().len(), 1);
    bench.assert_nothing_left();
}

#[tokio::test]
async fn each_recipient_has_its_own_fate() {
    let sink = Sink::start(Behaviour {
        on_rcpt: Box::new(|address, count| match address {
            "gone@example.net" => "550 5.1.1 no such user",
            "busy@example.net" if count < 3 => "450 4.2.1 busy",
            _ => "250 Ok",
        }),
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start(next_hop(sink.port));
    bench
        .send(&["b@example.net", "gone@example.net", "busy@example.net"])
        .await;
    let outcomes: Vec<_> = [
        bench.event().await,
        bench.event().await,
        bench.event().await,
        bench.event().await,
    ]
    .into_iter()
    .map(|event| (event.recipient, event.outcome))
    .collect();
    assert!(matches!(&outcomes[0].1, DeliveryOutcome::Delivered { .. }));
    assert!(matches!(&outcomes[1].1, DeliveryOutcome::Failed { reply, .. } if reply.code() == 550));
    assert!(matches!(
        &outcomes[2].1,
        DeliveryOutcome::Deferred {
            next_attempt: Some(_),
            ..
        }
    ));
    assert_eq!(outcomes[3].0, "busy@example.net");
    assert!(matches!(&outcomes[3].1, DeliveryOutcome::Delivered { .. }));
    let to: Vec<_> = sink
        .received()
        .into_iter()
        .map(|message| message.to)
        .collect();
    assert_eq!(to, [vec!["b@example.net"], vec!["busy@example.net"]]);
    bench.assert_nothing_left();
}

#[tokio::test]
async fn recipients_beyond_the_next_hops_limit_go_at_once_in_another_transaction() {
    let sink = Sink::start(Behaviour {
        on_rcpt: Box::new(|_, count| {
            if count % 3 == 2 {
                "452 4.5.3 too many recipients"
            } else {
                "250 Ok"
            }
        }),
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start_with(next_hop(sink.port), |config| {
        config.retry.message.first = Duration::from_hours(1);
        config.retry.message.max = Duration::from_hours(1);
    });
    bench
        .send(&["b@example.net", "c@example.net", "d@example.net"])
        .await;
    for _ in 0..3 {
        bench.decided().await;
    }
    assert_eq!(sink.received().len(), 2);
}

#[tokio::test]
async fn connection_lost_in_the_content_is_tried_again_once() {
    let sink = Sink::start(Behaviour {
        on_content: Box::new(|count, _| match count {
            0 => OnContent::DropInTheMiddle,
            _ => OnContent::Reply("250 2.0.0 taken"),
        }),
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start(next_hop(sink.port));
    bench.send(&["b@example.net"]).await;
    assert_eq!(bench.decided().await.1, 1);
    assert_eq!((sink.received().len(), sink.connections()), (1, 2));
    bench.assert_nothing_left();
}

#[tokio::test]
async fn lmtp_recipients_are_settled_one_by_one() {
    let sink = Sink::start(Behaviour {
        lmtp: true,
        on_content: Box::new(|count, recipient| match (count, recipient) {
            (0, 1) => OnContent::Reply("452 4.2.2 over quota"),
            (0, 2) => OnContent::Reply("550 5.2.1 disabled"),
            _ => OnContent::Reply("250 2.0.0 stored"),
        }),
        ..Behaviour::default()
    })
    .await;
    let route = Route::NextHop {
        host: "127.0.0.1".into(),
        port: sink.port,
        lmtp: true,
        tls: Tls::Off,
    };
    let mut bench = Bench::start(route);
    bench
        .send(&["b@example.net", "c@example.net", "d@example.net"])
        .await;
    let mut decided = Vec::new();
    for _ in 0..3 {
        let (event, _) = bench.decided().await;
        decided.push((
            event.recipient,
            matches!(event.outcome, DeliveryOutcome::Delivered { .. }),
        ));
    }
    decided.sort();
    let expected = [
        ("b@example.net", true),
        ("c@example.net", true),
        ("d@example.net", false),
    ];
    assert_eq!(
        decided,
        expected.map(|(address, delivered)| (address.to_owned(), delivered))
    );
    bench.assert_nothing_left();
}

#[tokio::test]
async fn queue_waits_for_a_next_hop_that_is_away_and_goes_when_it_is_back() {
    let sink = Sink::start(Behaviour {
        greeting: "421 4.3.2 not yet",
        ..Behaviour::default()
    })
    .await;
    let port = sink.port;
    let mut bench = Bench::start(next_hop(port));
    for _ in 0..30 {
        bench.send(&["b@example.net"]).await;
    }
    let event = bench.event().await;
    assert!(
        matches!(event.outcome, DeliveryOutcome::Deferred { .. }),
        "{event:?}"
    );
    drop(sink);
    let sink = loop {
        // The port is free as soon as the task of the first sink has ended.
        match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => break Sink::start_on(listener, Behaviour::default()),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    for _ in 0..30 {
        let (event, _) = bench.decided().await;
        assert!(
            matches!(event.outcome, DeliveryOutcome::Delivered { .. }),
            "{event:?}"
        );
    }
    assert_eq!(sink.received().len(), 30);
    bench.assert_nothing_left();
}

#[tokio::test]
async fn message_that_is_too_old_fails_with_the_last_reply() {
    let sink = Sink::start(Behaviour {
        on_rcpt: Box::new(|_, _| "451 4.7.1 greylisted"),
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start_with(next_hop(sink.port), |config| {
        config.retry.give_up_after = Duration::from_millis(100);
    });
    bench.send(&["b@example.net"]).await;
    let (event, _) = bench.decided().await;
    assert!(matches!(event.outcome, DeliveryOutcome::Failed { reply, .. } if reply.code() == 451));
    bench.assert_nothing_left();
}

#[tokio::test]
async fn message_that_is_too_old_fails_also_when_the_next_hop_is_away() {
    let (_kept, port) = closed_port();
    let mut bench = Bench::start_with(next_hop(port), |config| {
        config.retry.give_up_after = Duration::from_millis(100);
    });
    bench.send(&["b@example.net"]).await;
    let (event, _) = bench.decided().await;
    assert!(matches!(event.outcome, DeliveryOutcome::Failed { reply, .. } if reply.is_transient()));
    bench.assert_nothing_left();
}

#[tokio::test]
async fn recipients_with_a_next_hop_of_their_own_go_there() {
    let (ours, theirs) = (
        Sink::start(Behaviour::default()).await,
        Sink::start(Behaviour::default()).await,
    );
    let mut bench = Bench::start(next_hop(ours.port));
    let mut envelope = envelope(&["b@example.net", "c@example.net"]);
    envelope.recipients[1].next_hop = Some(hop(theirs.port));
    let stored = bench
        .spool
        .store(envelope, &view(bench.dir.path(), CONTENT).await)
        .await;
    bench.relay.enqueue(stored.expect("stored"));
    bench.decided().await;
    bench.decided().await;
    assert_eq!(ours.received()[0].to, ["b@example.net"]);
    assert_eq!(theirs.received()[0].to, ["c@example.net"]);
    bench.assert_nothing_left();
}

#[tokio::test]
async fn shutdown_leaves_the_rest_in_the_spool_for_the_next_start() {
    let sink = Sink::start(Behaviour {
        on_content: Box::new(|_, _| OnContent::NeverReply),
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::start_with(next_hop(sink.port), |config| config.connections_max = 1);
    bench.send(&["b@example.net"]).await;
    bench.send(&["c@example.net"]).await;
    bench.relay.shutdown(Duration::from_millis(50)).await;
    let Bench {
        relay, spool, dir, ..
    } = bench;
    drop((relay, spool));

    let sink = Sink::start(Behaviour::default()).await;
    let (spool, recovered) = open_spool(dir.path());
    assert_eq!(recovered.len(), 2);
    let mut bench = Bench::start_in(dir, spool, recovered, next_hop(sink.port), |_| {});
    bench.decided().await;
    bench.decided().await;
    assert_eq!(sink.received().len(), 2);
    bench.assert_nothing_left();
}
