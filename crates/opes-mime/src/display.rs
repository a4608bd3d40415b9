//! Which text a reader sees first, and so where something has to be written for people.

use crate::structure::{Part, Structure};

/// Indices of the first text that is shown, or, inside a multipart/alternative, of the first text of each alternative; none if nothing is
/// shown. `is_gone` says which entities, with all that is in them, will not be there.
pub fn first_texts(structure: &Structure, is_gone: impl Fn(&Part) -> bool) -> Vec<usize> {
    let parts = &structure.parts;
    let is_shown = |index: &usize| is_shown(structure, *index, &is_gone);
    let Some(first) = (0..parts.len()).find(is_shown) else {
        return Vec::new();
    };
    let is_alternative = |index: &usize| {
        let part = parts.get(*index);
        part.is_some_and(|part| part.content_type == "multipart/alternative")
    };
    match upwards(structure, first).filter(is_alternative).last() {
        Some(alternative) => structure
            .children(alternative)
            .filter_map(|child| {
                let is_inside = |index: &usize| upwards(structure, *index).any(|at| at == child);
                (child..parts.len()).filter(is_inside).find(is_shown)
            })
            .collect(),
        None => vec![first],
    }
}

/// The entity, and those that it is in.
fn upwards(structure: &Structure, index: usize) -> impl Iterator<Item = usize> + '_ {
    std::iter::successors(Some(index), move |index| {
        structure.parts.get(*index)?.parent
    })
}

/// A text for reading, not an attachment, not inside another message, and not gone.
fn is_shown(structure: &Structure, index: usize, is_gone: &impl Fn(&Part) -> bool) -> bool {
    let parts = &structure.parts;
    let is_text = |part: &Part| matches!(part.content_type.as_str(), "text/plain" | "text/html");
    let out_of_sight =
        |part: &Part| part.disposition == "attachment" || part.is_message() || is_gone(part);
    parts.get(index).is_some_and(is_text)
        && !upwards(structure, index)
            .filter_map(|index| parts.get(index))
            .any(out_of_sight)
}
