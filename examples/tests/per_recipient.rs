//! The example as a process, asked for three recipients.

// Unwrapping is how these tests fail.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use opes_callout_client::{
    Answer, ContentWant, Group, Request, ServiceClient, ServiceClientConfig,
};
use opes_content::{Budget, Limits, View, create};
use opes_proto::smtp::{Address, Context, Point};

const ORIGINAL: &str = "Subject: hello\r\n\r\nbody\r\n";

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn start() -> (Program, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_per-recipient"))
        .args(["--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let listening = line.trim_end().strip_prefix("listening on ").expect(&line);
    (Program(child), format!("http://{listening}"))
}

async fn ask(target: String, recipients: &[&str]) -> (View, Answer) {
    let limits = Arc::new(Limits::in_dir(std::env::temp_dir()));
    let (mut writer, content) = create(&Budget::new(1 << 20), &limits);
    writer.append(ORIGINAL.into()).await.unwrap();
    writer.finish();
    let to = |recipient: &&str| Address {
        address: (*recipient).to_owned(),
        parameters: Vec::new(),
    };
    let shown = Context {
        recipients: recipients.iter().map(to).collect(),
        size: Some(ORIGINAL.len() as u64),
        ..Context::default()
    };
    let view = View::original(content);
    let request = Request {
        group: Arc::new(Group::default()),
        point: Point::Content,
        command_line: None,
        context: Arc::new(shown),
        content: Some(view.clone()),
        content_want: ContentWant::All,
        timeout: Duration::from_secs(20),
        traceparent: String::new(),
    };
    let client = ServiceClient::new(ServiceClientConfig::new("per-recipient", target));
    (view, client.run(request).await.unwrap())
}

#[tokio::test]
async fn each_domain_gets_its_own() {
    let (_program, target) = start();
    let recipients = ["ann@example.com", "bob@example.org", "eve@example.net"];
    let (view, answer) = ask(target, &recipients).await;
    assert!(
        answer.adapted.is_none(),
        "ann gets the original, although there is an adapted flow"
    );
    assert!(answer.outcome.edits.is_empty());
    let [marked, noted] = &answer.copies[..] else {
        panic!("{:?}", answer.copies)
    };
    assert_eq!(marked.recipients, ["bob@example.org"]);
    assert!(marked.outcome.edits.len() == 1 && marked.adapted.is_none());
    assert_eq!(noted.recipients, ["eve@example.net"]);
    let adapted = view.adapt(noted.adapted.as_ref().unwrap()).unwrap();
    let mut own = Vec::new();
    adapted.write_to(&mut own).await.unwrap();
    let own = String::from_utf8(own).unwrap();
    assert!(own.starts_with("Subject: a message for you\r\n\r\n") && own.ends_with(ORIGINAL));
}

#[tokio::test]
async fn nobody_special_nothing_special() {
    let (_program, target) = start();
    let (_, answer) = ask(target, &["ann@example.com"]).await;
    assert!(answer.copies.is_empty() && answer.adapted.is_none());
}
