//! The nearest known name for one that is not known.

/// Longest name that is compared; anything longer is no slip of a finger.
const NAME_OCTETS_MAX: usize = 64;

/// A line of help: the nearest of the known names, or all of them.
pub(crate) fn remedy(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(close) => format!("did you mean `{close}`?"),
        None if known.is_empty() => "there are no fields here".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The known name that differs least, if it differs little enough to be meant.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > NAME_OCTETS_MAX {
        return None;
    }
    let wanted = name.to_ascii_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| {
            (
                distance(&wanted, &candidate.to_ascii_lowercase()),
                *candidate,
            )
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for ((to, pair), left) in b.iter().zip(row.windows(2)).zip(1..) {
            let (&[diagonal, above], Some(&before)) = (pair, next.get(left - 1)) else {
                break;
            };
            next.push(
                (diagonal + usize::from(from != *to))
                    .min(above + 1)
                    .min(before + 1),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_insertions_deletions_and_substitutions() {
        assert_eq!(distance("timeout", "timeout"), 0);
        assert_eq!(distance("timout", "timeout"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_far_name_lists_what_there_is() {
        assert_eq!(
            remedy("onfailure", &["onFailure", "timeout"]),
            "did you mean `onFailure`?"
        );
        assert_eq!(
            remedy("colour", &["onFailure", "timeout"]),
            "known here: onFailure, timeout"
        );
    }
}
