//! Who is told when a recipient fails after we took the message, and that nobody is told twice or in circles.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opes_relay::{DeliveryOutcome, RelayConfig, ReportResult, Senders};
use opes_spool::{Envelope, Spool, SpoolConfig};

use crate::common::{Bench, CONTENT, DEADLINE, envelope, next_hop, view};
use crate::sink::{Behaviour, Received, Sink};

/// Results as they are counted.
type Counted = Arc<Mutex<Vec<ReportResult>>>;

fn counting(counted: &Counted) -> impl FnOnce(&mut RelayConfig) + use<> {
    let counted = Arc::clone(counted);
    move |config| {
        config.reports.senders = Senders::All;
        config.reports.system = "https://relay.example.com/opes".into();
        config.reports.on_result =
            Arc::new(move |result| counted.lock().expect("whole").push(result));
    }
}

/// A next hop that says 550 to these recipients.
async fn refusing(recipients: &'static [&'static str]) -> Sink {
    Sink::start(Behaviour {
        on_rcpt: Box::new(move |address, _| {
            if recipients.contains(&address) {
                "550 5.1.1 no such user"
            } else {
                "250 2.1.5 Ok"
            }
        }),
        ..Behaviour::default()
    })
    .await
}

/// Sends, waits until nothing is left, and gives what the next hop took.
async fn run(
    sink: &Sink,
    envelope: Envelope,
    change: impl FnOnce(&mut RelayConfig),
) -> Vec<Received> {
    let bench = Bench::start_with(next_hop(sink.port), change);
    let content = view(bench.dir.path(), CONTENT).await;
    let queued = bench.spool.store(envelope, &content).await.expect("stored");
    bench.relay.enqueue(queued);
    let settled = async {
        while bench.spool.stats().live_messages > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, settled)
        .await
        .expect("all is settled");
    bench.shutdown().await;
    sink.received()
}

fn text(received: &Received) -> String {
    String::from_utf8(received.content.clone()).expect("ASCII")
}

#[tokio::test]
async fn a_refused_recipient_is_reported_once_and_the_other_is_delivered_once() {
    let sink = refusing(&["gone@example.net"]).await;
    let counted = Counted::default();
    let mut message = envelope(&["b@example.net", "gone@example.net"]);
    message.session_id = "18f3a-2".into();
    let received = run(&sink, message, counting(&counted)).await;
    let [first, report] = &received[..] else {
        panic!("message and report, got {received:?}");
    };
    assert_eq!((first.to[0].as_str(), first.to.len()), ("b@example.net", 1));
    assert_eq!(
        (report.from.as_str(), report.to[0].as_str()),
        ("", "a@example.com")
    );
    let text = text(report);
    for line in [
        "Auto-Submitted: auto-replied\r\n",
        "Reporting-MTA: dns; relay.example.com\r\n",
        "X-OPES-System: https://relay.example.com/opes; id=18f3a-2\r\n",
        "Final-Recipient: rfc822; gone@example.net\r\n",
        "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; 127.0.0.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        "Subject: test\r\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("b@example.net"), "{text}");
    assert_eq!(*counted.lock().unwrap(), [ReportResult::Stored]);
}

#[tokio::test]
async fn nobody_is_told_of_a_null_sender_or_against_the_senders_wish() {
    let with = |change: fn(&mut Envelope)| {
        let mut message = envelope(&["gone@example.net"]);
        change(&mut message);
        message
    };
    for (message, result) in [
        (with(|m| m.reverse_path.clear()), ReportResult::NullSender),
        (
            with(|m| m.recipients[0].params = vec!["NOTIFY=NEVER".into()]),
            ReportResult::NotWanted,
        ),
        (
            with(|m| m.recipients[0].params = vec!["NOTIFY=DELAY,SUCCESS".into()]),
            ReportResult::NotWanted,
        ),
    ] {
        let sink = refusing(&["gone@example.net"]).await;
        let counted = Counted::default();
        let received = run(&sink, message, counting(&counted)).await;
        assert!(received.is_empty(), "{received:?}");
        assert_eq!(*counted.lock().unwrap(), [result]);
    }
}

#[tokio::test]
async fn reports_can_be_kept_to_those_who_are_known() {
    let known = Senders::Known {
        domains: vec!["Example.COM".into()],
    };
    for (senders, from, auth, told) in [
        (&known, "a@example.com", None, true),
        (&known, "a@example.org", None, false),
        (&known, "a@example.org", Some("steve"), true),
        (&known, "postmaster", None, false),
        (&Senders::Nobody, "a@example.com", Some("steve"), false),
        (&Senders::All, "a@example.org", None, true),
    ] {
        let sink = refusing(&["gone@example.net"]).await;
        let mut message = envelope(&["gone@example.net"]);
        message.reverse_path = from.into();
        message.auth = auth.map(str::to_owned);
        let received = run(&sink, message, |config| {
            config.reports.senders = senders.clone();
        })
        .await;
        assert_eq!(
            received.len(),
            usize::from(told),
            "{senders:?} {from} {auth:?}"
        );
    }
}

