//! The edges of the content, as docs/ocp-smtp.md B6 has them: how much is sent, answers before and without reading, ways out of the
//! loop, offsets that the original does not have.

use std::sync::Arc;

use bytes::Bytes;
use opes_callout_client::{Answer, CalloutError, ContentWant};
use opes_callout_server::{
    Answer as Decision, Description, Listener, Message, ServerConfig, Service, serve,
};
use opes_content::View;
use opes_proto::ocp::message::Kind;
use opes_proto::smtp::{self, ProfileSelection, Wants};
use tokio_util::sync::CancellationToken;

use crate::flows::octets_header;
use crate::harness::{Server, client, content, growing, mail, octets_of, request, run};
use crate::raw::{
    self, Script, enough, mine, over, rest, rest_as_told, start, stop_sending, whole, yours,
};

const N: u64 = 300;

/// Exactly [`N`] octets.
fn message() -> Vec<u8> {
    let mut octets = mail(400);
    octets.truncate(usize::try_from(N).unwrap());
    octets
}

/// Says how many octets it got, whether that was all, and how much it was told would come.
async fn preview(server: &Server, want: ContentWant, octets: Vec<u8>) -> (u64, String) {
    let mut request = request("count", Some(content(octets).await));
    request.content_want = want;
    let answer = run(&server.client(), request).await.unwrap();
    let count = octets_header(&answer).parse().unwrap();
    (count, answer.outcome.reason)
}

// === How much is sent ===

#[tokio::test]
async fn a_preview_is_exactly_as_long_as_the_rule_says() {
    let server = Server::start();
    for wanted in [0, 1, N - 1, N, N + 1, u64::MAX] {
        let (octets, whole) = preview(&server, ContentWant::Prefix(wanted), message()).await;
        assert_eq!(octets, wanted.min(N), "prefix of {wanted}");
        assert_eq!(
            whole,
            format!("Some({})", wanted >= N),
            "prefix of {wanted}"
        );
    }
}

/// Wants what it is made with.
struct Wanting(u64);

impl Service for Wanting {
    fn describe(&self) -> Description {
        Description::new("wanting").content_prefix(self.0)
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Decision> {
        let octets = message.read_all(1 << 20).await?.len();
        let whole = message.is_whole();
        Ok(Decision::accept().reason(format!("{octets} {whole:?}")))
    }
}

#[tokio::test]
async fn a_preview_is_exactly_as_long_as_the_service_says() {
    for wanted in [0, 1, N - 1, N, N + 1] {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.address());
        let service = Arc::new(Wanting(wanted));
        let stop = CancellationToken::new();
        let serving = serve(service, listener, ServerConfig::default(), stop.clone());
        tokio::spawn(serving);
        let request = request("", Some(content(message()).await));
        let answer = run(&client(&target), request).await.unwrap();
        let (octets, whole) = (wanted.min(N), wanted >= N);
        assert_eq!(answer.outcome.reason, format!("{octets} Some({whole})"));
        stop.cancel();
    }
}

#[tokio::test]
async fn a_preview_does_not_wait_for_more_than_it_wants() {
    let server = Server::start();
    for wanted in [0, 1, N - 1, N] {
        let (mut writer, content) = growing();
        writer.append(Bytes::from(message())).await.unwrap();
        let mut request = request("count", Some(View::original(content)));
        request.content_want = ContentWant::Prefix(wanted);
        let answer = run(&server.client(), request).await.unwrap();
        assert_eq!(octets_header(&answer), wanted.to_string());
        // Nobody knows yet whether the message ends here.
        assert_eq!(answer.outcome.reason, "Some(false)", "prefix of {wanted}");
        drop(writer);
    }
}

#[tokio::test]
async fn a_preview_that_goes_beyond_the_message_waits_for_its_end() {
    let server = Server::start();
    let (mut writer, content) = growing();
    writer.append(Bytes::from(message())).await.unwrap();
    let mut request = request("count", Some(View::original(content)));
    request.content_want = ContentWant::Prefix(N + 1);
    let client = server.client();
    let running = tokio::spawn(async move { run(&client, request).await });
    writer.finish();
    let answer = running.await.unwrap().unwrap();
    assert_eq!(octets_header(&answer), N.to_string());
    assert_eq!(answer.outcome.reason, "Some(true)");
}

