//! The filter behind the real gRPC binding: what a processor gets for a message, octet for octet.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opes_callout_client::{
    Answer, CalloutError, ContentWant, Group, Request, ServiceClient, ServiceClientConfig,
};
use opes_callout_server::{Listener, ServerConfig, serve};
use opes_content::{Budget, Limits, View, create};
use opes_proto::smtp::{Context, Permission, Point, edit, verdict};
use opes_security_filter::SecurityFilter;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

struct Filter {
    client: ServiceClient,
    folder: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl Filter {
    async fn start(config: serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&format!("unix:{}", folder.path().join("filter").display()))
            .await
            .unwrap();
        let client = ServiceClient::new(ServiceClientConfig::new(
            "security-filter",
            listener.address(),
        ));
        let filter = Arc::new(SecurityFilter::from_config(&config).unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(
            filter,
            listener,
            ServerConfig::default(),
            stop.clone(),
        ));
        Self {
            client,
            folder,
            _stop: stop.drop_guard(),
        }
    }

    async fn ask(
        &self,
        message: &[u8],
        want: ContentWant,
        parameters: &str,
    ) -> Result<Answer, CalloutError> {
        let (mut writer, content) = create(
            &Budget::new(256 << 20),
            &Arc::new(Limits::in_dir(self.folder.path())),
        );
        for chunk in message.chunks(100_000) {
            writer.append(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        writer.finish();
        let allow = vec![
            Permission::ReplacePart,
            Permission::Header,
            Permission::Subject,
            Permission::Reject,
        ];
        let group = Group {
            rule: "test/scan".into(),
            parameters_json: parameters.into(),
            allow,
            ..Group::default()
        };
        let request = Request {
            group: Arc::new(group),
            point: Point::Content,
            command_line: None,
            context: Arc::new(Context::default()),
            content: Some(View::original(content)),
            content_want: want,
            timeout: DEADLINE,
            traceparent: String::new(),
        };
        self.client.run(request).await
    }

    async fn answer(&self, message: &[u8], parameters: &str) -> Answer {
        self.ask(message, ContentWant::All, parameters)
            .await
            .unwrap()
    }
}

fn corpus(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/../../tests/corpus/{name}.eml",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

/// The edits of an answer, applied as an edge does.
fn applied(message: &[u8], answer: &Answer) -> String {
    let edits: Vec<opes_mime::Edit> = answer
        .outcome
        .edits
        .iter()
        .map(|edit| own_edit(edit.kind.clone().unwrap()))
        .collect();
    let splices = opes_mime::apply(&opes_mime::scan(message), message, &edits).unwrap();
    let rope = opes_mime::Rope::identity(message.len() as u64)
        .splice_all(splices)
        .unwrap();
    String::from_utf8(rope.flatten(message)).unwrap()
}

fn own_edit(kind: edit::Kind) -> opes_mime::Edit {
    match kind {
        edit::Kind::HeaderAdd(it) => opes_mime::Edit::HeaderAdd {
            name: it.name,
            value: it.value,
            append: it.append,
        },
        edit::Kind::HeaderDelete(it) => opes_mime::Edit::HeaderDelete {
            name: it.name,
            index: (!it.all).then_some(it.index),
        },
        edit::Kind::SubjectMark(it) => opes_mime::Edit::SubjectMark { text: it.text },
        edit::Kind::PartReplace(it) => opes_mime::Edit::PartReplace {
            path: it.path,
            text: it.text,
            name: it.name,
        },
        other => panic!("the filter does not do this: {other:?}"),
    }
}

fn refused_with(answer: &Answer) -> u32 {
    let verdict = answer.outcome.verdict.clone().unwrap_or_default();
    assert!(matches!(
        verdict.action(),
        verdict::Action::Reject | verdict::Action::Tempfail
    ));
    verdict.reply.unwrap_or_default().code
}

#[tokio::test]
async fn a_clean_message_costs_no_edit() {
    let filter = Filter::start(json!(null)).await;
    let answer = filter.answer(&corpus("newsletter"), "").await;
    assert!(answer.outcome.edits.is_empty() && answer.adapted.is_none());
    assert_eq!(answer.outcome.annotations["security.verdict"], "clean");
}

#[tokio::test]
async fn a_forbidden_part_is_replaced_and_the_rest_is_the_same() {
    let filter = Filter::start(json!({})).await;
    let original = corpus("executable");
    let message = [b"X-Opes-Security: clean\r\n".as_slice(), &original].concat();
    let answer = filter.answer(&message, "{}").await;
    assert!(
        answer.octets_received < 2048,
        "edits travel, not the message: {}",
        answer.octets_received
    );
    let result = applied(&message, &answer);
    assert!(
        result.starts_with("X-Opes-Security: replaced; count=1; cause=name\r\nFrom: Alice"),
        "{result}"
    );
    assert!(result.contains("Subject: [attachment removed] Invoice\r\n"));
    assert!(
        result.contains("--=_mix\r\nContent-Type: text/plain; charset=utf-8\r\n")
            && !result.contains("TVqQ")
    );
    let text = String::from_utf8(original).unwrap();
    let (tail, boundary) = (
        "\r\n--=_mix\r\nContent-Type: text/plain\r\n\r\nThe last part stays.\r\n--=_mix--\r\n",
        "--=_mix\r\n",
    );
    assert!(text.ends_with(tail) && result.ends_with(tail));
    let untouched = text.find("MIME-Version").unwrap()..text.find("Subject").unwrap();
    assert!(result.contains(&text[untouched]) && result.matches(boundary).count() == 3);
}

#[tokio::test]
async fn a_rule_may_refuse_instead() {
    let filter = Filter::start(json!({})).await;
    let answer = filter
        .answer(&corpus("nested-message"), r#"{"onViolation":"reject"}"#)
        .await;
    assert_eq!(refused_with(&answer), 550);
    assert!(
        answer.outcome.reason.contains("run.exe"),
        "{}",
        answer.outcome.reason
    );
}

#[tokio::test]
async fn large_messages_wait_for_their_place_and_too_large_ones_are_refused() {
    let filter = Filter::start(json!({ "largeMessages": 1, "sizeMax": 4_000_000 })).await;
    let message = |octets: usize| [b"Subject: s\r\n\r\n".as_slice(), &vec![b'x'; octets]].concat();
    let (fits, too_large) = (message(3_000_000), message(5_000_000));
    let all = tokio::join!(
        filter.answer(&fits, ""),
        filter.answer(&fits, ""),
        filter.answer(&fits, ""),
        filter.answer(&too_large, "")
    );
    for answer in [all.0, all.1, all.2] {
        assert_eq!(answer.outcome.annotations["security.verdict"], "clean");
    }
    assert_eq!(refused_with(&all.3), 552);
    assert_eq!(
        filter.answer(&fits, "").await.outcome.annotations["security.verdict"],
        "clean"
    );
}

#[tokio::test]
async fn what_cannot_work_fails_its_transaction_only() {
    let filter = Filter::start(json!({})).await;
    let message = corpus("plain");
    let bad = filter
        .ask(&message, ContentWant::All, r#"{"onViolatoin":"reject"}"#)
        .await;
    assert!(matches!(bad, Err(CalloutError::Failed { .. })), "{bad:?}");
    let partial = filter.ask(&message, ContentWant::Header, "").await;
    assert!(
        matches!(partial, Err(CalloutError::Failed { .. })),
        "{partial:?}"
    );
    assert_eq!(
        filter.answer(&message, "").await.outcome.annotations["security.verdict"],
        "clean"
    );
}

#[test]
fn a_bad_configuration_names_field_and_remedy() {
    let error = format!(
        "{:#}",
        SecurityFilter::from_config(&json!({ "blockTypes": ["exes"] })).unwrap_err()
    );
    assert!(
        error.contains("blockTypes") && error.contains("executable"),
        "{error}"
    );
}

/// What the examples configure can be configured.
#[test]
fn the_examples_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    for name in ["rules", "with-external-services"] {
        let text = std::fs::read_to_string(format!("{folder}/{name}/security-filter.yaml"));
        let text = text.unwrap();
        let objects = text
            .split("\n---\n")
            .map(|object| serde_saphyr::from_str::<serde_json::Value>(object).unwrap());
        let configs: Vec<_> = objects
            .filter_map(|object| object.pointer("/spec/builtin/config").cloned())
            .collect();
        assert_eq!(configs.len(), 1, "{name}");
        SecurityFilter::from_config(&configs[0]).unwrap();
    }
}
