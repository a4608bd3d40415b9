//! The example as a process: starts, says where it listens, serves, ends cleanly on SIGTERM.

// Unwrapping is how these tests fail.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use opes_callout_client::{ContentWant, Group, Request, ServiceClient, ServiceClientConfig};
use opes_content::{Budget, Limits, View, create};
use opes_proto::smtp::edit::Kind;
use opes_proto::smtp::{Context, Point};

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn start(listen: &str) -> (Program, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_add-header"))
        .args(["--listen", listen])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim_end()
        .strip_prefix("listening on ")
        .expect(&line)
        .to_owned();
    (Program(child), address)
}

async fn mail() -> View {
    let limits = Arc::new(Limits::in_dir(std::env::temp_dir()));
    let (mut writer, content) = create(&Budget::new(1 << 20), &limits);
    writer
        .append("Subject: hello\r\n\r\nbody\r\n".into())
        .await
        .unwrap();
    writer.finish();
    View::original(content)
}

async fn added(target: String) -> (String, String) {
    let client = ServiceClient::new(ServiceClientConfig::new("add-header", target));
    let request = Request {
        group: Arc::new(Group::default()),
        point: Point::Content,
        command_line: None,
        context: Arc::new(Context::default()),
        content: Some(mail().await),
        content_want: ContentWant::All,
        timeout: Duration::from_secs(20),
        traceparent: String::new(),
    };
    let answer = client.run(request).await.unwrap();
    match answer.outcome.edits.into_iter().next().unwrap().kind {
        Some(Kind::HeaderAdd(add)) => (add.name, String::from_utf8(add.value.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    }
}

/// On a thread of its own: the client's connection takes part in the goodbye.
async fn terminate(mut program: Program) -> std::process::ExitStatus {
    let ended = tokio::task::spawn_blocking(move || {
        let pid = program.0.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        program.0.wait().unwrap()
    });
    // Well below the time that a drain may take when transactions still run.
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .expect("nothing to drain")
        .unwrap()
}

#[tokio::test]
async fn on_a_port() {
    let (program, address) = start("127.0.0.1:0");
    let (name, value) = added(format!("http://{address}")).await;
    assert_eq!((name.as_str(), value.as_str()), ("X-Scanned-Octets", "24"));
    assert!(terminate(program).await.success());
}

#[tokio::test]
async fn on_a_socket_that_a_killed_one_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let listen = format!("unix:{}", dir.path().join("s").display());
    drop(start(&listen));
    let (program, address) = start(&listen);
    assert_eq!(address, listen);
    added(address).await;
    assert!(terminate(program).await.success());
}

#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_add-header"))
        .args(["--listen", &address])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains(&address) && said.contains("taken"),
        "{said}"
    );
}
