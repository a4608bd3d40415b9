//! For any message and any edits of any chain of adapters, what is delivered is what the naive reference makes, octet for octet.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use opes_content::{Budget, Limits, View};
use opes_mime::edit::EditError;
use opes_mime::{Piece as RopePiece, Rope};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use super::super::{ApplyError, apply};
use super::generate::{self, Piece, Step};
use super::naive::{Refusal, adapt};

const CASES: u32 = 2000;

/// Octets in memory at most; the messages' rest is in the file.
const MEMORY_MAX: [u64; 3] = [0, 100, 1 << 20];
/// Appends of one message, each of which may be a write.
const PIECES_MAX: usize = 30;

fn refusal(error: &ApplyError) -> Option<Refusal> {
    Some(match error {
        ApplyError::Edit(error) => match error {
            EditError::InvalidName(_) => Refusal::Name,
            EditError::InvalidValue { .. } => Refusal::Value,
            EditError::LineTooLong { .. } => Refusal::LineTooLong,
            EditError::InvalidText(_) => Refusal::Text,
            EditError::NoSuchField { .. } => Refusal::NoField,
            EditError::NoSuchPart(_) => Refusal::NoPart,
            EditError::OutOfRange { .. } => Refusal::Outside,
            EditError::Conflict { .. } => Refusal::Overlap,
            EditError::Unsupported(_) => Refusal::Unsupported,
            _ => return None,
        },
        _ => return None,
    })
}

async fn view_of(octets: &[u8], memory_max: u64, piece: usize, dir: &std::path::Path) -> View {
    let limits = Arc::new(Limits::in_dir(dir));
    let (mut writer, content) = opes_content::create(&Budget::new(memory_max), &limits);
    for piece in octets.chunks(piece.max(octets.len() / PIECES_MAX)) {
        writer.append(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    writer.finish();
    View::original(content)
}

async fn written(view: &View) -> Vec<u8> {
    let mut octets = Vec::new();
    let count = view.write_to(&mut octets).await.unwrap();
    assert_eq!(count, octets.len() as u64);
    octets
}

/// The flow of an adapter as the callout client hands it over, and its octets.
fn flow(pieces: &[Piece], seen: &[u8]) -> (Rope, Vec<u8>) {
    let (mut rope, mut octets) = (Vec::new(), Vec::new());
    for piece in pieces {
        match piece {
            Piece::Octets(new) => {
                octets.extend_from_slice(new);
                rope.push(RopePiece::Inserted(new.clone().into()));
            }
            Piece::Range(one, other) => {
                let (one, other) = (one.index(seen.len() + 1), other.index(seen.len() + 1));
                let (from, to) = (one.min(other), one.max(other));
                octets.extend_from_slice(&seen[from..to]);
                rope.push(RopePiece::Original {
                    offset: from as u64,
                    len: (to - from) as u64,
                });
            }
        }
    }
    (Rope::from_pieces(rope), octets)
}

/// Edits made and edits refused.
#[derive(Default)]
struct Tally {
    made: Cell<u32>,
    refused: Cell<u32>,
    in_file: Cell<u32>,
}

async fn compare(
    view: View,
    message: &[u8],
    steps: &[Step],
    tally: &Tally,
) -> Result<(), TestCaseError> {
    let (mut view, mut message) = (view, message.to_vec());
    for step in steps {
        let (mut seen, mut octets) = (view.clone(), message.clone());
        if let Some(pieces) = &step.flow {
            let (rope, adapted) = flow(pieces, &message);
            seen = view.compose(Some(rope)).unwrap();
            octets = adapted;
        }
        let edits: Vec<_> = step.edits.iter().map(|wish| wish.edit(&octets)).collect();
        match (apply(&seen, edits.clone()).await, adapt(&octets, &edits)) {
            (Ok(adapted), Ok(expected)) => {
                let delivered = written(&adapted).await;
                prop_assert_eq!(
                    delivered.escape_ascii().to_string(),
                    expected.escape_ascii().to_string(),
                    "{:?} of {}",
                    edits,
                    octets.escape_ascii()
                );
                prop_assert_eq!(adapted.len(), Some(expected.len() as u64));
                match adapted.slices_in_memory() {
                    Some(slices) => prop_assert_eq!(slices.concat(), expected.clone()),
                    None => tally.in_file.set(tally.in_file.get() + 1),
                }
                tally.made.set(tally.made.get() + 1);
                (view, message) = (adapted, expected);
            }
            (Err(error), Err(expected)) => {
                prop_assert_eq!(refusal(&error), Some(expected), "{}", error);
                tally.refused.set(tally.refused.get() + 1);
            }
            (made, expected) => {
                return Err(TestCaseError::fail(format!(
                    "the edge: {:?}, the reference: {:?}\n{edits:?}\nof {}",
                    made.map(|_| "made"),
                    expected.map(|_| "made"),
                    octets.escape_ascii()
                )));
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_delivered_is_what_the_reference_makes() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let tally = Tally::default();
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(CASES)
    });
    let cases = (
        generate::message(),
        generate::chain(),
        prop::sample::select(MEMORY_MAX.to_vec()),
        1_usize..3000,
    );
    let outcome = runner.run(&cases, |(message, steps, memory_max, piece)| {
        runtime.block_on(async {
            let view = view_of(&message, memory_max, piece, dir.path()).await;
            compare(view, &message, &steps, &tally).await
        })
    });
    // The reason has the message and the edits in a form that can be read.
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(error) => panic!("{error}"),
    }
    // The generators must not drift to where everything is refused, or nothing.
    let (made, refused, in_file) = (tally.made.get(), tally.refused.get(), tally.in_file.get());
    assert!(
        made > CASES && refused > CASES / 4 && in_file > CASES / 4,
        "{made} {refused} {in_file}"
    );
}
