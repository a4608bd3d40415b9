//! Any order of operations: no recipient is delivered to twice unless somebody said so, and none is lost.

use proptest::prelude::*;

use super::{Bench, held};
use crate::{Fate, ReleaseRequest, StoreError};

const RECIPIENTS: [&str; 3] = ["a@example.com", "b@example.com", "c@example.com"];

#[derive(Debug, Clone)]
enum Act {
    /// Recipients by bit; none = all that are held.
    Begin {
        mask: u8,
        again: bool,
    },
    /// The nth release that was begun; edges may ask again at any time.
    Finish(usize),
    Delete,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..8_u8, proptest::bool::weighted(0.2)).prop_map(|(mask, again)| Act::Begin { mask, again }),
        5 => (0..6_usize).prop_map(Act::Finish),
        1 => Just(Act::Delete),
    ]
}

/// What we expect of one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Releasing,
    Released,
    Cancelled,
}

#[derive(Default)]
struct Model {
    releases: Vec<(String, Vec<usize>, State)>,
    deleted: bool,
}

impl Model {
    fn state(&self, recipient: usize) -> Option<State> {
        let mut latest = self.releases.iter().rev();
        let found =
            latest.find(|(_, to, state)| to.contains(&recipient) && *state != State::Cancelled);
        found.map(|(_, _, state)| *state)
    }

    /// The recipients a release goes to, or `None` if it must be refused.
    fn begin(&mut self, mask: u8, again: bool) -> Option<Vec<usize>> {
        if self.deleted {
            return None;
        }
        let named: Vec<usize> = (0..RECIPIENTS.len())
            .filter(|number| mask & (1 << number) != 0)
            .collect();
        let chosen: Vec<usize> = match (named.is_empty(), again) {
            (true, true) => (0..RECIPIENTS.len()).collect(),
            (true, false) => (0..RECIPIENTS.len())
                .filter(|n| self.state(*n) != Some(State::Released))
                .collect(),
            (false, _) => named,
        };
        if chosen.is_empty()
            || (!again && chosen.iter().any(|number| self.state(*number).is_some()))
        {
            return None;
        }
        for (_, to, state) in &mut self.releases {
            if *state == State::Releasing && to.iter().any(|number| chosen.contains(number)) {
                *state = State::Cancelled;
            }
        }
        Some(chosen)
    }
}

async fn check(acts: Vec<Act>) -> Result<(), TestCaseError> {
    let bench = Bench::sqlite();
    bench.hold(&held("m", &RECIPIENTS)).await;
    let mut model = Model::default();
    for act in acts {
        match act {
            Act::Begin { mask, again } => {
                let recipients: Vec<_> = (0..RECIPIENTS.len())
                    .filter(|number| mask & (1 << number) != 0)
                    .map(|number| RECIPIENTS[number].to_owned())
                    .collect();
                let recipients = (!recipients.is_empty()).then_some(recipients);
                let request = ReleaseRequest { recipients, again };
                let begun = bench
                    .store
                    .begin_release("m", &request, "edge1", "op")
                    .await;
                match (model.begin(mask, again), begun) {
                    (Some(to), Ok(release)) => {
                        let addresses: Vec<_> = release
                            .envelope
                            .recipients
                            .iter()
                            .map(|to| to.address.as_str())
                            .collect();
                        let expected: Vec<_> =
                            to.iter().map(|number| RECIPIENTS[*number]).collect();
                        prop_assert_eq!(addresses, expected);
                        model.releases.push((release.id, to, State::Releasing));
                    }
                    (
                        None,
                        Err(
                            StoreError::AlreadyReleased { .. }
                            | StoreError::UnderWay { .. }
                            | StoreError::Gone { .. },
                        ),
                    ) => {}
                    (expected, begun) => prop_assert!(false, "{expected:?} expected, {begun:?}"),
                }
            }
            Act::Finish(number) => {
                let Some((id, _, state)) = model.releases.get_mut(number) else {
                    continue;
                };
                let fate = bench.store.finish_release(id).await.unwrap();
                if *state == State::Cancelled {
                    prop_assert_eq!(fate, Fate::Withdraw);
                } else {
                    prop_assert_eq!(fate, Fate::Deliver);
                    *state = State::Released;
                }
            }
            Act::Delete => {
                let done = bench.store.delete("m", "op").await;
                prop_assert_eq!(done.is_ok(), !model.deleted);
                model.deleted = true;
                for (_, _, state) in &mut model.releases {
                    if *state == State::Releasing {
                        *state = State::Cancelled;
                    }
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn releases_agree_with_a_naive_model(acts in proptest::collection::vec(act(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(acts))?;
    }
}
