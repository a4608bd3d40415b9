use super::*;

const A: LineId = 1;
const B: LineId = 2;
const C: LineId = 3;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pools(services: &[(&str, &str)]) -> Endpoints {
    let pool = |(service, endpoint): &(&str, &str)| Pool {
        service: (*service).to_owned(),
        endpoints: vec![(*endpoint).to_owned()],
        server_name: String::new(),
    };
    Endpoints {
        pools: services.iter().map(pool).collect(),
    }
}

fn table(revision: &str) -> Table {
    Table {
        revision: revision.into(),
        objects: vec![revision.into()],
        endpoints: Some(pools(&[("s", revision)])),
    }
}

fn taken(step: &Step) -> Option<&str> {
    match step {
        Step::Take(offer, _) => Some(&offer.revision),
        Step::Nothing | Step::Move(_) => None,
    }
}

fn runs(choice: &Choice) -> &str {
    &choice.current().unwrap().revision
}

#[test]
fn the_first_is_followed_and_the_others_only_listened_to() {
    let mut choice = Choice::default();
    assert_eq!(taken(&choice.on_table(A, table("1"), at(0))), Some("1"));
    assert_eq!(choice.on_table(B, table("0"), at(1)), Step::Nothing);
    assert_eq!(choice.on_endpoints(B, pools(&[("s", "b")])), Step::Nothing);
    assert_eq!(taken(&choice.on_table(A, table("2"), at(2))), Some("2"));
    assert_eq!(choice.on_close(B, at(3)), Step::Nothing);
    let moved = choice.on_endpoints(A, pools(&[("s", "a")]));
    assert_eq!(moved, Step::Move(pools(&[("s", "a")])));
    assert_eq!(choice.on_endpoints(A, pools(&[("s", "a")])), Step::Nothing);
}

#[test]
fn who_says_the_same_takes_over_without_anything_to_do() {
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(B, table("1"), at(0));
    assert_eq!(choice.on_close(A, at(9)), Step::Nothing);
    assert_eq!(choice.followed(), Some(B));
    assert_eq!(taken(&choice.on_table(B, table("2"), at(10))), Some("2"));
}

#[test]
fn a_straggler_rolls_nothing_back_until_it_speaks() {
    let mut choice = Choice::default();
    choice.on_table(B, table("1"), at(0));
    choice.on_close(B, at(0));
    choice.on_table(A, table("1"), at(1));
    choice.on_table(B, table("1"), at(1));
    choice.on_table(A, table("2"), at(2));
    // B has not seen 2 yet when A dies.
    assert_eq!(taken(&choice.on_close(A, at(3))), None);
    assert_eq!((choice.followed(), runs(&choice)), (Some(B), "2"));
    assert_eq!(choice.on_time(at(4)), Step::Nothing);
    assert_eq!(
        taken(&choice.on_table(B, table("2"), at(5))),
        None,
        "caught up"
    );
    assert_eq!(taken(&choice.on_table(B, table("3"), at(6))), Some("3"));
}

#[test]
fn a_replica_that_stays_at_its_word_is_believed_in_the_end() {
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(B, table("0"), at(0));
    choice.on_table(A, table("2"), at(1));
    choice.on_close(A, at(2));
    assert_eq!(choice.on_time(at(1) + HOLD), Step::Nothing);
    assert_eq!(taken(&choice.on_time(at(2) + HOLD)), Some("0"));
    assert_eq!(choice.on_time(at(3) + HOLD), Step::Nothing);
}

#[test]
fn who_is_ahead_is_believed_at_once() {
    // It changed its word after what runs was taken.
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(B, table("0"), at(1));
    choice.on_table(B, table("2"), at(1));
    assert_eq!(taken(&choice.on_close(A, at(2))), Some("2"));
    // It went past what runs before the followed one got there.
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(B, table("2"), at(1));
    choice.on_table(B, table("3"), at(2));
    choice.on_table(A, table("2"), at(3));
    assert_eq!(taken(&choice.on_close(A, at(4))), Some("3"));
}

#[test]
fn who_is_late_is_not_ahead() {
    // A stream that was opened after what runs was taken, to a replica that is behind.
    let mut choice = Choice::default();
    choice.on_table(A, table("2"), at(0));
    choice.on_table(B, table("1"), at(1));
    assert_eq!(taken(&choice.on_close(A, at(2))), None);
    // One that comes after, step by step.
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(B, table("1"), at(0));
    choice.on_table(A, table("2"), at(1));
    choice.on_table(A, table("3"), at(2));
    choice.on_table(B, table("2"), at(3));
    assert_eq!(taken(&choice.on_close(A, at(4))), None);
    assert_eq!(runs(&choice), "3");
}

#[test]
fn who_agrees_is_preferred() {
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(B, table("1"), at(1));
    choice.on_table(C, table("0"), at(2));
    choice.on_close(A, at(3));
    assert_eq!(choice.followed(), Some(B));
}

#[test]
fn after_a_time_without_anybody_the_first_is_believed() {
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(A, table("2"), at(1));
    assert_eq!(choice.on_close(A, at(2)), Step::Nothing);
    assert_eq!((choice.followed(), runs(&choice)), (None, "2"));
    assert_eq!(taken(&choice.on_table(B, table("1"), at(60))), Some("1"));
}

#[test]
fn who_is_reached_just_after_the_loss_may_catch_up() {
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(A, table("2"), at(1));
    choice.on_close(A, at(2));
    assert_eq!(taken(&choice.on_table(B, table("1"), at(3))), None);
    assert_eq!(taken(&choice.on_time(at(12))), None);
    assert_eq!(
        taken(&choice.on_time(at(13))),
        Some("1"),
        "it stays at its word"
    );
    // What never ran is no straggler's.
    choice.on_close(B, at(14));
    assert_eq!(taken(&choice.on_table(C, table("3"), at(15))), Some("3"));
}

#[test]
fn what_was_on_disk_runs_until_an_operator_speaks() {
    let mut choice = Choice::default();
    assert_eq!(taken(&choice.begin_with(table("1"), at(0))), Some("1"));
    assert_eq!(choice.on_table(A, table("1"), at(1)), Step::Nothing);
    assert!(choice.agrees(A));
    assert_eq!(taken(&choice.on_table(A, table("2"), at(2))), Some("2"));
}

#[test]
fn held_endpoints_lose_no_service_of_the_table_that_runs() {
    let mut choice = Choice::default();
    let two = pools(&[("new", "n"), ("s", "2")]);
    choice.on_table(B, table("1"), at(0));
    choice.on_close(B, at(0));
    choice.on_table(A, table("1"), at(1));
    choice.on_table(B, table("1"), at(1));
    let newer = Table {
        endpoints: Some(two),
        ..table("2")
    };
    choice.on_table(A, newer, at(2));
    let step = choice.on_close(A, at(3));
    assert_eq!(step, Step::Move(pools(&[("new", "n"), ("s", "1")])));
}

#[test]
fn the_texts_of_one_revision_are_kept_once() {
    let mut choice = Choice::default();
    choice.on_table(A, table("1"), at(0));
    choice.on_table(B, table("1"), at(0));
    let (ours, _) = choice.lines[&B].offer.as_ref().unwrap();
    assert!(Arc::ptr_eq(
        &ours.objects,
        &choice.current().unwrap().objects
    ));
}
