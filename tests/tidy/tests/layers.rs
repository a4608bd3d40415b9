//! Arrows between the crates of this workspace only point down.

use std::process::Command;

use opes_tidy::layers::{LAYERS, forbidden_arrows, packages};
use opes_tidy::{assert_none, tree};

#[test]
fn arrows_only_point_down() {
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(tree::root())
        .output()
        .unwrap();
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let packages = packages(&metadata.stdout).unwrap();
    assert!(
        packages.len() > 10,
        "only {} packages: not our workspace",
        packages.len()
    );
    assert_none(&forbidden_arrows(&packages, LAYERS));
}
