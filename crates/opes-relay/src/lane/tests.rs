use super::*;
use crate::job::Origin;
use crate::source::Source;
use opes_content::{Budget, Limits, View};
use opes_spool::{Envelope, Recipient};
use tokio::sync::oneshot;

const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    max: Duration::from_mins(1),
};

fn lane(workers_max: usize) -> Arc<Lane> {
    Arc::new(Lane::new(Target::Maildir, workers_max))
}

/// A message of a client; those of the spool need a spool and are tested from outside.
fn live() -> (Job, oneshot::Receiver<Vec<opes_smtp::reply::Reply>>) {
    let limits = Arc::new(Limits::in_dir(std::env::temp_dir()));
    let (_, content) = opes_content::create(&Budget::new(1024), &limits);
    let (answer, answered) = oneshot::channel();
    let job = Job {
        envelope: Arc::new(Envelope {
            recipients: vec![Recipient::default()],
            ..Envelope::default()
        }),
        source: Source::Live(View::original(content)),
        recipients: vec![0],
        target: Target::Maildir,
        origin: Origin::Client(answer),
        all_or_none: false,
    };
    (job, answered)
}

#[test]
fn workers_are_asked_for_up_to_the_limit() {
    let lane = lane(2);
    let asked: Vec<_> = (0..4).map(|_| lane.push(live().0)).collect();
    assert_eq!(asked, [true, true, false, false]);
}

#[test]
fn idle_worker_is_used_before_another_is_asked_for() {
    let lane = lane(2);
    assert!(lane.push(live().0));
    let seat = Seat::new(Arc::clone(&lane));
    assert_eq!(lane.take(1).len(), 1);
    assert!(lane.take(1).is_empty());
    assert!(!lane.push(live().0));
    assert!(lane.push(live().0), "one idle worker is not enough for two");
    drop(seat);
}

#[test]
fn worker_does_not_leave_when_work_came_in_the_meantime() {
    let lane = lane(1);
    lane.push(live().0);
    let mut seat = Seat::new(Arc::clone(&lane));
    assert!(!seat.leave_if_no_work());
    lane.take(1);
    assert!(seat.leave_if_no_work());
    drop(seat);
    assert!(lane.is_unused());
    assert!(lane.push(live().0), "the next message needs a new worker");
}

#[test]
fn only_the_last_worker_that_does_not_get_through_stays() {
    let lane = lane(2);
    lane.push(live().0);
    lane.push(live().0);
    let mut first = Seat::new(Arc::clone(&lane));
    let mut second = Seat::new(Arc::clone(&lane));
    let job = lane.take(1).remove(0);
    assert!(first.leave_to_others(job, BACKOFF.first).is_none());
    let job = lane.take(1).remove(0);
    let job = second
        .leave_to_others(job, BACKOFF.first)
        .expect("it is the last");
    assert_eq!(
        lane.hold(job, |_| false).len(),
        2,
        "clients get their answer at once"
    );
    assert!(
        !lane.push(live().0),
        "the probe serves what comes while it probes"
    );
    assert_eq!(lane.next_wait(&BACKOFF, 0), BACKOFF.first * 2);
    lane.reached();
    assert_eq!(lane.next_wait(&BACKOFF, 0), BACKOFF.first);
}

#[test]
fn panicking_worker_gives_up_its_seat() {
    let lane = lane(1);
    lane.push(live().0);
    let seat = Seat::new(Arc::clone(&lane));
    lane.take(1);
    let unwinding = std::thread::spawn(move || {
        let _seat = seat;
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(unwinding.join().is_err());
    assert!(lane.push(live().0));
}
