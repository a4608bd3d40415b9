use std::time::{Duration, Instant};

use bytes::Bytes;
use opes_callout_client::CalloutError;
use opes_content::View;
use opes_proto::smtp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use crate::harness::{PATIENCE, Server, client, content, growing, mail, request, run};
use crate::raw::{self, Script};

#[tokio::test]
async fn a_failing_or_panicking_handler_fails_its_own_transaction() {
    let server = Server::start();
    let client = server.client();
    let view = content(mail(4096)).await;
    for (behaviour, said) in [
        ("fail", "no virus database"),
        ("panic", "index out of bounds, say"),
        ("unfinished", "without finish()"),
        ("invent", "not kept"),
    ] {
        let error = run(&client, request(behaviour, Some(view.clone())))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, CalloutError::Failed { reason, .. } if reason.contains(said)),
            "{error}"
        );
        assert!(error.to_string().contains("probe"), "{error}");
    }
    run(&client, request("count", Some(view))).await.unwrap();
    let calls = server
        .signals
        .calls
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(calls, 5, "a handler that failed was not tried again");
}

#[tokio::test]
async fn a_slow_handler_blocks_nobody_on_its_connection() {
    let server = Server::start();
    let client = server.client();
    let slow = {
        let (client, view) = (client.clone(), content(mail(3 << 20)).await);
        tokio::spawn(async move { run(&client, request("wait", Some(view))).await })
    };
    server.signals.begun.notified().await;
    let view = content(mail(3 << 20)).await;
    run(&client, request("count", Some(view))).await.unwrap();
    server.signals.go_on.notify_one();
    assert_eq!(slow.await.unwrap().unwrap().outcome.reason, "waited");
}

#[tokio::test]
async fn time_is_up_and_the_handler_is_cancelled() {
    let server = Server::start();
    let client = server.client();
    let view = content(mail(4096)).await;
    // Connected, so that all of the time is the handler's.
    run(&client, request("count", Some(view.clone())))
        .await
        .unwrap();
    let (mut writer, half) = growing();
    writer.append(Bytes::from(mail(1000))).await.unwrap();
    let mut slow = request("wait", Some(View::original(half)));
    slow.timeout = Duration::from_secs(1);
    let started = Instant::now();
    // Until the handler runs we wait for the mail client, which does not count.
    let complete = async {
        tokio::time::timeout(PATIENCE, server.signals.begun.notified())
            .await
            .unwrap();
        writer.finish();
    };
    let (result, ()) = tokio::join!(run(&client, slow), complete);
    let error = result.unwrap_err();
    assert!(matches!(error, CalloutError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("1000 ms"), "{error}");
    assert!(started.elapsed() < PATIENCE);
    tokio::time::timeout(PATIENCE, server.signals.cancelled.notified())
        .await
        .unwrap();
    run(&client, request("count", Some(view))).await.unwrap();
}

#[tokio::test]
async fn the_mail_clients_time_is_not_the_services() {
    let server = Server::start();
    let client = server.client();
    // Connected: what is left for the service is enough on a busy machine.
    run(&client, request("proceed", None)).await.unwrap();
    let (mut writer, content) = growing();
    let mut request = request("count", Some(View::original(content)));
    request.timeout = Duration::from_secs(3);
    let running = tokio::spawn(async move { run(&client, request).await });
    writer.append(Bytes::from(mail(1000))).await.unwrap();
    // A slow client, not a way to wait for something.
    tokio::time::sleep(Duration::from_secs(4)).await;
    writer.finish();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_future_cancels_the_handler() {
    let server = Server::start();
    let client = server.client();
    let view = content(mail(4096)).await;
    tokio::select! {
        _ = run(&client, request("wait", Some(view.clone()))) => panic!("it waits"),
        () = server.signals.begun.notified() => {}
    }
    tokio::time::timeout(PATIENCE, server.signals.cancelled.notified())
        .await
        .unwrap();
    run(&client, request("count", Some(view))).await.unwrap();
}

#[tokio::test]
async fn a_message_that_goes_away_is_not_the_services_fault() {
    let server = Server::start();
    let (mut writer, content) = growing();
    writer.append(Bytes::from(mail(1000))).await.unwrap();
    let client = server.client();
    let request = request("wait", Some(View::original(content)));
    let running = tokio::spawn(async move { run(&client, request).await });
    server.signals.begun.notified().await;
    drop(writer);
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, CalloutError::Content { .. }), "{error}");
    server.signals.cancelled.notified().await;
}

