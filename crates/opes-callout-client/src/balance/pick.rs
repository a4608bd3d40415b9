//! Least in flight of two random choices: nearly as even as the least of all, and no endpoint is everybody's favourite.

/// One endpoint that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Whatever the caller finds it by.
    pub(crate) index: usize,
    /// Transactions open there.
    pub(crate) in_flight: u32,
    /// Chance to be one of the two, relative to the others; at least 1.
    pub(crate) weight: u32,
}

/// Index of the chosen one. `random`: 64 random bits, 32 for each choice.
pub(crate) fn pick(candidates: &[Candidate], random: u64) -> Option<usize> {
    let (high, low) = (random >> 32, random & u64::from(u32::MAX));
    let first = draw(candidates, high, None)?;
    let Some(second) = draw(candidates, low, Some(first.index)) else {
        return Some(first.index);
    };
    Some(if second.in_flight < first.in_flight {
        second.index
    } else {
        first.index
    })
}

/// One of them by weight, `not` left out. `random` is below 2³².
fn draw(candidates: &[Candidate], random: u64, not: Option<usize>) -> Option<Candidate> {
    let others = || candidates.iter().filter(|c| Some(c.index) != not);
    let total: u64 = others().map(|c| u64::from(c.weight.max(1))).sum();
    let mut at = (u128::from(random) * u128::from(total)) >> 32;
    for candidate in others() {
        let weight = u128::from(candidate.weight.max(1));
        if at < weight {
            return Some(*candidate);
        }
        at -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use opes_host::Random;
    use proptest::prelude::*;

    use super::*;

    fn candidate() -> impl Strategy<Value = (u32, u32)> {
        (0_u32..100, 0_u32..=1000)
    }

    proptest! {
        #[test]
        fn somebody_is_chosen_and_never_the_busiest_of_distinct(
            of in proptest::collection::vec(candidate(), 0..20),
            random in any::<u64>(),
        ) {
            let candidates: Vec<_> = of
                .iter()
                .enumerate()
                .map(|(index, &(in_flight, weight))| Candidate { index, in_flight, weight })
                .collect();
            let chosen = pick(&candidates, random);
            prop_assert_eq!(chosen.is_some(), !candidates.is_empty());
            let Some(chosen) = chosen else { return Ok(()) };
            let least_of_others = candidates
                .iter()
                .filter(|c| c.index != chosen)
                .map(|c| c.in_flight)
                .max();
            if let Some(most) = least_of_others {
                prop_assert!(candidates[chosen].in_flight <= most);
            }
        }
    }

    #[test]
    fn shares_follow_weights_and_load() {
        let at = |index, in_flight, weight| Candidate {
            index,
            in_flight,
            weight,
        };
        let random = Random::seeded(7);
        let share = |candidates: &[Candidate], of: usize| {
            let mut hits = 0_u32;
            for _ in 0..10_000 {
                hits += u32::from(pick(candidates, random.next_u64()) == Some(of));
            }
            hits
        };
        let even: Vec<_> = (0..10).map(|i| at(i, 5, 1000)).collect();
        assert!((800..1200).contains(&share(&even, 3)));
        // A newcomer without load wins each time it is drawn; its weight keeps that rare.
        let mut young = even.clone();
        young[9] = at(9, 0, 100);
        assert!((100..400).contains(&share(&young, 9)));
        let mut idle = even;
        idle[9] = at(9, 0, 1000);
        assert!((1700..2300).contains(&share(&idle, 9)));
    }
}
