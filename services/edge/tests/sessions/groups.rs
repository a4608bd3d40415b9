//! Recipients of one message that get different octets, or the same from different places.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Bench, eventually};

/// The RCPT lines of a message, and its content.
type Taken = (Vec<String>, String);

/// A next hop, and what it took.
struct Hop {
    port: u16,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Hop {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let kept = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept)));
            }
        });
        Self { port, taken }
    }

    /// The one message, once it is there.
    async fn taken(&self) -> Taken {
        eventually(|| self.taken.lock().unwrap().first().cloned()).await
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

async fn serve(stream: TcpStream, kept: Arc<Mutex<Vec<Taken>>>) {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 hop.example.net\r\n").await.unwrap();
    let (mut to, mut line) = (Vec::new(), String::new());
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let mut reply = "250 2.0.0 Ok\r\n";
        match line.get(..4).unwrap_or_default() {
            "RCPT" => to.push(line.trim_end().to_owned()),
            "DATA" => {
                stream.write_all(b"354 Go ahead\r\n").await.unwrap();
                let mut content = String::new();
                while !content.ends_with("\r\n.\r\n") {
                    stream.read_line(&mut content).await.unwrap();
                }
                let message = (std::mem::take(&mut to), content);
                kept.lock().unwrap().push(message);
            }
            "QUIT" => reply = "221 2.0.0 Bye\r\n",
            _ => {}
        }
        stream.write_all(reply.as_bytes()).await.unwrap();
        line.clear();
    }
}

fn rule(at: &str, allow: &str, parameters: &str) -> String {
    format!(
        "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: parts }}\nspec: {{ at: [{at}], callout: {{ \
         serviceRef: {{ name: editor }}, allow: [{allow}], parameters: {{ {parameters} }} }} }}\n"
    )
}

async fn send_to(bench: &Bench, to: [&str; 3]) {
    let mut client = bench.client().await;
    let [x, y, z] = to.map(|to| format!("RCPT TO:<{to}@example.org>"));
    let commands = ["MAIL FROM:<s@example.net>", &x, &y, &z, "DATA"];
    assert_eq!(
        client.codes(&commands).await,
        ["250", "250", "250", "250", "354"]
    );
    let reply = client.command("Subject: s\r\n\r\nx\r\n.").await;
    assert!(reply.starts_with("250"), "{reply}");
}

#[tokio::test]
async fn each_group_goes_to_the_next_hop_that_the_service_named_for_it() {
    for at in ["content", "routing"] {
        let (first, second) = (Hop::start().await, Hop::start().await);
        let parameters = format!("do: routes, a: {}, b: {}", first.port, second.port);
        let bench = Bench::start(&rule(at, "route", &parameters)).await;
        send_to(&bench, ["a", "b", "c"]).await;
        for (hop, to) in [(&first, "a"), (&second, "b")] {
            let (recipients, content) = hop.taken().await;
            assert_eq!(recipients, [format!("RCPT TO:<{to}@example.org>")]);
            assert!(content.contains("\r\nSubject: s\r\n\r\nx\r\n"), "{content}");
        }
        // Whom the service did not name gets it as everybody does.
        assert_eq!(bench.mailboxes().await, [("example.org/c".into(), 1)]);
        assert_eq!((first.count(), second.count()), (1, 1));
    }
}

#[tokio::test]
async fn a_next_hop_without_the_permission_is_nobodys() {
    let hop = Hop::start().await;
    let parameters = format!("do: routes, a: {0}, b: {0}", hop.port);
    let bench = Bench::start(&rule("content", "recipients", &parameters)).await;
    send_to(&bench, ["a", "b", "c"]).await;
    bench.expect_metric("opes_permissions_refused_total{rule=\"default/parts\"} 2");
    let expected = ["a", "b", "c"].map(|to| (format!("example.org/{to}"), 1));
    assert_eq!(bench.mailboxes().await, expected);
    assert_eq!(hop.count(), 0);
}

#[tokio::test]
async fn one_callout_adapts_different_messages_for_different_recipients() {
    let bench = Bench::start(&rule("content", "rewrite, header", "do: flows")).await;
    send_to(&bench, ["a", "b", "c"]).await;
    bench.expect_metric("opes_callouts_total{service=\"default/editor\",result=\"Answered\"} 1");
    let a = bench.delivered("example.org", "a").await;
    assert!(
        a.contains("X-For: a\r\n") && a.ends_with("Subject: s\r\n\r\nx\r\n"),
        "{a}"
    );
    let b = bench.delivered("example.org", "b").await;
    assert!(b.contains("X-Probe: b\r\n"), "{b}");
    assert!(b.ends_with("Subject: b\r\n\r\nof its own\r\n"), "{b}");
    assert!(!b.contains("X-For") && !b.contains("Subject: s"), "{b}");
    let c = bench.delivered("example.org", "c").await;
    assert!(c.ends_with("Subject: s\r\n\r\nx\r\n"), "{c}");
    assert!(!c.contains("X-For") && !c.contains("X-Probe"), "{c}");
    bench.expect_metric("opes_messages_total{outcome=\"Queued\"} 3");
}
