//! Services have the edge write to people, within limits.

use crate::harness::{Bench, files};

/// A rule that lets the judge tell people.
fn tells(what: &str) -> String {
    format!(
        "---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: tell }}\nspec: {{ at: [content], callout: {{ \
         serviceRef: {{ name: judge }}, allow: [notify, report, reject], parameters: {{ do: {what} }} }} }}\n"
    )
}

async fn bench(what: &str) -> Bench {
    Bench::start_with(&tells(what), |config| {
        config.domains = vec!["example.org".into()];
        config.notifications.administrator = Some("postmaster@example.com".into());
        config.notifications.per_recipient_per_hour = 1;
        let file = config.spool.with_file_name("incidents.jsonl");
        config.incidents.file = Some(file);
    })
    .await
}

#[tokio::test]
async fn recipients_and_administrator_are_told_once_and_the_incident_is_kept() {
    let bench = bench("tell").await;
    let mut client = bench.client().await;
    for _ in 0..2 {
        let content = "Subject: a\r\nMessage-ID: <1@example.net>\r\n\r\nx";
        let reply = client.send("b@example.org", content).await;
        assert!(reply.starts_with("250"), "{reply}");
    }
    let told = bench.delivered("example.com", "postmaster").await;
    for line in [
        "Return-Path: <>\r\n",
        "Subject: Virus found\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "In-Reply-To: <1@example.net>\r\n",
        "eicar was removed\r\n",
    ] {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
    let dir = bench.dir.path().to_owned();
    let kept = tempfile::tempdir().unwrap();
    let keep = |name: &str| std::fs::rename(dir.join(name), kept.path().join(name));
    bench
        .drain_keeping(|| {
            keep("mail").unwrap();
            keep("incidents.jsonl").unwrap();
        })
        .await;
    let count = |mailbox: &str| files(&kept.path().join("mail").join(mailbox).join("new")).len();
    // Two messages and one notification; the second would have been too many.
    assert_eq!(count("example.org/b"), 3);
    assert_eq!(count("example.com/postmaster"), 1);
    // The sender is a stranger: the client's network may relay, but the domain is not ours.
    assert_eq!(count("example.net/a"), 0);
    let incidents = std::fs::read_to_string(kept.path().join("incidents.jsonl")).unwrap();
    assert_eq!(incidents.lines().count(), 2);
    assert!(
        incidents.contains("\"rule\":\"default/tell\""),
        "{incidents}"
    );
}

#[tokio::test]
async fn nothing_automatic_is_answered_and_a_refusal_reaches_the_administrator_only() {
    let automatic = bench("tell").await;
    let mut client = automatic.client().await;
    client
        .send("b@example.org", "Auto-Submitted: auto-replied\r\n\r\nx")
        .await;
    let refusing = bench("tell-and-reject").await;
    let mut client = refusing.client().await;
    let reply = client.send("b@example.org", "Subject: a\r\n\r\nx").await;
    assert!(reply.starts_with("550"), "{reply}");
    refusing.delivered("example.com", "postmaster").await;
    for (bench, mailboxes) in [(automatic, 1), (refusing, 1)] {
        let dir = bench.dir.path().to_owned();
        let count = |domain: &str| files(&dir.join("mail").join(domain)).len();
        let mut found = 0;
        bench
            .drain_keeping(|| found = count("example.org") + count("example.com"))
            .await;
        assert_eq!(found, mailboxes);
    }
}
