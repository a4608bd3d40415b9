//! The files of this workspace keep the rules of `CODE_STYLE.md` that a machine can judge.

#![allow(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use opes_tidy::tree::{Source, root, sources};
use opes_tidy::{Finding, addresses, assert_none, manifests, sources as rules};

fn check(applies: impl Fn(&Source) -> bool, rule: impl Fn(&str, &str) -> Vec<Finding>) {
    let chosen: Vec<Source> = sources(&root())
        .unwrap()
        .into_iter()
        .filter(applies)
        .collect();
    assert!(
        !chosen.is_empty(),
        "no file to check: the rule looks in the wrong place"
    );
    let findings: Vec<Finding> = chosen
        .iter()
        .flat_map(|source| rule(&source.path, &source.text))
        .collect();
    assert_none(&findings);
}

#[test]
fn reminders_have_an_owner() {
    let code = ["rs", "proto", "toml", "yaml", "yml", "sh", "py"];
    check(
        |source| source.has_extension(&code),
        rules::ownerless_reminders,
    );
}

#[test]
fn addresses_are_reserved_for_examples() {
    check(|_| true, addresses::foreign_addresses);
}

#[test]
fn no_path_of_one_machine() {
    check(|_| true, rules::machine_paths);
}

#[test]
fn files_say_what_they_are() {
    check(Source::is_production_rust, rules::module_doc);
}

#[test]
fn main_is_wiring() {
    let main = |source: &Source| {
        source.path.ends_with("src/main.rs") || source.path == "examples/add_header.rs"
    };
    check(main, rules::long_main);
}

#[test]
fn reply_codes_have_names() {
    let outside = |source: &Source| {
        source.is_production_rust()
            && source.path.starts_with("crates/opes-smtp/src/")
            && !source.path.starts_with("crates/opes-smtp/src/reply")
    };
    check(outside, rules::reply_literals);
}

#[test]
fn versions_stand_in_the_root_manifest_only() {
    let member = |source: &Source| source.path.ends_with("/Cargo.toml");
    check(member, manifests::stated_versions);
}