#[tokio::test]
async fn a_report_that_fails_goes_to_the_postmaster_or_nowhere() {
    let refused = &[
        "gone@example.net",
        "a@example.com",
        "postmaster@example.org",
    ];
    for (postmaster, taken, results) in [
        (
            None,
            0,
            vec![ReportResult::Stored, ReportResult::DoubleBounce],
        ),
        (
            Some("postmaster@example.com"),
            1,
            vec![ReportResult::Stored, ReportResult::Stored],
        ),
        (
            Some("postmaster@example.org"),
            0,
            vec![
                ReportResult::Stored,
                ReportResult::Stored,
                ReportResult::DoubleBounce,
            ],
        ),
    ] {
        let sink = refusing(refused).await;
        let counted = Counted::default();
        let received = run(&sink, envelope(&["gone@example.net"]), |config| {
            counting(&counted)(config);
            config.reports.postmaster = postmaster.map(str::to_owned);
        })
        .await;
        assert_eq!(received.len(), taken, "{received:?}");
        assert_eq!(*counted.lock().unwrap(), results);
    }
}

#[tokio::test]
async fn success_is_told_when_the_next_hop_will_not() {
    let sink = refusing(&[]).await;
    let mut message = envelope(&["b@example.net", "c@example.net"]);
    message.recipients[1].params = vec!["NOTIFY=SUCCESS,FAILURE".into()];
    let received = run(&sink, message, counting(&Counted::default())).await;
    assert_eq!(received.len(), 2, "{received:?}");
    let text = text(&received[1]);
    assert!(
        text.contains(
            "Final-Recipient: rfc822; c@example.net\r\nAction: relayed\r\nStatus: 2.0.0\r\n"
        ),
        "{text}"
    );
    assert!(!text.contains("b@example.net"), "{text}");
}

#[tokio::test]
async fn what_was_tried_for_too_long_is_reported_as_expired() {
    let sink = Sink::start(Behaviour {
        on_rcpt: Box::new(|address, _| match address {
            "full@example.net" => "452 4.2.2 mailbox full",
            _ => "250 2.1.5 Ok",
        }),
        ..Behaviour::default()
    })
    .await;
    let mut message = envelope(&["full@example.net"]);
    let five_days_ms = 5 * 24 * 3600 * 1000;
    message.received_at_ms -= five_days_ms;
    let received = run(&sink, message, counting(&Counted::default())).await;
    let text = text(&received[0]);
    assert!(text.contains("Status: 4.4.7\r\n"), "{text}");
    assert!(text.contains("452 4.2.2 mailbox full"), "{text}");
}

#[tokio::test]
async fn when_the_report_cannot_be_stored_the_recipient_is_tried_again() {
    let sink = refusing(&["gone@example.net"]).await;
    let dir = tempfile::tempdir().expect("a folder");
    // So small that a report with this header section is larger than any record may be.
    let config = SpoolConfig {
        segment_octets: 64 * 1024,
        own_file_octets: 8 * 1024,
        reserve_octets: 0,
        ..SpoolConfig::default()
    };
    let (spool, recovered) = Spool::open(&dir.path().join("spool"), config).expect("a spool");
    let counted = Counted::default();
    let mut bench = Bench::start_in(
        dir,
        spool,
        recovered,
        next_hop(sink.port),
        counting(&counted),
    );
    let content = format!("{}\r\n", "X-Long: header field\r\n".repeat(2700));
    let queued = bench
        .store(&["b@example.net", "gone@example.net"], content.as_bytes())
        .await;
    bench.relay.enqueue(queued);
    for (recipient, delivered) in [
        ("b@example.net", true),
        ("gone@example.net", false),
        ("gone@example.net", false),
    ] {
        let event = bench.event().await;
        assert_eq!(event.recipient, recipient);
        match event.outcome {
            DeliveryOutcome::Delivered { .. } => assert!(delivered),
            DeliveryOutcome::Deferred {
                detail,
                next_attempt,
                ..
            } => {
                assert!(!delivered && next_attempt > Some(Duration::ZERO));
                assert!(detail.unwrap_or_default().contains("cannot be stored"));
            }
            DeliveryOutcome::Failed { .. } => panic!("settled without report"),
        }
    }
    assert_eq!(bench.spool.stats().live_messages, 1);
    assert_eq!(sink.received().len(), 1);
    assert!(
        counted
            .lock()
            .unwrap()
            .iter()
            .all(|result| *result == ReportResult::Postponed)
    );
}
