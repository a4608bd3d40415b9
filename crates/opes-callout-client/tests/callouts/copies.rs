//! Several messages from one transaction, from the SDK to the client: x@example.org and y@example.org are the recipients.

use opes_callout_client::{Answer, CalloutError, Request};
use opes_callout_server::{Answer as Decision, Message};
use opes_content::{Adaptation, View};
use opes_proto::smtp::{self, Outcome, ProfileSelection, verdict::Action};

use crate::harness::{Server, client, content, mail, octets_of, request, run};
use crate::raw;

const X: &str = "x@example.org";
const Y: &str = "y@example.org";

/// The service's side; the tests say what they expect of it.
pub(crate) async fn decide(behaviour: &str, message: &mut Message) -> anyhow::Result<Decision> {
    anyhow::ensure!(message.takes_copies());
    match behaviour {
        "copies edits" => Ok(Decision::accept()
            .add_header("X-For", "everybody else")
            .for_recipients(["X@EXAMPLE.org"], Decision::accept().mark_subject("[x]"))
            .for_recipients([Y], Decision::reject(550, "5.7.1", "not for y"))),
        "copies messages" => messages(message).await,
        "copies share" => share(message).await,
        "copies of one flow" => {
            let mut adapted = message.adapt();
            adapted.use_mine("X-One: flow\r\n").await?;
            adapted.finish_with_rest(0).await?;
            Ok(Decision::accept().for_recipients([X], Decision::accept().reason("the same flow")))
        }
        "copies with a rest" => {
            let mut adapted = message.adapt();
            adapted.use_mine("a").await?;
            adapted.end_message();
            adapted.finish_with_rest(0).await?;
            Ok(Decision::accept())
        }
        "copies nested" => {
            let inner = Decision::accept().for_recipients([X], Decision::accept());
            Ok(Decision::accept().for_recipients([Y], inner))
        }
        "copies for strangers" => {
            Ok(Decision::accept().for_recipients(["z@example.org"], Decision::accept()))
        }
        "copies beyond" => Ok(Decision::from(Outcome {
            adapted: Some(smtp::Range {
                offset: 1,
                size: u64::MAX,
            }),
            ..Outcome::default()
        })),
        other => anyhow::bail!("{other}"),
    }
}

/// Each a header section of its own in front of the same body; all others get the original.
async fn messages(message: &mut Message) -> anyhow::Result<Decision> {
    let size = message.size().unwrap_or_default();
    let mut adapted = message.adapt();
    adapted.use_mine("X-For: x\r\n").await?;
    adapted.use_yours(0..size).await?;
    let x = adapted.end_message();
    adapted.use_mine("X-For: y\r\n").await?;
    adapted.use_yours(0..10).await?;
    adapted.use_yours(10..size).await?;
    let y = adapted.end_message();
    adapted.finish().await?;
    Ok(Decision::accept()
        .for_recipients([X], Decision::accept().with_message(x).reason("x"))
        .for_recipients([Y], Decision::accept().with_message(y).reason("y")))
}

/// The outer answer has the message of its own, the copy the original.
async fn share(message: &mut Message) -> anyhow::Result<Decision> {
    while message.chunk().await?.is_some() {}
    let mut adapted = message.adapt();
    adapted.use_mine("Subject: another\r\n\r\n").await?;
    let another = adapted.end_message();
    adapted.finish().await?;
    Ok(Decision::accept()
        .with_message(another)
        .for_recipients([X], Decision::accept()))
}

struct Exchange {
    original: Vec<u8>,
    view: View,
    answer: Result<Answer, CalloutError>,
}

impl Exchange {
    async fn of(behaviour: &str, size: usize) -> Self {
        let server = Server::start();
        let original = mail(size);
        let view: View = content(original.clone()).await;
        let answer = run(&server.client(), request(behaviour, Some(view.clone()))).await;
        Self {
            original,
            view,
            answer,
        }
    }

    async fn flat(&self, adapted: Option<&Adaptation>) -> Vec<u8> {
        assert!(adapted.is_some());
        octets_of(&self.view, adapted).await
    }

