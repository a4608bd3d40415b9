use bytes::Bytes;
use opes_mime::Piece;
use proptest::prelude::*;

use super::*;

fn named() -> Vec<Address> {
    ["Ann@example.com", "bob@example.org", "Bob@example.org"]
        .map(|address| Address {
            address: address.to_owned(),
            parameters: Vec::new(),
        })
        .to_vec()
}

fn copy(recipients: &[&str]) -> Copy {
    Copy {
        recipients: recipients.iter().map(|&r| r.to_owned()).collect(),
        outcome: Some(Outcome::default()),
    }
}

fn outcome(copies: Vec<Copy>) -> Outcome {
    Outcome {
        copies,
        ..Outcome::default()
    }
}

fn rules(named: &[Address]) -> Rules<'_> {
    Rules {
        negotiated: true,
        mail_data: true,
        recipients: Some(named),
    }
}

fn refusal(copies: Vec<Copy>, rules: Rules<'_>) -> Refused {
    take(&mut outcome(copies), rules).unwrap_err()
}

#[test]
fn recipients_come_out_as_we_named_them() {
    let named = named();
    let mut outcome = outcome(vec![copy(&["ann@EXAMPLE.com"]), copy(&["bob@example.org"])]);
    let copies = take(&mut outcome, rules(&named)).unwrap();
    assert_eq!(copies[0].recipients, ["Ann@example.com"]);
    assert_eq!(copies[1].recipients, ["bob@example.org"]);
    assert!(outcome.copies.is_empty());
}

#[test]
fn two_recipients_that_differ_by_case_only_are_two() {
    let named = named();
    let mut outcome = outcome(vec![copy(&["bob@example.org"]), copy(&["Bob@example.org"])]);
    assert_eq!(take(&mut outcome, rules(&named)).unwrap().len(), 2);
}

#[test]
fn each_broken_rule_is_named() {
    let named = named();
    let rules = rules(&named);
    let ann = || vec![copy(&["ann@example.com"])];
    let not_negotiated = Rules {
        negotiated: false,
        ..rules
    };
    assert_eq!(refusal(ann(), not_negotiated), Refused::NotNegotiated);
    let command = Rules {
        mail_data: false,
        ..rules
    };
    assert_eq!(refusal(ann(), command), Refused::NoMailData);
    let mut nested = ann();
    nested[0].outcome = Some(outcome(ann()));
    assert_eq!(refusal(nested, rules), Refused::Nested);
    assert_eq!(refusal(vec![copy(&[])], rules), Refused::ForNobody);
    assert_eq!(
        refusal(vec![copy(&["eve@example.com"])], rules),
        Refused::Unknown
    );
    let twice = vec![copy(&["ann@example.com"]), copy(&["ANN@example.com"])];
    assert_eq!(refusal(twice.clone(), rules), Refused::Twice);
    let not_sent = Rules {
        recipients: None,
        ..rules
    };
    assert_eq!(refusal(twice, not_sent), Refused::Twice);
    let many: Vec<_> = (0..=COPIES_MAX)
        .map(|n| copy(&[&format!("u{n}@example.com")]))
        .collect();
    assert_eq!(
        refusal(many.clone(), not_sent),
        Refused::TooMany(COPIES_MAX + 1)
    );
    assert!(take(&mut outcome(many[1..].to_vec()), not_sent).is_ok());
}

#[test]
fn a_range_counts_as_copies_do() {
    let mut ranged = Outcome {
        adapted: Some(Range::default()),
        ..Outcome::default()
    };
    let rules = Rules {
        negotiated: false,
        mail_data: true,
        recipients: None,
    };
    assert_eq!(take(&mut ranged, rules), Err(Refused::NotNegotiated));
}

#[test]
fn the_whole_original_is_no_change_however_it_is_named() {
    let unchanged = Flow {
        rope: None,
        original: 10,
    };
    let range = |offset, size| Some(Range { offset, size });
    assert_eq!(unchanged.message(None), Ok(None));
    assert_eq!(unchanged.message(range(0, 10)), Ok(None));
    assert_eq!(
        unchanged.message(range(2, 3)).unwrap().unwrap().len(),
        3,
        "a part of it is a change"
    );
    let behind_another = Flow {
        rope: Some(Rope::from_pieces(vec![
            Piece::Inserted(Bytes::from_static(b"abc")),
            Piece::Original { offset: 0, len: 10 },
        ])),
        original: 10,
    };
    assert_eq!(behind_another.message(range(3, 10)), Ok(None));
    assert_eq!(
        behind_another.message(None),
        Ok(behind_another.rope.clone())
    );
    assert_eq!(
        behind_another.message(range(0, 13)),
        Ok(behind_another.rope.clone())
    );
}

proptest! {
    #[test]
    fn a_range_cuts_the_same_octets_out_of_the_flow(offset in 0_u64..40, size in 0_u64..40, overflow: bool) {
        let original = b"0123456789";
        let rope = Rope::from_pieces(vec![
            Piece::Inserted(Bytes::from_static(b"abcde")),
            Piece::Original { offset: 2, len: 8 },
            Piece::Inserted(Bytes::from_static(b"xyz")),
            Piece::Original { offset: 0, len: 10 },
        ]);
        let whole = rope.flatten(original);
        let flow = Flow { rope: Some(rope), original: 10 };
        let size = if overflow { u64::MAX } else { size };
        let got = flow.message(Some(Range { offset, size }));
        let end = usize::try_from(offset.saturating_add(size)).unwrap();
        if let Some(expected) = whole.get(usize::try_from(offset).unwrap()..end) {
            let got = got.unwrap().map_or_else(|| original.to_vec(), |rope| rope.flatten(original));
            prop_assert_eq!(got, expected);
        } else {
            let end = offset.saturating_add(size);
            prop_assert_eq!(got, Err(Refused::OutsideFlow(offset, end, 26)));
        }
    }
}
