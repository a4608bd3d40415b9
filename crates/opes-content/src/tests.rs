//! Content against a plain vector; the budget against zero.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opes_mime::{Piece, Rope, Splice};
use proptest::prelude::*;

use crate::{
    Adaptation, Budget, Content, ContentError, Disposition, Limits, Progress, State, View, Writer,
    create,
};

fn limits(memory_max: usize) -> Arc<Limits> {
    Arc::new(Limits {
        memory_max,
        dir: std::env::temp_dir(),
        size_max: 10_000_000,
    })
}

/// A folder that does not exist: any file I/O would fail.
fn no_disk(memory_max: usize) -> Arc<Limits> {
    Arc::new(Limits {
        memory_max,
        dir: "/nonexistent/opes".into(),
        size_max: 10_000_000,
    })
}

fn message(budget: &Budget, limits: &Arc<Limits>) -> (Writer, Content) {
    create(budget, limits)
}

async fn read_all(view: &View, step: usize) -> Result<Vec<u8>, ContentError> {
    let mut octets = Vec::new();
    loop {
        let more = view.read_at(octets.len() as u64, step).await?;
        if !more.is_empty() {
            octets.extend_from_slice(&more);
            continue;
        }
        if view.wait_beyond(octets.len() as u64).await != Progress::Ready {
            return Ok(octets);
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let deadline = Duration::from_secs(20);
    runtime
        .block_on(async { tokio::time::timeout(deadline, future).await })
        .expect("the test must not hang")
}

/// Octets that say where they are.
fn octets(from: usize, len: usize) -> Bytes {
    (from..from + len)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect::<Vec<_>>()
        .into()
}

#[tokio::test]
async fn a_small_message_does_no_file_io() {
    let budget = Budget::new(1000);
    let (mut writer, content) = message(&budget, &no_disk(1000));
    for at in 0..10 {
        writer.append(octets(at * 100, 100)).await.unwrap();
    }
    assert_eq!(budget.used(), 1000);
    writer.finish();
    let view = View::original(content.clone());
    assert_eq!(read_all(&view, 77).await.unwrap(), octets(0, 1000));
    assert_eq!(content.in_memory().unwrap().concat(), octets(0, 1000));
    drop((view, content));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn reading_memory_copies_nothing() {
    let (mut writer, content) = message(&Budget::new(10_000), &no_disk(10_000));
    let sent = octets(0, 5000);
    writer.append(sent.clone()).await.unwrap();
    let read = content.read_at(10, 100).await.unwrap();
    assert_eq!(read.as_ptr(), sent[10..].as_ptr());
}

#[tokio::test]
async fn a_spent_budget_sends_messages_to_disk_early() {
    let budget = Budget::new(1500);
    let limits = limits(1000);
    let (mut first, _kept) = message(&budget, &limits);
    first.append(octets(0, 1000)).await.unwrap();
    let (mut second, content) = message(&budget, &limits);
    second.append(octets(0, 900)).await.unwrap();
    assert_eq!(budget.used(), 1000, "the second message is in its file");
    second.append(octets(900, 400)).await.unwrap();
    assert_eq!(
        budget.used(),
        1400,
        "what fits is collected in memory again"
    );
    second.finish();
    assert!(content.in_memory().is_none());
    let view = View::original(content);
    assert_eq!(read_all(&view, 333).await.unwrap(), octets(0, 1300));
}

#[tokio::test]
async fn without_disk_the_error_has_place_and_blame() {
    let budget = Budget::new(100);
    let (mut writer, content) = message(&budget, &no_disk(1000));
    let error = writer.append(octets(0, 200)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Transient);
    assert!(error.to_string().contains("/nonexistent/opes"), "{error}");
    drop(writer);
    assert_eq!(content.state(), State::Aborted);
    drop(content);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn the_size_limit_is_exact() {
    let limits = Arc::new(Limits {
        size_max: 10,
        ..Limits::in_dir("/nonexistent/opes")
    });
    let (mut writer, content) = message(&Budget::new(100), &limits);
    writer.append(octets(0, 10)).await.unwrap();
    let error = writer.append(octets(10, 1)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Permanent);
    assert_eq!(content.len_now(), 10);
}

#[tokio::test]
async fn an_abort_wakes_readers_and_fails_at_the_end() {
    let (mut writer, content) = message(&Budget::new(100), &no_disk(100));
    writer.append(octets(0, 5)).await.unwrap();
    let waiter = tokio::spawn({
        let content = content.clone();
        async move { content.wait_beyond(5).await }
    });
    tokio::task::yield_now().await;
    drop(writer);
    assert_eq!(waiter.await.unwrap(), Progress::Aborted);
    assert_eq!(content.read_at(0, 9).await.unwrap(), octets(0, 5));
    assert!(matches!(
        content.read_at(5, 9).await,
        Err(ContentError::Aborted)
    ));
    assert!(!content.wait_complete().await);
}

#[tokio::test]
async fn a_client_that_sends_octet_by_octet_costs_few_chunks() {
    let (mut writer, content) = message(&Budget::new(10_000), &no_disk(10_000));
    for at in 0..8192 {
        writer.append(octets(at, 1)).await.unwrap();
    }
    writer.finish();
    let chunks = content.in_memory().unwrap();
    assert!(chunks.len() <= 3, "{} chunks", chunks.len());
    assert_eq!(chunks.concat(), octets(0, 8192));
}

#[tokio::test]
async fn a_rope_beyond_the_original_is_an_error_not_an_end() {
    let (mut writer, content) = message(&Budget::new(100), &no_disk(100));
    writer.append(octets(0, 5)).await.unwrap();
    writer.finish();
    let view = View::adapted(content, Rope::identity(6));
    assert!(matches!(
        view.read_at(5, 1).await,
        Err(ContentError::OutOfRange { offset: 5, len: 5 })
    ));
    assert!(view.slices_in_memory().is_none());
}

#[tokio::test]
async fn an_adapted_view_can_be_read_while_the_original_grows() {
    let (mut writer, content) = message(&Budget::new(100), &no_disk(100));
    let rope = Rope::identity(10)
        .splice_all(vec![Splice {
            offset: 0,
            size: 0,
            replacement: Bytes::from_static(b"X"),
        }])
        .unwrap();
    let view = View::adapted(content, rope);
    let reader = tokio::spawn({
        let view = view.clone();
        async move {
            let mut sink = Vec::new();
            view.write_to(&mut sink).await.map(|_| sink)
        }
    });
    for at in 0..10 {
        tokio::task::yield_now().await;
        writer.append(octets(at, 1)).await.unwrap();
    }
    writer.finish();
    let mut expected = b"X".to_vec();
    expected.extend_from_slice(&octets(0, 10));
    assert_eq!(reader.await.unwrap().unwrap(), expected);
    assert_eq!(view.len(), Some(11));
}

/// The second half of `octets`, `own` octets of a service, all of `octets`, the last of its own once more.
async fn adapt_with(view: &View, octets: &[u8], own: usize) -> (View, Vec<u8>) {
    let (mut writer, content) = view.content().sibling();
    let brought = vec![b'#'; own];
    writer.append(Bytes::from(brought.clone())).await.unwrap();
    writer.finish();
    let (len, half, own) = (octets.len() as u64, octets.len() / 2, own as u64);
    let range = |offset, len| Piece::Original { offset, len };
    let rope = Rope::from_pieces(vec![
        range(half as u64, len - half as u64),
        range(len, own),
        range(0, len),
        range(len + own.saturating_sub(1), own.min(1)),
    ]);
    let adaptation = Adaptation {
        rope,
        own: Some(content),
    };
    let last = &brought[brought.len().saturating_sub(1)..];
    let expected = [&octets[half..], &brought, octets, last].concat();
    (view.adapt(&adaptation).unwrap(), expected)
}

/// Non-overlapping edits of a message of `len` octets.
fn splices(cuts: &[(u16, u16, Vec<u8>)], len: u64) -> Vec<Splice> {
    let mut at = 0;
    let mut splices = Vec::new();
    for (skip, size, replacement) in cuts {
        let offset = (at + u64::from(*skip)).min(len);
        let size = u64::from(*size).min(len - offset);
        at = offset + size;
        splices.push(Splice {
            offset,
            size,
            replacement: Bytes::copy_from_slice(replacement),
        });
    }
    splices
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_appends_read_back_by_any_steps(
        pieces in prop::collection::vec(prop_oneof![0..50usize, 1000..5000usize, 100_000..150_000usize], 0..12),
        memory_max in 0..200_000usize,
        budget_max in 0..300_000u64,
        step in 1..100_000usize,
        cuts in prop::collection::vec((0..5000u16, 0..5000u16, prop::collection::vec(any::<u8>(), 0..9)), 0..6),
    ) {
        let budget = Budget::new(budget_max);
        let (mut writer, content) = message(&budget, &limits(memory_max));
        block_on(async {
            let follower = tokio::spawn({
                let view = View::original(content.clone());
                async move { read_all(&view, step).await.unwrap() }
            });
            let mut sent = Vec::new();
            for len in pieces {
                let piece = octets(sent.len(), len);
                sent.extend_from_slice(&piece);
                writer.append(piece).await.unwrap();
                assert_eq!(content.len_now(), sent.len() as u64);
                assert!(budget.used() <= budget_max, "{} of {budget_max}", budget.used());
            }
            writer.finish();
            assert_eq!(follower.await.unwrap(), sent);

            let len = sent.len() as u64;
            let rope = Rope::identity(len).splice_all(splices(&cuts, len)).unwrap();
            let adapted = View::original(content.clone()).compose(Some(rope.clone())).unwrap();
            let expected = rope.flatten(&sent);
            assert_eq!(read_all(&adapted, step).await.unwrap(), expected);
            if let Some(slices) = adapted.slices_in_memory() {
                assert_eq!(slices.concat(), expected);
            }

            let held = adapted.hold_inserted().await.unwrap();
            assert_eq!(held.rope().map_or(0, Rope::inserted_len), 0);
            assert!(budget.used() <= budget_max, "{} of {budget_max}", budget.used());
            assert_eq!(read_all(&held, step).await.unwrap(), expected);
            let (twice, expected) = adapt_with(&held, &expected, step).await;
            let (twice, expected) = adapt_with(&twice, &expected, step / 2).await;
            assert_eq!(read_all(&twice, step).await.unwrap(), expected);
            assert_eq!(twice.len(), Some(expected.len() as u64));
            if let Some(slices) = twice.slices_in_memory() {
                assert_eq!(slices.concat(), expected);
            }
        });
        drop(content);
        prop_assert_eq!(budget.used(), 0);
    }
}
