//! Delivery while the client waits.

use crate::common::{
    Bench, CONTENT, DEADLINE, closed_port, envelope, growing, hop, next_hop, view,
};
use crate::sink::{Behaviour, OnContent, Sink};
use bytes::Bytes;
use opes_relay::{DeliveryOutcome, Route};
use opes_smtp::reply::Reply;
use tokio::time::timeout;

fn codes(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(Reply::code).collect()
}

#[tokio::test]
async fn replies_are_those_of_the_next_hop() {
    let sink = Sink::start(Behaviour {
        on_rcpt: Box::new(|address, _| {
            if address.starts_with("gone") {
                "550 5.1.1 no such user"
            } else {
                "250 Ok"
            }
        }),
        ..Behaviour::default()
    })
    .await;
    let mut bench = Bench::start(next_hop(sink.port));
    let view = view(bench.dir.path(), CONTENT).await;
    let replies = bench
        .relay
        .deliver(&envelope(&["gone@example.net", "b@example.net"]), &view)
        .await;
    assert_eq!(codes(&replies), [550, 250]);
    assert_eq!(replies[1].to_string(), "250 2.0.0 taken");
    assert_eq!(sink.received()[0].content, CONTENT);
    assert_eq!(bench.event().await.queue_id, None);
    assert_eq!(bench.spool.stats().stored, 0);
}

#[tokio::test]
async fn one_refused_recipient_keeps_the_message_from_all() {
    let sink = Sink::start(Behaviour {
        on_rcpt: Box::new(|address, _| {
            if address.starts_with("gone") {
                "550 5.1.1 no such user"
            } else {
                "250 Ok"
            }
        }),
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::start(next_hop(sink.port));
    let view = view(bench.dir.path(), CONTENT).await;
    let to_both = envelope(&["b@example.net", "gone@example.net"]);
    let replies = bench.relay.deliver_to_all(&to_both, &view).await;
    assert_eq!(codes(&replies.expect("one route")), [550, 550]);
    assert!(sink.received().is_empty());
    let to_one = envelope(&["b@example.net"]);
    let replies = bench.relay.deliver_to_all(&to_one, &view).await;
    assert_eq!(codes(&replies.expect("one route")), [250]);
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn message_goes_out_while_it_still_grows() {
    let sink = Sink::start(Behaviour::default()).await;
    let bench = Bench::start(next_hop(sink.port));
    let (mut writer, view) = growing(bench.dir.path());
    let envelope = envelope(&["b@example.net"]);
    let receiving = async {
        for line in ["Subject: a\r\n", "\r\n", ".dot\r", "\n.\r\n", "end\r\n"] {
            writer
                .append(Bytes::from_static(line.as_bytes()))
                .await
                .expect("room");
            tokio::task::yield_now().await;
        }
        writer.finish();
    };
    let (replies, ()) = tokio::join!(bench.relay.deliver(&envelope, &view), receiving);
    assert_eq!(codes(&replies), [250]);
    assert_eq!(
        sink.received()[0].content,
        b"Subject: a\r\n\r\n.dot\r\n.\r\nend\r\n"
    );
}

#[tokio::test]
async fn client_that_goes_away_leaves_no_message_behind() {
    let sink = Sink::start(Behaviour::default()).await;
    let bench = Bench::start(next_hop(sink.port));
    let (mut writer, view) = growing(bench.dir.path());
    writer
        .append(Bytes::from_static(b"Subject: half"))
        .await
        .expect("room");
    let envelope = envelope(&["b@example.net"]);
    let (replies, ()) = tokio::join!(bench.relay.deliver(&envelope, &view), async {
        drop(writer);
    });
    assert!(replies[0].is_transient());
    assert!(sink.received().is_empty());
}

#[tokio::test]
async fn next_hop_that_is_away_is_told_at_once_and_every_time() {
    let (_kept, port) = closed_port();
    let mut bench = Bench::start_with(next_hop(port), |config| {
        config.retry.next_hop.first = std::time::Duration::from_hours(1);
        config.retry.next_hop.max = std::time::Duration::from_hours(1);
    });
    let view = view(bench.dir.path(), CONTENT).await;
    for _ in 0..5 {
        let replies = timeout(
            DEADLINE,
            bench.relay.deliver(&envelope(&["b@example.net"]), &view),
        )
        .await;
        assert_eq!(codes(&replies.expect("in time")), [451]);
        let event = bench.event().await;
        assert!(matches!(
            event.outcome,
            DeliveryOutcome::Deferred {
                next_attempt: None,
                ..
            }
        ));
    }
}

#[tokio::test]
async fn next_hop_that_breaks_off_is_a_transient_failure() {
    let sink = Sink::start(Behaviour {
        on_content: Box::new(|_, _| OnContent::DropInTheMiddle),
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::start(next_hop(sink.port));
    let view = view(bench.dir.path(), CONTENT).await;
    let replies = bench
        .relay
        .deliver(&envelope(&["b@example.net"]), &view)
        .await;
    assert_eq!(codes(&replies), [451]);
    assert_eq!(sink.connections(), 1, "the client tries again, not we");
}

#[tokio::test]
async fn replies_of_several_next_hops_are_in_the_order_of_the_recipients() {
    let taking = Sink::start(Behaviour::default()).await;
    let refusing = Sink::start(Behaviour {
        on_rcpt: Box::new(|_, _| "550 5.7.1 no"),
        ..Behaviour::default()
    })
    .await;
    let bench = Bench::start(next_hop(taking.port));
    let mut envelope = envelope(&["a@example.net", "b@example.net", "c@example.net"]);
    envelope.recipients[1].next_hop = Some(hop(refusing.port));
    let view = view(bench.dir.path(), CONTENT).await;
    assert_eq!(
        codes(&bench.relay.deliver(&envelope, &view).await),
        [250, 550, 250]
    );
}

#[tokio::test]
async fn mailbox_is_written_before_the_reply() {
    let mailboxes = tempfile::tempdir().expect("a folder");
    let mut bench = Bench::start(Route::Maildir {
        dir: mailboxes.path().into(),
    });
    let view = view(bench.dir.path(), CONTENT).await;
    let replies = bench
        .relay
        .deliver(&envelope(&["b@example.net"]), &view)
        .await;
    assert_eq!(codes(&replies), [250]);
    let DeliveryOutcome::Delivered { place, .. } = bench.event().await.outcome else {
        panic!("not delivered");
    };
    assert!(std::fs::read(place).expect("written").ends_with(CONTENT));
}

#[tokio::test]
async fn stopped_relay_answers_for_now() {
    let sink = Sink::start(Behaviour::default()).await;
    let bench = Bench::start(next_hop(sink.port));
    bench.relay.shutdown(DEADLINE).await;
    let view = view(bench.dir.path(), CONTENT).await;
    let replies = timeout(
        DEADLINE,
        bench.relay.deliver(&envelope(&["b@example.net"]), &view),
    )
    .await;
    assert_eq!(codes(&replies.expect("in time")), [451]);
}
