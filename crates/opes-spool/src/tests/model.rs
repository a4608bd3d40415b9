//! Arbitrary sequences of operations against a model that is a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::QueueId;

#[derive(Debug, Clone)]
enum Step {
    Store {
        recipients: u32,
        octets: usize,
    },
    /// Settles one recipient of a message, both counted modulo what there is.
    Settle {
        message: usize,
        recipient: u32,
    },
    Reopen,
    FailSync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4u32, prop_oneof![0..6000usize, 9000..12_000usize])
            .prop_map(|(recipients, octets)| Step::Store { recipients, octets }),
        8 => (any::<usize>(), any::<u32>())
            .prop_map(|(message, recipient)| Step::Settle { message, recipient }),
        1 => Just(Step::Reopen),
        1 => Just(Step::FailSync),
    ]
}

#[derive(Default)]
struct Model(BTreeMap<QueueId, (Vec<u8>, Vec<u32>)>);

impl Model {
    fn check(&self, found: &[Queued]) {
        let found: Vec<_> = found.iter().map(|q| (q.id, q.pending.clone())).collect();
        let expected = self
            .0
            .iter()
            .map(|(id, (_, pending))| (*id, pending.clone()));
        assert_eq!(found, expected.collect::<Vec<_>>());
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(TestDisk::default());
    let (mut spool, _) = open_on(disk.clone(), dir.path(), small()).unwrap();
    let mut model = Model::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Store { recipients, octets } => {
                let octets = vec![number.to_le_bytes()[0]; octets];
                let stored = store(&spool, recipients as usize, &octets).await;
                let failed = disk.failing_syncs.swap(0, Ordering::SeqCst) > 0;
                if let Ok(queued) = stored {
                    model.0.insert(queued.id, (octets, queued.pending));
                } else {
                    assert!(!failed, "the failure was used up by this store");
                }
            }
            Step::Settle { message, recipient } => {
                let count = model.0.len().max(1);
                let Some((id, (_, pending))) = model.0.iter_mut().nth(message % count) else {
                    continue;
                };
                let id = *id;
                let recipient = pending.remove(recipient as usize % pending.len());
                if pending.is_empty() {
                    model.0.remove(&id);
                }
                let outcome = [(recipient, Settlement::Delivered)];
                spool.settle(&id, &outcome).await.unwrap();
            }
            Step::Reopen => {
                drop(spool);
                let (again, found) = open_on(disk.clone(), dir.path(), small()).unwrap();
                model.check(&found);
                for queued in &found {
                    assert_eq!(content(queued).await, model.0[&queued.id].0);
                }
                spool = again;
            }
            // A single one, followed by success: more would make the spool pause.
            Step::FailSync if spool.unhealthy_reason().is_none() => {
                disk.failing_syncs.store(1, Ordering::SeqCst);
                let refused = store(&spool, 1, b"refused").await;
                // A lazy sync may have met the failure first.
                if let Ok(queued) = refused {
                    model
                        .0
                        .insert(queued.id, (b"refused".to_vec(), queued.pending));
                }
                disk.failing_syncs.store(0, Ordering::SeqCst);
                let good = store(&spool, 1, b"good").await.unwrap();
                model.0.insert(good.id, (b"good".to_vec(), good.pending));
            }
            Step::FailSync => {}
        }
    }
    assert_eq!(spool.stats().live_messages, model.0.len() as u64);
    drop(spool);
    let (_, found) = open_on(disk, dir.path(), small()).unwrap();
    model.check(&found);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_spool_is_a_map(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
