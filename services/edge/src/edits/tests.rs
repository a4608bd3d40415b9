//! Edits against the octets of a view: bounds, and a property against a naive reference.

mod generate;
mod naive;
mod property;

use std::sync::Arc;

use bytes::Bytes;
use opes_content::{Budget, Limits};

use super::*;

async fn view_of(chunks: &[Bytes], dir: &std::path::Path) -> View {
    let (mut writer, content) =
        opes_content::create(&Budget::new(1 << 20), &Arc::new(Limits::in_dir(dir)));
    for chunk in chunks {
        writer.append(chunk.clone()).await.unwrap();
    }
    writer.finish();
    View::original(content)
}

#[tokio::test]
async fn a_splice_reaches_beyond_the_octets_that_hold_the_header() {
    let dir = tempfile::tempdir().unwrap();
    let line = Bytes::from(vec![b'x'; 100_000]);
    let view = view_of(
        &[
            Bytes::from_static(b"Subject: a\r\n\r\n"),
            line.clone(),
            line,
        ],
        dir.path(),
    )
    .await;
    let splice = smtp::Splice {
        offset: view.len_now() - 1,
        size: 1,
        replacement: Bytes::from_static(b"end"),
    };
    let edit = smtp::Edit {
        kind: Some(smtp::edit::Kind::Splice(splice)),
    };
    let adapted = apply(&view, vec![edit]).await.unwrap();
    assert_eq!(adapted.len_now(), view.len_now() + 2);
}

#[tokio::test]
async fn a_header_section_without_end_is_not_held_whole() {
    let dir = tempfile::tempdir().unwrap();
    let line = Bytes::from("X-Line: more and more\r\n".repeat(10_000));
    let view = view_of(&vec![line; 30], dir.path()).await;
    let (_, header) = scan(&view, true).await.unwrap();
    assert!(
        header.len() <= opes_mime::structure::HEADER_OCTETS_MAX,
        "{}",
        header.len()
    );
    let add = smtp::HeaderAdd {
        name: "X-Seen".into(),
        value: Bytes::from_static(b"yes"),
        append: false,
        above: None,
    };
    let edit = smtp::Edit {
        kind: Some(smtp::edit::Kind::HeaderAdd(add)),
    };
    let adapted = apply(&view, vec![edit]).await.unwrap();
    assert!(
        adapted
            .read_at(0, 100)
            .await
            .unwrap()
            .starts_with(b"X-Seen: yes\r\n")
    );
}