#[tokio::test]
async fn no_octets_are_content_too() {
    let server = Server::start();
    for want in [
        ContentWant::None,
        ContentWant::Header,
        ContentWant::Prefix(0),
        ContentWant::Prefix(1),
        ContentWant::All,
    ] {
        let (octets, whole) = preview(&server, want, Vec::new()).await;
        assert_eq!((octets, whole.as_str()), (0, "Some(true)"), "{want:?}");
    }
    let (octets, whole) = preview(&server, ContentWant::Header, b"\r\nbody\r\n".to_vec()).await;
    assert_eq!(
        (octets, whole.as_str()),
        (2, "Some(false)"),
        "an empty header section"
    );
}

#[tokio::test]
async fn nothing_can_become_something_and_something_nothing() {
    let front = scripted(
        vec![start(), mine(0, "X: y\r\n"), rest(0), over()],
        Vec::new(),
    )
    .await;
    assert_eq!(made(Vec::new(), front).await, b"X: y\r\n");
    let emptied = scripted(vec![start(), whole(), over()], Vec::new()).await;
    assert_eq!(made(message(), emptied).await, b"");
    let unchanged = scripted(vec![start(), whole(), over()], Vec::new()).await;
    let answer = answer_to(Vec::new(), &unchanged).await.unwrap();
    assert!(answer.adapted.is_none());
}

// === Answers before and without reading ===

/// A service that takes 64 octets of the original and never more, unless it waits for the end.
async fn scripted(at_start: Vec<Kind>, at_end: Vec<Kind>) -> String {
    let credit = if at_end.is_empty() { 64 } else { 1 << 20 };
    raw::play(Script {
        selection: wants_all(credit),
        at_start,
        at_end,
        ..Script::default()
    })
    .await
}

fn wants_all(initial_credit: u64) -> ProfileSelection {
    let message = Wants {
        content: smtp::ContentWant::All.into(),
        ..Wants::default()
    };
    ProfileSelection {
        initial_credit,
        message: Some(message),
        ..ProfileSelection::default()
    }
}

async fn answer_to(octets: Vec<u8>, target: &str) -> Result<Answer, CalloutError> {
    run(&client(target), request("", Some(content(octets).await))).await
}

/// The message as the service left it.
async fn made(octets: Vec<u8>, target: String) -> Vec<u8> {
    let view = content(octets).await;
    let answer = run(&client(&target), request("", Some(view.clone()))).await;
    octets_of(&view, answer.unwrap().adapted.as_ref()).await
}

#[tokio::test]
async fn an_answer_before_the_first_octet_is_read() {
    let all = message();
    for joint in [0, 1, 64, 65, N - 1, N] {
        let target = scripted(
            vec![start(), mine(0, "X: y\r\n"), rest(joint), over()],
            Vec::new(),
        )
        .await;
        let rest = &all[usize::try_from(joint).unwrap()..];
        let expected = [b"X: y\r\n", rest].concat();
        assert_eq!(made(all.clone(), target).await, expected, "J = {joint}");
    }
}

#[tokio::test]
async fn an_answer_about_octets_that_have_not_come_waits_for_them() {
    let target = scripted(vec![start(), yours(250, 50), rest(100), over()], Vec::new()).await;
    let (mut writer, content) = growing();
    writer
        .append(Bytes::from(message()[..10].to_vec()))
        .await
        .unwrap();
    let view = View::original(content);
    let request = request("", Some(view.clone()));
    let client = client(&target);
    let running = tokio::spawn(async move { run(&client, request).await });
    writer
        .append(Bytes::from(message()[10..].to_vec()))
        .await
        .unwrap();
    writer.finish();
    let answer = running.await.unwrap().unwrap();
    let expected = [&message()[250..], &message()[100..]].concat();
    assert_eq!(octets_of(&view, answer.adapted.as_ref()).await, expected);
}

