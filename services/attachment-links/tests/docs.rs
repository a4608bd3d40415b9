//! The pages say what the service counts and what it can be told.

use std::collections::BTreeSet;

const METRICS: &str = include_str!("../../../docs/reference/metrics.md");
const PAGE: &str = include_str!("../../../docs/services/attachment-links.md");

/// First cells of the rows of a section, as code.
fn rows(section: &str) -> BTreeSet<&str> {
    let cells = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(cell, _)| cell).collect()
}

#[test]
fn every_metric_and_every_label_has_its_place() {
    let source = include_str!("../src/metrics.rs");
    let section = METRICS.split("\n## attachment-links").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: BTreeSet<_> = rows(section)
        .into_iter()
        .map(|name| name.strip_suffix("_total").unwrap_or(name))
        .collect();
    let registered: BTreeSet<_> = source
        .split('"')
        .filter(|text| text.starts_with("opes_"))
        .collect();
    assert_eq!(documented, registered);
    for label in ["enum Failure {", "enum Request {"] {
        let values = source.split(label).nth(1).unwrap();
        for value in values.split('}').next().unwrap().split(',') {
            let name = value.trim();
            let named = section.contains(&format!("`{name}`"));
            assert!(name.is_empty() || named, "{name}");
        }
    }
}

#[test]
fn every_option_has_its_row() {
    let source = include_str!("../src/config.rs");
    let fields = |name: &str| -> BTreeSet<String> {
        let body = source.split(&format!("struct {name} {{")).nth(1).unwrap();
        let lines = body.split("\n}").next().unwrap().lines();
        let names =
            lines.filter_map(|line| line.trim().trim_start_matches("pub ").split_once(": "));
        names
            .map(|(name, _)| camel_case(name))
            .filter(|name| !name.contains(['/', '#']))
            .collect()
    };
    let mut expected = fields("Settings");
    expected.extend(fields("ServiceFields"));
    let documented: BTreeSet<_> = rows(PAGE).into_iter().map(str::to_owned).collect();
    assert_eq!(documented, expected);
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut all, word| {
        let (initial, rest) = word.split_at(1.min(word.len()));
        all.push_str(&initial.to_uppercase());
        all.push_str(rest);
        all
    })
}
