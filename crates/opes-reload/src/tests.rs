use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::{Look, OpenError, Reloaded, Watch};

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

#[test]
fn files_that_belong_together_are_read_together() {
    let directory = TempDir::new().unwrap();
    let [left, right] = ["left", "right"].map(|name| directory.path().join(name));
    let both = |left_text: &str, right_text: &str| {
        fs::write(&left, left_text).unwrap();
        fs::write(&right, right_text).unwrap();
    };
    both("1", "1");
    let equal = |_: [&Path; 2], [one, other]: [&str; 2]| {
        let same = one == other;
        same.then(|| one.to_owned())
            .ok_or_else(|| format!("{one} is not {other}"))
    };
    let pair = Reloaded::open_all([left.clone(), right.clone()], equal).unwrap();
    let settle = || {
        pair.look();
        pair.look();
        pair.current().as_ref().clone()
    };
    fs::write(&right, "22").unwrap();
    assert_eq!(settle(), "1");
    fs::write(&left, "22").unwrap();
    assert_eq!(settle(), "22");
    both("333", "333");
    assert_eq!(settle(), "333");

    both("4", "55");
    let refused = Reloaded::open_all([left.clone(), right.clone()], equal).unwrap_err();
    assert_eq!(refused.to_string(), "4 is not 55");
    fs::remove_file(&right).unwrap();
    let missing = Reloaded::open_all([left.clone(), right.clone()], equal).unwrap_err();
    assert!(missing.to_string().contains("right: No such"), "{missing}");
}

#[test]
fn a_folder_is_read_when_it_holds_still() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("rules.yaml");
    let mut watch = Watch::new(vec![directory.path().to_owned()]);
    assert_eq!(watch.look(), Look::Unchanged);
    fs::write(&file, "a").unwrap();
    assert_eq!(watch.look(), Look::Changing);
    fs::write(&file, "ab").unwrap();
    assert_eq!(watch.look(), Look::Changing);
    assert_eq!(watch.look(), Look::Taken);
    assert_eq!(watch.look(), Look::Unchanged);
    fs::remove_file(&file).unwrap();
    assert_eq!((watch.look(), watch.look()), (Look::Changing, Look::Taken));
}
