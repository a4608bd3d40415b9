//! The page of metrics says what the store counts.

use std::collections::BTreeSet;

const METRICS: &str = include_str!("../../../docs/reference/metrics.md");
const SOURCE: &str = include_str!("../src/metrics.rs");

#[test]
fn every_metric_and_every_operation_has_its_place() {
    let section = METRICS.split("## The quarantine's store").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<_> = rows
        .map(|(name, _)| name.strip_suffix("_total").unwrap_or(name))
        .collect();
    let registered: BTreeSet<_> = SOURCE
        .split('"')
        .filter(|text| text.starts_with("opes_"))
        .collect();
    assert_eq!(documented, registered);
    let operations = SOURCE.split("enum Operation {").nth(1).unwrap();
    for operation in operations.split('}').next().unwrap().split(',') {
        let name = operation.trim();
        assert!(
            section.contains(&format!("`{name}`")) || name.is_empty(),
            "{name}"
        );
    }
}
