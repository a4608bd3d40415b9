use super::*;
use std::os::unix::fs::PermissionsExt;

fn deposit(suspect: bool) -> Deposit {
    Deposit {
        mailbox: PathBuf::from("example.com/b"),
        name: "1.Q7R0.mx".into(),
        header: "Return-Path: <>\r\n".into(),
        body: Body::Memory(vec![
            Bytes::from_static(b"Subject: a\r\n"),
            Bytes::new(),
            Bytes::from_static(b"\r\nb\r\n"),
        ]),
        suspect,
    }
}

fn written(root: &Path, suspect: bool) -> PathBuf {
    deposit_all(root, vec![deposit(suspect)])
        .remove(0)
        .expect("written")
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn file_is_in_new_with_the_content_as_it_was() {
    let root = tempfile::tempdir().expect("a folder");
    let path = written(root.path(), false);
    assert_eq!(path, root.path().join("example.com/b/new/1.Q7R0.mx"));
    assert_eq!(
        fs::read(&path).expect("read"),
        b"Return-Path: <>\r\nSubject: a\r\n\r\nb\r\n"
    );
    assert_eq!(files(&root.path().join("example.com/b/tmp")), 0);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&root.path().join("example.com/b/new")), 0o700);
}

#[test]
fn second_attempt_finds_the_first_in_new_and_in_cur() {
    let root = tempfile::tempdir().expect("a folder");
    let new = written(root.path(), false);
    assert_eq!(written(root.path(), true), new);
    let cur = root.path().join("example.com/b/cur/1.Q7R0.mx:2,S");
    fs::rename(&new, &cur).expect("read by its owner");
    assert_eq!(written(root.path(), true), cur);
    assert_eq!(files(new.parent().expect("a parent")), 0);
}

#[test]
fn name_of_another_message_with_the_same_beginning_is_not_taken_for_ours() {
    let root = tempfile::tempdir().expect("a folder");
    let new = written(root.path(), false);
    let cur = root.path().join("example.com/b/cur");
    fs::rename(&new, cur.join("1.Q7R0.mx-other:2,S")).expect("renamed");
    assert_eq!(written(root.path(), true), new);
}

#[test]
fn what_a_crash_left_in_tmp_is_overwritten() {
    let root = tempfile::tempdir().expect("a folder");
    let tmp = root.path().join("example.com/b/tmp");
    fs::create_dir_all(&tmp).expect("made");
    fs::create_dir_all(root.path().join("example.com/b/new")).expect("made");
    fs::write(tmp.join("1.Q7R0.mx"), [b'x'; 1000]).expect("written");
    let path = written(root.path(), true);
    assert_eq!(fs::metadata(path).expect("there").len(), 34);
}

#[test]
fn missing_root_is_transient_and_names_the_remedy() {
    let root = tempfile::tempdir().expect("a folder");
    let error = deposit_all(&root.path().join("away"), vec![deposit(false)])
        .remove(0)
        .expect_err("no root");
    assert!(error.reply().is_transient());
    let text = error.to_string();
    assert!(
        text.contains("away") && text.contains("create it"),
        "{text}"
    );
}

#[test]
fn mailbox_that_is_no_folder_is_transient_and_named() {
    let root = tempfile::tempdir().expect("a folder");
    fs::write(root.path().join("example.com"), "a file").expect("written");
    let error = deposit_all(root.path(), vec![deposit(false)])
        .remove(0)
        .expect_err("no folder");
    assert!(error.reply().is_transient());
    assert!(error.to_string().contains("example.com/b"), "{error}");
}

#[test]
fn stream_that_breaks_off_leaves_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let (sender, receiver) = mpsc::channel(2);
    sender
        .blocking_send(Ok(Bytes::from_static(b"half")))
        .expect("room");
    drop(sender);
    let mut broken = deposit(false);
    broken.body = Body::Stream(receiver);
    assert!(deposit_all(root.path(), vec![broken]).remove(0).is_err());
    assert_eq!(files(&root.path().join("example.com/b/new")), 0);
    assert_eq!(files(&root.path().join("example.com/b/tmp")), 0);
}

#[test]
fn mailbox_that_a_crash_left_half_made_is_completed() {
    let root = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(root.path().join("example.com/b/tmp")).expect("made");
    let path = written(root.path(), false);
    assert_eq!(path, root.path().join("example.com/b/new/1.Q7R0.mx"));
    assert_eq!(files(&root.path().join("example.com/b/cur")), 0);
}
