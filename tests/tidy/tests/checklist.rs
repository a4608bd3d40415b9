//! `docs/reference/kubernetes-checklist.md`: forty promises, and each names tests that exist, or says why there is none.

use std::path::Path;

use anyhow::{Context as _, Result};

const PAGE: &str = "docs/reference/kubernetes-checklist.md";
const LINES: usize = 40;

/// Number, promise, proof of each row.
fn rows(page: &str) -> Vec<(usize, String, String)> {
    page.lines()
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
            let number = cells.next()?.parse().ok()?;
            Some((number, cells.next()?.to_owned(), cells.next()?.to_owned()))
        })
        .collect()
}

/// `FILE::TEST` in backticks.
fn references(proof: &str) -> Vec<(&str, &str)> {
    let quoted = proof.split('`').skip(1).step_by(2);
    quoted.filter_map(|it| it.split_once(".rs::")).collect()
}

/// What is wrong with one row.
fn complaint(root: &Path, proof: &str) -> Option<String> {
    let references = references(proof);
    if references.is_empty() && !proof.contains("not proven: ") {
        return Some("names no test, and does not say `not proven: ` and why".to_owned());
    }
    references.iter().find_map(|(file, test)| {
        let path = root.join(format!("{file}.rs"));
        let Ok(text) = std::fs::read_to_string(&path) else {
            return Some(format!("{file}.rs does not exist"));
        };
        let name = test.rsplit("::").next().unwrap_or(test);
        let declared = text.contains(&format!("fn {name}("));
        (!declared).then(|| format!("{file}.rs has no test {name}"))
    })
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn every_promise_names_tests_that_exist() -> Result<()> {
    let page = std::fs::read_to_string(root().join(PAGE)).context(PAGE)?;
    let rows = rows(&page);
    let numbers: Vec<usize> = rows.iter().map(|row| row.0).collect();
    assert_eq!(numbers, (1..=LINES).collect::<Vec<_>>(), "{PAGE}");
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(number, _, proof)| {
            Some(format!(
                "{PAGE}: line {number} {}",
                complaint(root(), proof)?
            ))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_promise_without_a_test_is_found() {
    let of = |proof| complaint(root(), proof);
    assert_eq!(
        of("`tests/tidy/tests/checklist.rs::a_promise_without_a_test_is_found`"),
        None
    );
    assert_eq!(of("not proven: one node only"), None);
    assert!(of("trust us").is_some());
    assert!(of("`tests/tidy/tests/checklist.rs::no_such_test`").is_some());
    assert!(of("`tests/tidy/tests/nothing.rs::no_such_test`").is_some());
    assert_eq!(
        rows("| 1 | a | b |\n| --- | --- | --- |\n| 2 | c | d |").len(),
        2
    );
}
