//! The rows: Part E of docs/ocp-smtp.md as it stands there, and what each one means for a server under test.

/// The specification is the list; a copy of it would drift.
const SPECIFICATION: &str = include_str!("../../../docs/ocp-smtp.md");

/// Sections that have no row of their own in Part E.
const SECTIONS: &[(&str, &str)] = &[
    ("A5", "no payload beyond the credit that the peer gave"),
    ("B4", "AME.profile of S is an Outcome that can be decoded"),
    (
        "B5",
        "copies: one recipient in one copy at most, none unknown, ranges inside the adapted flow",
    ),
];

/// Rows that only a processor can break.
const NOT_ABOUT_SERVERS: &[&str] = &[
    "C-05", "C-15", "C-19", "C-28", "C-34", "C-38", "C-40", "C-43", "C-45", "C-46", "C-56", "C-57",
    "C-59", "C-60", "C-61", "C-62", "C-63", "C-65",
];

/// Rows that nobody can judge from outside, and why.
const NOT_TESTABLE: &[(&str, &str)] = &[
    (
        "C-07",
        "only a server that makes offers of its own can collide",
    ),
    (
        "C-08",
        "a server that answers at once leaves no time for a second offer",
    ),
    (
        "C-21",
        "one service for each group: an order cannot be seen",
    ),
    ("C-32", "a wrong As-is is the processor's to ignore"),
    (
        "C-33",
        "whether octets were changed on purpose cannot be seen",
    ),
    ("C-35", "the profile keeps everything: Kept cannot shrink"),
    (
        "C-39",
        "a courtesy: what a server still needs cannot be seen",
    ),
    ("C-48", "may be refused, need not be"),
    ("C-52", "takes minutes by design"),
    (
        "C-64",
        "the kit comes as a processor that is let in, or not at all",
    ),
];

/// Rows about what a server need not do: without it there is nothing to judge.
pub(crate) const OPTIONAL: &[(&str, &str)] = &[
    ("C-36", "it sends no DUY"),
    ("C-37", "it sends no DPI"),
    ("C-44", "it sends no DWSS"),
    ("C-54", "it gives commands no new line"),
    ("B5", "it answers without copies"),
];

/// What a row means for this kit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    Servers,
    ProcessorsOnly,
    NotTestable(&'static str),
}

/// One rule.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) id: &'static str,
    pub(crate) statement: &'static str,
    pub(crate) about: About,
}

/// All rows in order.
pub(crate) fn rules() -> Vec<Rule> {
    let part_e = SPECIFICATION
        .split_once("\n# Part E")
        .map_or("", |(_, rest)| rest);
    let rows = part_e.lines().filter_map(row);
    rows.chain(SECTIONS.iter().copied())
        .map(|(id, statement)| Rule {
            id,
            statement,
            about: about(id),
        })
        .collect()
}

fn row(line: &'static str) -> Option<(&'static str, &'static str)> {
    let mut cells = line
        .strip_prefix("| C-")
        .and(line.strip_prefix("| "))?
        .split(" | ");
    Some((cells.next()?, cells.next()?))
}

fn about(id: &str) -> About {
    if NOT_ABOUT_SERVERS.contains(&id) {
        return About::ProcessorsOnly;
    }
    let reason = NOT_TESTABLE.iter().find(|(other, _)| *other == id);
    reason.map_or(About::Servers, |(_, reason)| About::NotTestable(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    #[test]
    fn the_list_is_found() {
        let rules = rules();
        assert!(rules.len() > 55, "{}", rules.len());
        assert_eq!(rules[0].id, "C-01");
        assert!(
            rules[0]
                .statement
                .starts_with("B: first frame starts with CS")
        );
    }

    #[test]
    fn every_row_about_servers_has_a_scenario_and_no_scenario_an_unknown_row() {
        let rules = rules();
        for rule in &rules {
            let tested = scenarios::ALL.iter().any(|s| s.ids.contains(&rule.id));
            assert_eq!(tested, rule.about == About::Servers, "{}", rule.id);
        }
        for id in scenarios::ALL.iter().flat_map(|s| s.ids) {
            assert!(rules.iter().any(|rule| rule.id == *id), "{id}");
        }
    }
}
