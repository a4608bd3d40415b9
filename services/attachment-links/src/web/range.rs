//! Which octets are asked for: one range (RFC 9110 §14.2), under the condition of `If-Range` (§13.1.5).

use std::ops::Range;

use hyper::header::{HeaderMap, IF_RANGE, RANGE};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    All,
    /// Not empty, inside the file.
    Part(Range<u64>),
    /// A range that the file does not have.
    Nothing,
}

/// What cannot be read, and several ranges at once, are passed over, as RFC 9110 §14.2 allows.
pub(super) fn asked(headers: &HeaderMap, etag: &str, size: u64) -> Asked {
    let is_other = headers
        .get(IF_RANGE)
        .is_some_and(|condition| condition.as_bytes() != etag.as_bytes());
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    match range.filter(|_| !is_other).and_then(parse) {
        None => Asked::All,
        Some(Spec::Last(count)) => part(size.saturating_sub(count)..size),
        Some(Spec::From(first)) => part(first..size),
        Some(Spec::Between(first, last)) => part(first..size.min(last.saturating_add(1))),
    }
}

fn part(range: Range<u64>) -> Asked {
    if range.is_empty() {
        Asked::Nothing
    } else {
        Asked::Part(range)
    }
}

enum Spec {
    Last(u64),
    From(u64),
    /// The last one is in it.
    Between(u64, u64),
}

fn parse(range: &str) -> Option<Spec> {
    let (unit, set) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first, last) {
        ("", last) => number(last).map(Spec::Last),
        (first, "") => number(first).map(Spec::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::Between(first, last))
        }
    }
}

/// Digits only; more than fit are as many as can be.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_ten(range: &str, if_range: &str) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, range.parse().unwrap());
        if !if_range.is_empty() {
            headers.insert(IF_RANGE, if_range.parse().unwrap());
        }
        asked(&headers, "\"e\"", 10)
    }

    #[test]
    fn one_range_is_understood() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-", Asked::Part(2..10)),
            ("Bytes=2-99999999999999999999", Asked::Part(2..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=-0", Asked::Nothing),
            ("bytes=10-", Asked::Nothing),
            ("bytes=3-2", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("bytes=+1-2", Asked::All),
            ("lines=1-2", Asked::All),
            ("bytes", Asked::All),
        ] {
            assert_eq!(of_ten(range, ""), expected, "{range}");
        }
    }

    #[test]
    fn another_version_of_a_file_is_sent_whole() {
        assert_eq!(of_ten("bytes=1-1", "\"e\""), Asked::Part(1..2));
        for other in ["\"f\"", "W/\"e\"", "Sat, 28 Nov 2026 00:00:00 GMT"] {
            assert_eq!(of_ten("bytes=1-1", other), Asked::All, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_range_is_inside_the_file(range in "(bytes=)?[ -~]{0,40}", size: u64) {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, range.parse().unwrap());
            if let Asked::Part(part) = asked(&headers, "", size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }
    }
}