    fn with_front(&self, front: &str) -> Vec<u8> {
        [front.as_bytes(), &self.original].concat()
    }
}

#[tokio::test]
async fn edits_and_verdicts_for_some() {
    let answer = Exchange::of("copies edits", 4096).await.answer.unwrap();
    assert_eq!(answer.outcome.edits.len(), 1);
    assert!(answer.outcome.copies.is_empty() && answer.adapted.is_none());
    let [x, y] = &answer.copies[..] else {
        panic!("{:?}", answer.copies)
    };
    assert_eq!(x.recipients, [X], "as we named it");
    assert!(x.outcome.edits.len() == 1 && x.adapted.is_none());
    let verdict = y.outcome.verdict.as_ref().unwrap();
    assert_eq!(verdict.action(), Action::Reject);
}

#[tokio::test]
async fn whole_messages_for_some_and_the_original_for_the_rest() {
    let exchange = Exchange::of("copies messages", 5 << 20).await;
    let answer = exchange.answer.as_ref().unwrap();
    assert!(answer.adapted.is_none());
    for (copy, front) in answer.copies.iter().zip(["X-For: x\r\n", "X-For: y\r\n"]) {
        assert!(exchange.flat(copy.adapted.as_ref()).await == exchange.with_front(front));
        assert_eq!(copy.outcome.adapted, None);
    }
    assert_eq!(answer.copies.len(), 2);
    // Three messages of 5 MiB.
    assert!(answer.octets_received < 1000, "{}", answer.octets_received);
}

#[tokio::test]
async fn the_original_for_some_and_another_for_the_rest() {
    let exchange = Exchange::of("copies share", 200_000).await;
    let answer = exchange.answer.as_ref().unwrap();
    let outer = exchange.flat(answer.adapted.as_ref()).await;
    assert_eq!(outer, b"Subject: another\r\n\r\n");
    assert!(answer.copies[0].adapted.is_none());
}

#[tokio::test]
async fn without_ranges_all_have_the_one_flow() {
    let exchange = Exchange::of("copies of one flow", 3000).await;
    let answer = exchange.answer.as_ref().unwrap();
    let expected = exchange.with_front("X-One: flow\r\n");
    assert_eq!(exchange.flat(answer.adapted.as_ref()).await, expected);
    assert_eq!(
        exchange.flat(answer.copies[0].adapted.as_ref()).await,
        expected
    );
}

#[tokio::test]
async fn bugs_of_a_service_are_its_own_failure() {
    for (behaviour, said) in [
        ("copies nested", "side by side"),
        ("copies with a rest", "finish_with_rest"),
    ] {
        match Exchange::of(behaviour, 100).await.answer {
            Err(CalloutError::Failed { reason, .. }) => assert!(reason.contains(said), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_only_we_can_know_is_refused_here() {
    for (behaviour, said) in [
        ("copies for strangers", "did not name"),
        ("copies beyond", "of an adapted flow"),
    ] {
        match Exchange::of(behaviour, 100).await.answer {
            Err(CalloutError::Protocol { detail, .. }) => {
                assert!(detail.contains(said), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn refusal(copies: bool, request: Request) -> String {
    let copy = smtp::Copy {
        recipients: vec![X.to_owned()],
        outcome: None,
    };
    let outcome = Outcome {
        copies: vec![copy],
        ..Outcome::default()
    };
    let selection = ProfileSelection {
        initial_credit: 1024,
        copies,
        ..ProfileSelection::default()
    };
    let target = raw::serve(selection, outcome).await;
    match run(&client(&target), request).await {
        Err(CalloutError::Protocol { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn c58_copies_that_were_not_negotiated_are_refused() {
    let request = request("", Some(content(mail(100)).await));
    let said = refusal(false, request).await;
    assert!(said.contains("C-58"), "{said}");
}

#[tokio::test]
async fn copies_of_a_command_are_refused() {
    let said = refusal(true, request("", None)).await;
    assert!(said.contains("no mail data"), "{said}");
}