#[tokio::test]
async fn an_answer_about_octets_that_never_come_is_not_the_services_fault() {
    let target = scripted(vec![start(), yours(0, 5), rest(100), over()], Vec::new()).await;
    let (mut writer, content) = growing();
    writer
        .append(Bytes::from_static(b"Subject: a\r\n"))
        .await
        .unwrap();
    let request = request("", Some(View::original(content)));
    let client = client(&target);
    let running = tokio::spawn(async move { run(&client, request).await });
    drop(writer);
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(error, CalloutError::Content { .. }), "{error}");
}

// === Out of the loop ===

/// Reads half, then leaves with J as the rule's parameter says.
struct Leaving;

impl Service for Leaving {
    fn describe(&self) -> Description {
        Description::new("leaving").whole_content()
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Decision> {
        let joint = message.parameters().json.parse()?;
        message.chunk().await?;
        let mut adapted = message.adapt();
        adapted.use_mine("X-Left: half-way\r\n").await?;
        message.stop_receiving().await?;
        adapted.finish_with_rest(joint).await?;
        Ok(Decision::accept())
    }
}

#[tokio::test]
async fn a_service_leaves_half_way_with_any_joint() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.address());
    let serving = serve(
        Arc::new(Leaving),
        listener,
        ServerConfig::default(),
        CancellationToken::new(),
    );
    tokio::spawn(serving);
    let client = client(&target);
    let octets = mail(400_000);
    let len = octets.len();
    for joint in [0, 1, len / 2, len - 1, len] {
        let view = content(octets.clone()).await;
        let request = request(&joint.to_string(), Some(view.clone()));
        let answer = run(&client, request).await.unwrap();
        let expected = [b"X-Left: half-way\r\n", &octets[joint..]].concat();
        let made = octets_of(&view, answer.adapted.as_ref()).await;
        assert!(made == expected, "J = {joint}");
    }
    let view = content(octets).await;
    let error = run(&client, request(&(len + 1).to_string(), Some(view))).await;
    assert!(error.is_err(), "a joint beyond the message");
}

#[tokio::test]
async fn a_service_leaves_by_the_handshake_of_the_rfc() {
    // What was sent within the service's credit when it asked is what DSS names.
    for credit in [0, 64, 1 << 20] {
        let target = raw::play(Script {
            selection: wants_all(credit),
            at_start: vec![start(), mine(0, "X: y\r\n"), stop_sending(), enough()],
            at_stop: vec![rest_as_told(), over()],
            ..Script::default()
        })
        .await;
        let joint = usize::try_from(credit.min(N)).unwrap();
        let expected = [b"X: y\r\n", &message()[joint..]].concat();
        assert_eq!(made(message(), target).await, expected, "J = {joint}");
    }
}

// === Offsets outside ===

#[tokio::test]
async fn ranges_that_the_original_does_not_have_are_refused() {
    for (said, fits) in [
        (vec![yours(N - 1, 1), whole()], true),
        (vec![yours(N, 0), whole()], true),
        (vec![rest(N)], true),
        (vec![yours(N - 1, 2), whole()], false),
        (vec![yours(N, 1), whole()], false),
        (vec![yours(u64::MAX, 1), whole()], false),
        (vec![yours(u64::MAX, u64::MAX), whole()], false),
        (vec![yours(0, u64::MAX), whole()], false),
        (vec![rest(N + 1)], false),
        (vec![rest(u64::MAX)], false),
    ] {
        let script: Vec<Kind> = [vec![start()], said.clone(), vec![over()]].concat();
        for (at_start, at_end) in [(script.clone(), Vec::new()), (Vec::new(), script)] {
            let target = scripted(at_start, at_end).await;
            let answer = answer_to(message(), &target).await;
            match (answer, fits) {
                (Ok(_), true) | (Err(CalloutError::Protocol { .. }), false) => {}
                (other, _) => panic!("{said:?}: {other:?}"),
            }
        }
    }
}
