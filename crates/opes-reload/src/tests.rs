use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Look, OpenError, Reloaded};

fn number(path: &Path, text: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|error| format!("{}:1: {error}", path.display()))
}

// A look by the background thread in between is harmless: it only takes a step that the test would have taken.
fn settle(file: &Reloaded<u32>) -> u32 {
    file.look();
    file.look();
    *file.current()
}

fn replace(directory: &TempDir, text: &str) {
    let draft = directory.path().join("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, directory.path().join("number")).unwrap();
}

#[test]
fn good_edits_are_taken_and_bad_ones_leave_the_last_good_reading() {
    let directory = TempDir::new().unwrap();
    replace(&directory, "1");
    let file = Reloaded::open(directory.path().join("number"), number).unwrap();
    assert_eq!(*file.current(), 1);
    assert_eq!(file.look(), Look::Unchanged);
    replace(&directory, "22");
    assert_eq!(settle(&file), 22);
    replace(&directory, "three");
    assert_eq!(settle(&file), 22);
    fs::remove_file(directory.path().join("number")).unwrap();
    assert_eq!(settle(&file), 22);
    replace(&directory, "4444");
    assert_eq!(settle(&file), 4444);
}

#[test]
fn a_symlink_that_turns_to_another_file_is_seen() {
    let directory = TempDir::new().unwrap();
    let link = directory.path().join("link");
    for name in ["5", "6"] {
        fs::write(directory.path().join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("5", &link).unwrap();
    let file = Reloaded::open(&link, number).unwrap();
    let fresh = directory.path().join("fresh");
    std::os::unix::fs::symlink("6", &fresh).unwrap();
    fs::rename(fresh, &link).unwrap();
    assert_eq!(settle(&file), 6);
}

#[test]
fn opening_fails_with_the_place() {
    let directory = TempDir::new().unwrap();
    let missing = Reloaded::open(directory.path().join("number"), number).unwrap_err();
    assert!(matches!(missing, OpenError::Unreadable { .. }));
    assert!(
        missing.to_string().contains("number: No such file"),
        "{missing}"
    );
    replace(&directory, "x");
    let malformed = Reloaded::open(directory.path().join("number"), number).unwrap_err();
    assert!(
        malformed.to_string().contains("number:1: invalid digit"),
        "{malformed}"
    );
}
