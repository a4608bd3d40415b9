use std::sync::Arc;

use bytes::Bytes;
use opes_callout_client::{Answer, CalloutError, ContentWant, ServiceClient, ServiceClientConfig};
use opes_callout_server::{Answer as Decision, Message, ServerConfig};
use opes_content::{Budget, Limits, View};
use opes_proto::smtp::edit::Kind;

use crate::harness::{Server, config, content, growing, mail, octets_of, request, run};

pub(crate) fn octets_header(answer: &Answer) -> String {
    match &answer.outcome.edits[0].kind {
        Some(Kind::HeaderAdd(add)) => String::from_utf8(add.value.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_header_is_added_to_a_small_message() {
    let server = Server::start();
    let mail = mail(4096);
    let answer = run(
        &server.client(),
        request("count", Some(content(mail.clone()).await)),
    )
    .await;
    let answer = answer.unwrap();
    assert_eq!(octets_header(&answer), mail.len().to_string());
    assert_eq!(answer.outcome.reason, "Some(true)");
    assert!(answer.adapted.is_none());
}

#[tokio::test]
async fn a_header_on_20_mib_sends_back_less_than_1_kb() {
    let server = Server::start();
    let mail = mail(20 << 20);
    let answer = run(
        &server.client(),
        request("count", Some(content(mail.clone()).await)),
    )
    .await;
    let answer = answer.unwrap();
    assert_eq!(octets_header(&answer), mail.len().to_string());
    assert!(answer.octets_sent > 20 << 20);
    // Credit included.
    assert!(answer.octets_received < 1000, "{}", answer.octets_received);
    println!("{} octets back", answer.octets_received);
}

#[tokio::test]
async fn metadata_of_10_mb_costs_less_than_2_kb() {
    let server = Server::start();
    let mut request = request("context", Some(content(mail(10_000_000)).await));
    request.content_want = ContentWant::None;
    let answer = run(&server.client(), request).await.unwrap();
    let wire = answer.octets_sent + answer.octets_received;
    assert!(wire < 2000, "{wire}");
    assert!(answer.outcome.reason.contains("a@example.com"));
}

#[tokio::test]
async fn the_lesser_of_two_wants_is_sent() {
    let server = Server::start();
    let client = server.client();
    let view = content(mail(300_000)).await;
    for (want, octets) in [
        (ContentWant::Header, 39),
        (ContentWant::Prefix(200_000), 200_000),
    ] {
        let mut request = request("count", Some(view.clone()));
        request.content_want = want;
        let answer = run(&client, request).await.unwrap();
        assert_eq!(octets_header(&answer), octets.to_string(), "{want:?}");
        assert_eq!(answer.outcome.reason, "Some(false)");
    }
}

#[tokio::test]
async fn a_header_only_rule_does_not_wait_for_the_body() {
    let server = Server::start();
    let (mut writer, content) = growing();
    writer
        .append(Bytes::from_static(b"Subject: a\r\nTo: b\r"))
        .await
        .unwrap();
    let mut request = request("count", Some(View::original(content)));
    request.content_want = ContentWant::Header;
    let client = server.client();
    let running = tokio::spawn(async move { run(&client, request).await });
    writer
        .append(Bytes::from_static(b"\n\r\nbody, and much more to come"))
        .await
        .unwrap();
    let answer = running.await.unwrap().unwrap();
    assert_eq!(octets_header(&answer), "21");
    drop(writer);
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_content() {
    let server = Server::start();
    let client = server.client();
    for behaviour in ["accept", "stop"] {
        let (mut writer, content) = growing();
        writer.append(Bytes::from(mail(70_000))).await.unwrap();
        let answer = run(&client, request(behaviour, Some(View::original(content)))).await;
        let answer = answer.unwrap();
        assert!(answer.adapted.is_none(), "{behaviour}");
        drop(writer);
    }
}

#[tokio::test]
async fn content_streams_while_it_grows() {
    let server = Server::start();
    let (mut writer, content) = growing();
    let client = server.client();
    let request = request("count", Some(View::original(content)));
    let running = tokio::spawn(async move { run(&client, request).await });
    let mail = Bytes::from(mail(900_000));
    for chunk in mail.chunks(7_001) {
        writer.append(Bytes::copy_from_slice(chunk)).await.unwrap();
        tokio::task::yield_now().await;
    }
    writer.finish();
    let answer = running.await.unwrap().unwrap();
    assert_eq!(octets_header(&answer), mail.len().to_string());
    assert_eq!(answer.outcome.reason, "Some(true)");
}

#[tokio::test]
async fn an_adapted_flow_larger_than_all_credit() {
    let server = Server::start();
    let mail = mail(6 << 20);
    let view = content(mail.clone()).await;
    let answer = run(&server.client(), request("upper", Some(view.clone()))).await;
    let made = octets_of(&view, answer.unwrap().adapted.as_ref()).await;
    assert!(made == mail.to_ascii_uppercase());
}

#[tokio::test]
async fn an_adapted_flow_that_memory_has_no_room_for_is_in_a_file() {
    let server = Server::start();
    let budget = Budget::new(100_000);
    let limits = Arc::new(Limits::in_dir(std::env::temp_dir()));
    let (mut writer, content) = opes_content::create(&budget, &limits);
    let mail = mail(6 << 20);
    writer.append(Bytes::from(mail.clone())).await.unwrap();
    writer.finish();
    let view = View::original(content);
    let answer = run(&server.client(), request("upper", Some(view.clone()))).await;
    let adapted = answer.unwrap().adapted.unwrap();
    assert!(budget.used() <= budget.max(), "{} octets", budget.used());
    assert_eq!(adapted.rope.inserted_len(), 0);
    assert!(octets_of(&view, Some(&adapted)).await == mail.to_ascii_uppercase());
    drop((view, adapted));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_second_adapter_sees_what_the_first_one_made() {
    let server = Server::start();
    let client = server.client();
    let mail = mail(100_000);
    let view = content(mail.clone()).await;
    let first = run(&client, request("3", Some(view.clone()))).await;
    let middle = view.adapt(&first.unwrap().adapted.unwrap()).unwrap();
    let second = run(&client, request("upper", Some(middle.clone()))).await;
    let last = octets_of(&middle, second.unwrap().adapted.as_ref()).await;
    assert!(last == reference(3, &mail).to_ascii_uppercase());
}

#[tokio::test]
async fn too_much_inserted_is_refused_and_the_next_is_served() {
    let server = Server::start();
    let config = ServiceClientConfig {
        inserted_octets_max: 3_000_000,
        ..config(&server.target())
    };
    let client = ServiceClient::new(config);
    let view = content(mail(1000)).await;
    let error = run(&client, request("flood", Some(view.clone())))
        .await
        .unwrap_err();
    assert!(matches!(&error, CalloutError::Protocol { detail, .. } if detail.contains("3000000")));
    run(&client, request("count", Some(view))).await.unwrap();
}

// ---- a hundred at once, against a naive reference ------------------------------------------------------------------

enum Op {
    Mine(Vec<u8>),
    Yours(u64, u64),
}

/// What the service with this seed makes of `len` octets: some of its own, some of the original, in any order.
fn plan(seed: u64, len: u64) -> (Vec<Op>, Option<u64>) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below.max(1)
    };
    let mut ops = Vec::new();
    for _ in 0..random(12) {
        ops.push(if random(2) == 0 {
            let octet = b'a' + u8::try_from(random(26)).unwrap();
            Op::Mine(vec![octet; usize::try_from(random(90_000)).unwrap()])
        } else {
            let from = random(len);
            Op::Yours(from, random(len - from + 1))
        });
    }
    let rest = (random(2) == 0).then(|| random(len + 1));
    (ops, rest)
}

fn reference(seed: u64, original: &[u8]) -> Vec<u8> {
    let at = |n: u64| usize::try_from(n).unwrap();
    let (ops, rest) = plan(seed, original.len() as u64);
    let mut all = Vec::new();
    for op in ops {
        match op {
            Op::Mine(octets) => all.extend(octets),
            Op::Yours(from, size) => all.extend_from_slice(&original[at(from)..at(from + size)]),
        }
    }
    all.extend_from_slice(rest.map_or(&[], |from| &original[at(from)..]));
    all
}

/// The service's side: answers before it has read everything.
pub(crate) async fn scramble(seed: u64, message: &mut Message) -> anyhow::Result<Decision> {
    let len = message
        .size()
        .ok_or_else(|| anyhow::anyhow!("the size is known in these tests"))?;
    let (ops, rest) = plan(seed, len);
    let mut adapted = message.adapt();
    for op in ops {
        match op {
            Op::Mine(octets) => adapted.use_mine(octets).await?,
            Op::Yours(from, size) => adapted.use_yours(from..from + size).await?,
        }
        message.chunk().await?;
    }
    match rest {
        Some(from) => adapted.finish_with_rest(from).await?,
        None => adapted.finish().await?,
    }
    Ok(Decision::accept())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_are_put_together_right() {
    let limited = ServerConfig {
        transactions_max: 40,
        ..ServerConfig::default()
    };
    let server = Server::start_at("127.0.0.1:0", limited);
    let client = server.client();
    let mut running = tokio::task::JoinSet::new();
    for seed in 1..=100_u64 {
        let client = client.clone();
        running.spawn(async move {
            let size = usize::try_from(seed * seed * 37 % 300_000).unwrap();
            let mail = mail(size.max(1));
            let view = content(mail.clone()).await;
            let request = request(&seed.to_string(), Some(view.clone()));
            let answer = run(&client, request).await.unwrap();
            let got = octets_of(&view, answer.adapted.as_ref()).await;
            assert!(got == reference(seed, &mail), "seed {seed}");
        });
    }
    while let Some(result) = running.join_next().await {
        result.unwrap();
    }
}
