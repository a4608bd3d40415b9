//! The page says what there is to configure and what is counted.

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../../docs/operate/directories.md");
const METRICS: &str = include_str!("../src/metrics.rs");
const CONFIG: &str = include_str!("../src/config.rs");

/// First cells of the page's tables.
fn documented() -> BTreeSet<&'static str> {
    let cells = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    cells
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`'))
        .collect()
}

#[test]
fn every_metric_and_every_result_has_its_place() {
    let page = documented();
    let registered = METRICS.split('"').filter(|text| text.starts_with("opes_"));
    for name in registered {
        let counter = format!("{name}_total");
        assert!(page.contains(name) || page.contains(&*counter), "{name}");
    }
    let results = METRICS.split("enum Outcome {").nth(1).unwrap();
    for line in results.split('}').next().unwrap().lines() {
        let name = line.trim().trim_end_matches(',');
        let is_comment = name.starts_with("//");
        assert!(
            is_comment || name.is_empty() || PAGE.contains(&format!("`{name}`")),
            "{name}"
        );
    }
}

#[test]
fn every_field_has_its_place() {
    let page = documented();
    let fields = CONFIG
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split(':').next());
    let mut count = 0;
    for field in fields
        .filter(|field| !field.contains(['(', ' ']) && !["ldap", "sql", "cache"].contains(field))
    {
        let mut words = field.split('_');
        let mut name = words.next().unwrap().to_owned();
        for word in words {
            name.push_str(&word[..1].to_uppercase());
            name.push_str(&word[1..]);
        }
        let in_cache = format!("cache.{name}");
        assert!(page.contains(&*name) || page.contains(&*in_cache), "{name}");
        count += 1;
    }
    assert!(count > 15, "only {count} fields were looked at");
}
