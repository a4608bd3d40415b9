//! Which end of a ZIP archive is believed: what hides one from us hides it from nobody else.

use super::*;

/// `archive`, which has none, with a comment.
fn with_comment(mut archive: Vec<u8>, comment: &[u8]) -> Vec<u8> {
    let length = u16::try_from(comment.len()).unwrap().to_le_bytes();
    archive.truncate(archive.len() - 2);
    archive.extend_from_slice(&length);
    archive.extend_from_slice(comment);
    archive
}

/// Forbidden, but only for those that believe the directory: the header in front of it says that it is not packed.
fn lying() -> samples::File {
    samples::File {
        local_method: 0,
        ..deflated("e.bin", &pe())
    }
}

fn labels(content: &[u8]) -> Vec<&'static str> {
    let found = found("a.bin", content);
    found.into_iter().map(|(_, label)| label).collect()
}

#[test]
fn a_signature_at_the_very_end_hides_no_archive() {
    for comment in [
        &b"PK\x05\x06"[..],
        b"PK\x05\x06PK\x05\x06",
        b"PK\x05\x06 17 octets follow",
    ] {
        for front in [&b"x"[..], b""] {
            let archive = with_comment(zip(&[lying()]), comment);
            let content = [front, &archive].concat();
            assert_eq!(labels(&content), ["pe"], "{front:?} {comment:?}");
        }
    }
    assert!(!zip::has_end(b"PK\x05\x06 seventeen octets"));
    assert!(zip::has_end(&zip(&[])));
}

#[test]
fn every_directory_that_an_end_leads_to_is_read() {
    let harmless = zip(&[stored("b.pdf", PDF)]);
    // Those that check the length of the comment believe the first of these.
    let wrong = [&harmless[..harmless.len() - 2], &[7, 0]].concat();
    assert_eq!(labels(&with_comment(zip(&[lying()]), &wrong)), ["pe"]);
    // An end that leads nowhere.
    let nowhere = [&b"PK\x05\x06"[..], &[0xff; 18]].concat();
    assert_eq!(labels(&with_comment(zip(&[lying()]), &nowhere)), ["pe"]);
    // The offset leads to one directory, the size to the other one.
    let mut hidden = zip(&[lying()]);
    let hidden_end = hidden.len() - 22;
    hidden[hidden_end] = b'x';
    let mut both = [hidden, harmless].concat();
    let offset = memchr::memmem::find(&both, b"PK\x01\x02").unwrap();
    let end = both.len() - 22;
    both[end + 16..end + 20].copy_from_slice(&u32::try_from(offset).unwrap().to_le_bytes());
    assert_eq!(labels(&both), ["pe"]);
}

#[test]
fn archives_in_archives_and_old_directories_overlap_nothing() {
    let any = config(json!({}));
    let inner = zip(&[stored("b.pdf", PDF), deflated("c.pdf", PDF)]);
    let outer = zip(&[stored("a.pdf", PDF), stored("inner.zip", &inner)]);
    assert_eq!(unseen(&any, &outer), None);
    assert_eq!(unseen(&any, &zip(&[stored("outer.zip", &outer)])), None);
    // As some programs add to an archive: a new directory behind the old one.
    let old = zip(&[stored("a.pdf", PDF), stored("b.pdf", PDF)]);
    let start = memchr::memmem::find(&old, b"PK\x01\x02").unwrap();
    let directory = &old[start..old.len() - 22];
    let mut end = old[old.len() - 22..].to_vec();
    end[16..20].copy_from_slice(&u32::try_from(old.len()).unwrap().to_le_bytes());
    assert_eq!(unseen(&any, &[&old, directory, &end].concat()), None);
}

#[test]
fn decoys_hide_no_names() {
    let decoy = [&b"PK\x01\x02"[..], &[0; 42]].concat();
    let content = |decoys: usize| [decoy.repeat(decoys), b"PK\x01\x02 x.exe".to_vec()].concat();
    let closed = config(json!({ "openArchives": false }));
    for config in [config(json!({})), closed] {
        let why = unseen(&config, &content(10_000));
        assert_eq!(why, Some(Unseen::Entries(10_000)));
        assert_eq!(unseen(&config, &content(9_999)), None);
    }
    let more = config(json!({ "archives": { "entriesMax": 20_000 } }));
    assert_eq!(unseen(&more, &content(10_000)), None);
}