#[tokio::test]
async fn nobody_there() {
    // Bound and never listened on: nobody else gets the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap();
    for target in [
        format!("http://{port}"),
        "unix:/nonexistent/socket".into(),
        "tcp:1".into(),
    ] {
        let error = run(&client(&target), request("proceed", None))
            .await
            .unwrap_err();
        assert!(matches!(error, CalloutError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(&target), "{error}");
    }
}

/// A server that is no callout service.
async fn other_server(greeting: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _gone = socket.write_all(greeting).await;
                let mut sink = [0; 1024];
                while socket.read(&mut sink).await.is_ok_and(|octets| octets > 0) {}
            });
        }
    });
    target
}

#[tokio::test]
async fn a_server_that_speaks_something_else() {
    for greeting in [
        &b"220 mail.example.com ESMTP\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0xff; 512],
    ] {
        let client = client(&other_server(greeting).await);
        let error = run(&client, request("proceed", None)).await.unwrap_err();
        // What it said may still be unread when the connection is given up.
        let known = matches!(
            error,
            CalloutError::Protocol { .. } | CalloutError::Unavailable { .. }
        );
        assert!(known, "{error:?}");
        assert!(error.to_string().contains("callout service"), "{error}");
    }
}

/// Hangs up after so many octets; with `reset` without a goodbye.
async fn hangs_up(after: usize, reset: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _gone = socket.read_exact(&mut vec![0; after]).await;
            if reset {
                socket.set_zero_linger().unwrap();
            }
        }
    });
    target
}

#[tokio::test]
async fn a_server_that_hangs_up_is_away_and_no_stranger() {
    // The preface of HTTP/2 has 24 octets (RFC 9113 §3.4).
    for after in [0, 24, 60] {
        for reset in [false, true] {
            let client = client(&hangs_up(after, reset).await);
            let error = run(&client, request("proceed", None)).await.unwrap_err();
            assert!(
                matches!(error, CalloutError::Unavailable { .. }),
                "after {after}, reset {reset}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_says_nothing() {
    let client = client(&other_server(b"").await);
    let mut request = request("proceed", None);
    request.timeout = Duration::from_millis(300);
    let error = run(&client, request).await.unwrap_err();
    assert!(matches!(error, CalloutError::Timeout { .. }), "{error}");
}

/// It has got other certificates just now, or it goes: whoever dials next is told.
#[tokio::test]
async fn a_connection_that_is_closed_in_good_order_while_it_opens_is_dialled_once_more() {
    let outcome = smtp::Outcome {
        verdict: Some(smtp::Verdict {
            action: smtp::verdict::Action::Accept.into(),
            reply: None,
        }),
        ..smtp::Outcome::default()
    };
    let turned_away = |turned_away| Script {
        turned_away,
        selection: smtp::ProfileSelection {
            initial_credit: 1 << 16,
            ..smtp::ProfileSelection::default()
        },
        at_end: vec![raw::start(), raw::whole_with(&outcome), raw::over()],
        ..Script::default()
    };
    let once = client(&raw::play(turned_away(1)).await);
    run(&once, request("", None)).await.unwrap();

    let twice = client(&raw::play(turned_away(2)).await);
    let error = run(&twice, request("", None)).await.unwrap_err();
    assert!(
        matches!(&error, CalloutError::Unavailable { reason, .. } if reason == "it closed the connection"),
        "{error}"
    );
    run(&twice, request("", None)).await.unwrap();
}
