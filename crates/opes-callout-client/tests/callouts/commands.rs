use opes_callout_client::CalloutError;
use opes_proto::smtp::{self, ProfileSelection, verdict};

use crate::harness::{Server, client, content, mail, request, run};
use crate::raw::{self, Script};

const LINE: &str = "RCPT TO:<y@example.org>";

#[tokio::test]
async fn a_command_proceeds() {
    let server = Server::start();
    let answer = run(&server.client(), request("proceed", None))
        .await
        .unwrap();
    assert_eq!(answer.outcome, opes_proto::smtp::Outcome::default());
    assert!(answer.command_line.is_none() && answer.adapted.is_none());
    assert!(answer.octets_sent > 0 && answer.octets_received > 0);
}

#[tokio::test]
async fn a_command_is_answered_with_a_reply() {
    let server = Server::start();
    let answer = run(&server.client(), request("reply", None)).await.unwrap();
    let verdict = answer.outcome.verdict.unwrap();
    assert_eq!(verdict.action(), verdict::Action::Reject);
    let reply = verdict.reply.unwrap();
    assert_eq!((reply.code, reply.enhanced.as_str()), (550, "5.7.1"));
    assert_eq!(reply.lines, ["not from here"]);
    assert_eq!(answer.outcome.reason, "denied");
}

#[tokio::test]
async fn a_command_is_rewritten() {
    let server = Server::start();
    let answer = run(&server.client(), request("rewrite", None))
        .await
        .unwrap();
    assert_eq!(answer.command_line.unwrap(), "RCPT TO:<b@example.com>");
    assert_eq!(answer.outcome.annotations["k"], "v");
}

#[tokio::test]
async fn c_54_a_new_command_and_a_reply_to_the_old_one_contradict_each_other() {
    for (line, action, fine) in [
        (
            "RCPT TO:<other@example.com>",
            verdict::Action::Reject,
            false,
        ),
        (
            "RCPT TO:<other@example.com>",
            verdict::Action::Tempfail,
            false,
        ),
        (
            "RCPT TO:<other@example.com>",
            verdict::Action::Discard,
            false,
        ),
        ("RCPT TO:<other@example.com>", verdict::Action::Accept, true),
        // The command as it came is no new one.
        (LINE, verdict::Action::Reject, true),
    ] {
        let outcome = smtp::Outcome {
            verdict: Some(smtp::Verdict {
                action: action.into(),
                reply: None,
            }),
            ..smtp::Outcome::default()
        };
        let at_end = vec![
            raw::start(),
            raw::mine(0, line),
            raw::whole_with(&outcome),
            raw::over(),
        ];
        let target = raw::play(Script {
            selection: ProfileSelection {
                initial_credit: 1 << 16,
                ..ProfileSelection::default()
            },
            at_end,
            ..Script::default()
        })
        .await;
        let answer = run(&client(&target), request("", None)).await;
        match answer {
            Ok(_) => assert!(fine, "{line} {action:?}"),
            Err(error) => {
                assert!(!fine, "{line} {action:?}: {error}");
                assert!(matches!(error, CalloutError::Protocol { .. }), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_next_hop_is_for_the_recipient_in_question() {
    let server = Server::start();
    let answer = run(&server.client(), request("route", None)).await.unwrap();
    let changes = answer.outcome.envelope.unwrap().recipients;
    assert_eq!(changes[0].original, "y@example.org");
    assert_eq!(changes[0].next_hop.as_ref().unwrap().port, 2525);
}

#[tokio::test]
async fn context_is_what_the_service_asked_for() {
    let server = Server::start();
    let client = server.client();
    let answer = run(&client, request("context", None)).await.unwrap();
    assert_eq!(
        answer.outcome.reason, "RcptTo 192.0.2.7 ",
        "the helo was not asked for"
    );
    let request = request("context", Some(content(mail(100)).await));
    let said = run(&client, request).await.unwrap().outcome.reason;
    assert!(
        said.contains("a@example.com") && said.contains("Subject"),
        "{said}"
    );
    for unasked in ["192.0.2.7", "X-Secret", "client.example.net"] {
        assert!(!said.contains(unasked), "{unasked} in {said}");
    }
}

#[tokio::test]
async fn the_selection_is_known_after_negotiation() {
    let server = Server::start();
    let wants = server.client().wants().await.unwrap();
    assert_eq!(wants.product, "probe");
    assert_eq!(wants.message.unwrap().headers, ["Subject"]);
}
