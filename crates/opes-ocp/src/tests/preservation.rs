//! Kept, DUY, DPI (RFC 4037 §7).

use bytes::Bytes;

use super::support::*;
use crate::{AdaptedEnd, CallError, ProcessorEvent, Rule};

/// P with ten octets sent and [2, 6) of them kept.
fn keeping() -> crate::Processor {
    let mut p = working_processor(PLAIN);
    p.data(0, 0, "0123456789".into()).expect("open");
    p.keep(0, 2, 4).expect("first");
    out(&mut p);
    feed(&mut p, [ams(0)]);
    p
}

#[test]
fn c_34_kept_octets_stay_kept_until_they_are_released() {
    let mut p = keeping();
    assert_eq!(p.keep(0, 3, 3), Err(CallError::KeptShrinks));
    feed(&mut p, [dum(0, 0, "x"), duy(0, 2, 4), dwsr(0, 1)]);
    assert_eq!(
        p.keep(0, 3, 3),
        Err(CallError::KeptShrinks),
        "DUM, DUY and DWSR release nothing"
    );
    p.keep(0, 1, 9).expect("wider is fine");
    feed(&mut p, [dpi(0, 4, 2)]);
    p.keep(0, 4, 3).expect("the rest was released");
    assert_eq!(sent(&mut p), ["DUM", "DUM"]);
    assert!(events(&mut p).contains(&ProcessorEvent::Released {
        xid: 0,
        reusable: 4..6
    }));
}

#[test]
fn c_35_bad_kept_after_duy_is_a_violation() {
    let mut s = working_server(PLAIN);
    feed(&mut s, [dum(0, 0, "0123456789"), kept(0, 10, (2, 4))]);
    s.use_original(0, 2, 1).expect("kept");
    out(&mut s);
    assert_eq!(s_refuses(&mut s, [kept(0, 10, (3, 3))]), Rule::KeptShrinks);
}

#[test]
fn c_35_bad_kept_before_duy_stops_its_use() {
    let mut s = working_server(PLAIN);
    feed(&mut s, [kept(0, 0, (2, 4)), kept(0, 0, (3, 3))]);
    assert_eq!(sent(&mut s), [""; 0]);
    assert_eq!(
        s.use_original(0, 3, 1),
        Err(CallError::NotPreserved { offset: 3, size: 1 })
    );
    feed(&mut s, [kept(0, 0, (0, 10))]);
    assert!(
        s.use_original(0, 3, 1).is_err(),
        "not in this transaction any more"
    );
}

#[test]
fn c_35_kept_may_shrink_over_released_octets() {
    let mut s = working_server(PLAIN);
    feed(&mut s, [kept(0, 0, (2, 4))]);
    s.preservation_interest(0, 4, 2).expect("smaller");
    feed(&mut s, [kept(0, 0, (4, 2))]);
    s.use_original(0, 4, 2).expect("kept");
}

#[test]
fn c_36_duy_inside_the_kept_range_works_in_any_order() {
    let mut p = keeping();
    feed(
        &mut p,
        [
            duy(0, 4, 2),
            duy(0, 2, 4),
            duy(0, 2, 4),
            duy(0, 3, 1),
            duy(0, 2, 0),
            ame(0, 200),
            te(0, 200),
        ],
    );
    let used: Vec<_> = events(&mut p)
        .into_iter()
        .filter_map(|e| {
            if let ProcessorEvent::UseOriginal { offset, size, .. } = e {
                Some((offset, size))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(used, [(4, 2), (2, 4), (2, 4), (3, 1)]);
}

#[test]
fn c_36_duy_outside_or_after_release_is_a_violation() {
    for (offset, size) in [(1, 1), (2, 5), (6, 1), (0, 10)] {
        let rule = p_refuses(&mut keeping(), [duy(0, offset, size)]);
        assert_eq!(rule, Rule::NotPreserved { offset, size });
    }
    let rule = p_refuses(&mut keeping(), [dpi(0, 2, 1), duy(0, 3, 1)]);
    assert_eq!(rule, Rule::NotPreserved { offset: 3, size: 1 });
    let mut p = working_processor(KEEPS);
    p.data(0, 0, "abc".into()).expect("open");
    p.finish(0, true).expect("open");
    out(&mut p);
    let rule = p_refuses(&mut p, [ams(0), duy(0, 1, 3)]);
    assert_eq!(
        rule,
        Rule::NotPreserved { offset: 1, size: 3 },
        "the original ends before"
    );
}

#[test]
fn c_36_s_does_not_name_what_is_not_kept() {
    let mut s = working_server(PLAIN);
    assert_eq!(
        s.use_original(0, 0, 1),
        Err(CallError::NotPreserved { offset: 0, size: 1 })
    );
    feed(&mut s, [kept(0, 0, (5, 5))]);
    assert_eq!(
        s.use_original(0, 5, 5),
        Ok(()),
        "kept, though it has not come yet"
    );
    assert_eq!(
        s.use_original(0, 5, 6),
        Err(CallError::NotPreserved { offset: 5, size: 6 })
    );
}

#[test]
fn c_37_interest_does_not_grow() {
    for bad in [dpi(0, 0, 5), dpi(0, 3, 4), dpi(0, 0, 100)] {
        assert_eq!(
            p_refuses(&mut keeping(), [dpi(0, 2, 4), bad]),
            Rule::InterestGrows
        );
    }
    assert_eq!(
        p_refuses(&mut keeping(), [dpi(0, 0, 0), dpi(0, 2, 1)]),
        Rule::InterestGrows
    );
    let mut p = keeping();
    feed(
        &mut p,
        [
            dpi(0, 0, (1 << 31) - 1),
            dpi(0, 2, 4),
            dpi(0, 2, 4),
            dpi(0, 3, 1),
            dpi(0, 0, 0),
        ],
    );
    assert_eq!(sent(&mut p), [""; 0]);
    let mut s = working_server(PLAIN);
    s.preservation_interest(0, 2, 4).expect("smaller");
    assert_eq!(
        s.preservation_interest(0, 2, 5),
        Err(CallError::InterestGrows)
    );
}

#[test]
fn c_38_duy_works_after_the_original_flow_has_ended() {
    for complete in [true, false] {
        let mut p = keeping();
        p.finish(0, complete).expect("open");
        out(&mut p);
        feed(&mut p, [duy(0, 2, 4), ame(0, 200), te(0, 200)]);
        assert_eq!(ending_of_p(&events(&mut p), 0), Some(Ok(())));
    }
    for end in [ame(0, 200), ame(0, 206)] {
        let mut s = working_server(KEEPS);
        feed(&mut s, [dum(0, 0, "0123"), end]);
        s.use_original(0, 0, 4).expect("still kept");
    }
}

#[test]
fn c_39_s_says_that_it_needs_no_duy() {
    let mut s = working_server(KEEPS);
    s.preservation_interest(0, 0, 0).expect("smaller");
    assert_eq!(sent(&mut s), ["DPI"]);
    assert_eq!(
        s.use_original(0, 0, 1),
        Err(CallError::NotPreserved { offset: 0, size: 1 })
    );
    s.adapted_end(0, AdaptedEnd::Complete, Bytes::new())
        .expect("open");
}
