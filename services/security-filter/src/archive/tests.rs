use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::formats::tests::{eicar, pe};
use crate::inspect::{Looked, inspect, look};
use samples::{MIB, deflated, gzip, overlapping, packed, stored, tar, zeros, zip};

mod directories;
#[path = "../../tests/samples/archives.rs"]
mod samples;

const PDF: &[u8] = b"%PDF-1.7 nothing more";

/// With all the time that a busy machine takes, unless the test says otherwise.
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn config(mut json: serde_json::Value) -> Config {
    let time = &mut json["archives"]["timeMs"];
    if time.is_null() {
        *time = json!(600_000);
    }
    Config::from_json(&json).unwrap()
}

/// A message with this attachment.
fn message(name: &str, content: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(content);
    format!(
        "From: a@example.org\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nText\r\n--b\r\n\
         Content-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n--b--\r\n"
    )
    .into_bytes()
}

/// Name and cause of what is found in an attachment of this name; all of it is part 2.
fn found_with(config: &Config, name: &str, content: &[u8]) -> Vec<(String, Cause)> {
    let findings = inspect(&message(name, content), config);
    assert!(
        findings.iter().all(|finding| finding.path == "2"),
        "{findings:?}"
    );
    findings
        .into_iter()
        .map(|finding| (finding.name, finding.cause))
        .collect()
}

fn found(name: &str, content: &[u8]) -> Vec<(String, &'static str)> {
    let found = found_with(&config(json!({})), name, content);
    found
        .into_iter()
        .map(|(name, cause)| (name, cause.label()))
        .collect()
}

fn one(name: &str, label: &'static str) -> Vec<(String, &'static str)> {
    vec![(name.to_owned(), label)]
}

fn unseen(config: &Config, content: &[u8]) -> Option<Unseen> {
    let found = found_with(config, "a.bin", content);
    match found.as_slice() {
        [(_, Cause::Unseen(why))] => Some(*why),
        [] => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_forbidden_is_found_in_every_kind_of_archive() {
    let evil = pe();
    let inner = zip(&[stored("readme.pdf", PDF), deflated("evil.bin", &evil)]);
    for (name, content, place, label) in [
        (
            "a.zip",
            zip(&[deflated("x/e.bin", &evil)]),
            "a.zip/x/e.bin",
            "pe",
        ),
        ("a.zip", zip(&[stored("e.bin", &evil)]), "a.zip/e.bin", "pe"),
        (
            "a.zip",
            zip(&[deflated("inner.zip", &inner)]),
            "a.zip/inner.zip/evil.bin",
            "pe",
        ),
        (
            "a.zip",
            zip(&[stored("inner.zip", &inner)]),
            "a.zip/inner.zip/evil.bin",
            "pe",
        ),
        (
            "a.tar",
            tar(&[("b.pdf", PDF), ("e.bin", &evil)]),
            "a.tar/e.bin",
            "pe",
        ),
        (
            "a.tar.gz",
            gzip(&tar(&[("e.bin", &evil)])),
            "a.tar.gz/a.tar/e.bin",
            "pe",
        ),
        (
            "a.tgz",
            gzip(&tar(&[("i.zip", &inner)])),
            "a.tgz/a.tar/i.zip/evil.bin",
            "pe",
        ),
        ("t.gz", gzip(&evil), "t.gz/t", "pe"),
        (
            "t.gz",
            [gzip(&evil[..1]), gzip(&evil[1..])].concat(),
            "t.gz/t",
            "pe",
        ),
        (
            "a.zip",
            zip(&[deflated("t.tar", &tar(&[("t", &evil)]))]),
            "a.zip/t.tar/t",
            "pe",
        ),
    ] {
        assert_eq!(found(name, &content), one(place, label), "{name} {place}");
    }
    for content in [
        zip(&[deflated("b.pdf", PDF)]),
        gzip(PDF),
        tar(&[("b.pdf", PDF)]),
        zip(&[]),
    ] {
        assert_eq!(found("a.bin", &content), []);
    }
}

#[test]
fn an_archive_is_known_under_another_name_and_behind_something_else() {
    let evil = pe();
    for (name, content, place, label) in [
        (
            "holiday.png",
            zip(&[deflated("e", &evil)]),
            "holiday.png/e",
            "pe",
        ),
        (
            "a.bin",
            [b"\x89PNG\r\n".to_vec(), zip(&[deflated("e", &evil)])].concat(),
            "a.bin/e",
            "pe",
        ),
        (
            "a.gz",
            [gzip(PDF), zip(&[deflated("e", &evil)])].concat(),
            "a.gz/e",
            "pe",
        ),
    ] {
        assert_eq!(found(name, &content), one(place, label), "{name} {place}");
    }
}

#[test]
fn names_in_archives_count_without_a_look_at_the_content() {
    for (name, content) in [
        ("a.zip", zip(&[stored("x.exe", b"")])),
        ("a.tar", tar(&[("x.exe", b"")])),
        ("x.exe.gz", gzip(PDF)),
    ] {
        assert_eq!(found(name, &content), one(name, "entry-name"));
    }
}

#[test]
fn messages_in_archives_and_archives_in_messages() {
    let forwarded = message("deep.zip", &zip(&[deflated("e.bin", &pe())]));
    for (name, content, place) in [
        (
            "a.zip",
            zip(&[deflated("mail.eml", &forwarded)]),
            "a.zip/mail.eml/deep.zip/e.bin",
        ),
        (
            "a.zip",
            zip(&[deflated("mail", &forwarded)]),
            "a.zip/mail/deep.zip/e.bin",
        ),
        (
            "a.tgz",
            gzip(&tar(&[("mail.eml", &forwarded)])),
            "a.tgz/a.tar/mail.eml/deep.zip/e.bin",
        ),
        ("mail.eml", forwarded.clone(), "mail.eml/deep.zip/e.bin"),
    ] {
        assert_eq!(found(name, &content), one(place, "pe"));
    }
    let deep = (0..9).fold(forwarded, |inner, _| message("m.eml", &inner));
    assert_eq!(found("m.eml", &deep)[0].1, "nesting");
}

#[test]
fn a_text_to_read_is_no_message() {
    let text = b"Subject: s\r\n\r\nFrom: x\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nquoted\r\n";
    assert_eq!(inspect(text, &config(json!({}))), []);
}

/// Each shows `evil` to one program and something harmless to another.
#[test]
fn tricks_with_two_headers() {
    let evil = deflated("e.bin", &pe());
    let file = |name: &str, local: &str| File2(name, local).of(&evil);
    for (content, label, why) in [
        (
            zip(&[file("a.pdf", "a.exe")]),
            "entry-name",
            "name in front of the file",
        ),
        (
            zip(&[file("a.exe", "a.pdf")]),
            "entry-name",
            "name in the directory",
        ),
        (
            zip(&[
                stored("a.pdf", PDF),
                samples::File {
                    is_stray: true,
                    ..evil.clone()
                },
            ]),
            "pe",
            "not in the directory",
        ),
        (
            zip(&[samples::File {
                method: 0,
                ..evil.clone()
            }]),
            "pe",
            "stored, says the directory",
        ),
        (
            zip(&[samples::File {
                local_method: 0,
                ..evil.clone()
            }]),
            "pe",
            "stored, says the header",
        ),
        (
            [
                zip(std::slice::from_ref(&evil)),
                zip(&[stored("a.pdf", PDF)]),
            ]
            .concat(),
            "pe",
            "two archives",
        ),
        (
            [
                zip(&[stored("a.pdf", PDF)]),
                zip(std::slice::from_ref(&evil)),
            ]
            .concat(),
            "pe",
            "the other way round",
        ),
        (
            [b"MM\0\x2a junk".to_vec(), zip(std::slice::from_ref(&evil))].concat(),
            "pe",
            "something in front",
        ),
        (
            zip(std::slice::from_ref(&evil))[..100].to_vec(),
            "pe",
            "no directory",
        ),
    ] {
        let labels: Vec<_> = found("a.bin", &content)
            .into_iter()
            .map(|(_, label)| label)
            .collect();
        assert_eq!(labels, [label], "{why}");
    }
    // A name in UTF-8 that some show in place of the other one.
    let mut archive = zip(&[stored("a.pdf", PDF)]);
    let extra = [&b"\x75\x70\x0a\0\x01\0\0\0\0"[..], b"a.exe"].concat();
    archive.splice(35..35, extra.iter().copied());
    archive[28] = 14;
    assert_eq!(found("a.bin", &archive)[0].1, "entry-name");
}

struct File2<'n>(&'n str, &'n str);

impl File2<'_> {
    fn of(&self, file: &samples::File) -> samples::File {
        samples::File {
            name: self.0.to_owned(),
            local_name: self.1.to_owned(),
            ..file.clone()
        }
    }
}

#[test]
fn encrypted_archives_are_a_group() {
    let encrypted = |name| samples::File {
        flags: 1,
        ..deflated(name, &pe())
    };
    let blocking = config(json!({ "blockTypes": ["encrypted-archive"] }));
    let noise = samples::File {
        packed: vec![b'x'; 9000],
        ..encrypted("x")
    };
    let outer = zip(&[deflated("inner.zip", &zip(&[noise]))]);
    let labels = |config: &Config| -> Vec<_> {
        let found = found_with(config, "a.zip", &outer).into_iter();
        found.map(|(name, cause)| (name, cause.label())).collect()
    };
    assert_eq!(labels(&blocking), one("a.zip/inner.zip", "zip-encrypted"));
    assert_eq!(labels(&config(json!({}))), [], "passes, as configured");
    assert_eq!(
        found("a.zip", &zip(&[encrypted("x.exe")])),
        one("a.zip", "entry-name")
    );
}

#[test]
fn what_cannot_be_opened_is_said() {
    let any = config(json!({}));
    let cut = |archive: Vec<u8>| archive[..archive.len() / 2].to_vec();
    let noise: Vec<u8> = (0..20_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    let lzma = samples::File {
        method: 14,
        local_method: 14,
        ..stored("a", PDF)
    };
    for (content, why) in [
        (zip(&[lzma]), Unseen::Method(14)),
        (zip(&[packed("a", vec![0xff; 50])]), Unseen::Corrupt),
        (cut(zip(&[deflated("a", &noise)])), Unseen::Corrupt),
        (cut(gzip(&noise)), Unseen::Corrupt),
        (cut(tar(&[("a", &noise)])), Unseen::Corrupt),
        (overlapping(3, &zeros(1)), Unseen::Overlap),
    ] {
        assert_eq!(unseen(&any, &content), Some(why));
    }
    let found = found_with(
        &any,
        "a.zip",
        &zip(&[packed("x", vec![0xff; 50]), deflated("e", &pe())]),
    );
    assert_eq!(
        found.len(),
        1,
        "what is damaged does not hide what is forbidden"
    );
    assert_eq!(found[0].1.label(), "pe");
}

#[test]
fn every_limit_is_kept() {
    let files: Vec<_> = (0..20).map(|n| deflated(&n.to_string(), PDF)).collect();
    let nested = (0..4).fold(PDF.to_vec(), |inner, _| zip(&[deflated("i", &inner)]));
    let (large, mixed) = (
        vec![b'x'; 3 * MIB],
        zip(&[deflated("i", &vec![0_u8; 2 * MIB])]),
    );
    for (limits, content, why) in [
        (
            json!({ "entriesMax": 19 }),
            zip(&files),
            Unseen::Entries(19),
        ),
        (json!({ "depthMax": 3 }), nested.clone(), Unseen::Depth(3)),
        (
            json!({ "expandedMax": 2_000_000 }),
            gzip(&large),
            Unseen::Expanded(2_000_000),
        ),
        (
            json!({ "expandedMax": 2_000_000 }),
            zip(&[stored("x", &large)]),
            Unseen::Expanded(2_000_000),
        ),
        (
            json!({ "heldMax": 100_000 }),
            zip(&[
                stored("a", b""),
                deflated("i", &zip(&[stored("x", &large)])),
            ]),
            Unseen::Held(100_000),
        ),
        (
            json!({ "ratioMax": 100 }),
            zip(&[packed("z", zeros(20))]),
            Unseen::Ratio(100),
        ),
    ] {
        let config = config(json!({ "archives": limits }));
        assert_eq!(unseen(&config, &content), Some(why));
    }
    let timeless = config(json!({ "archives": { "timeMs": 1 } }));
    let past = Budget::until(timeless.settings.archives, std::time::Instant::now());
    let looked = look(&message("a.zip", &mixed), &timeless, Some(&past));
    assert_eq!(looked.findings[0].cause, Cause::Unseen(Unseen::Time(1)));
    assert_eq!(
        unseen(
            &config(json!({ "archives": { "depthMax": 4, "entriesMax": 20 } })),
            &nested
        ),
        None
    );
    // Not held, and not an archive: it only passes by.
    let small_room = config(json!({ "archives": { "heldMax": 100_000 } }));
    assert_eq!(unseen(&small_room, &gzip(&large)), None);
    let late = [large.clone(), eicar().into_bytes()].concat();
    assert_eq!(
        found_with(&small_room, "a.gz", &gzip(&late))[0].1.label(),
        "eicar"
    );
    let hidden = [large, zip(&[deflated("e", &pe())])].concat();
    assert_eq!(
        unseen(&small_room, &gzip(&hidden)),
        Some(Unseen::Held(100_000))
    );
}

/// The thread of a test has as much stack as one that opens archives.
#[test]
fn the_deepest_nesting_that_can_be_configured_fits_the_stack() {
    let deepest = config(json!({ "archives": { "depthMax": 32 }, "maxNesting": 32 }));
    let nested = (0..8).fold(pe(), |inner, _| {
        let tar = tar(&[("mail.eml", &message("m.bin", &inner))]);
        zip(&[deflated("i.gz", &gzip(&tar))])
    });
    let found = found_with(&deepest, "a.zip", &nested);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1.label(), "pe");
    let deeper = zip(&[stored("i.zip", &nested)]);
    assert_eq!(unseen(&deepest, &deeper), Some(Unseen::Depth(32)));
}

#[test]
fn opening_can_wait_or_be_off() {
    let closed = message("a.zip", &zip(&[deflated("e.bin", &pe())]));
    let Looked {
        findings,
        has_archives,
        leaves,
        ..
    } = look(&closed, &config(json!({})), None);
    assert!(findings.is_empty() && has_archives);
    assert_eq!(leaves.len(), 2);
    let off = config(json!({ "openArchives": false }));
    assert!(inspect(&closed, &off).is_empty());
    assert!(!look(b"Subject: s\r\n\r\nhello\r\n", &config(json!({})), None).has_archives);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_octets_never_panic(start in prop_oneof![
        Just(&b"PK\x03\x04"[..]), Just(&b"PK\x05\x06"[..]), Just(&b"\x1f\x8b\x08"[..]), Just(&b""[..])
    ], octets in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let content = [start, &octets].concat();
        zip::list(&content, 100);
        inspect(&message("a", &content), &config(json!({})));
    }

    /// Whatever is changed in an archive: no panic, and never more than there may be.
    #[test]
    fn mutated_archives_stay_within_their_budget(
        kind in 0..4_usize, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let inner = zip(&[deflated("a", &vec![7; 50_000]), stored("b.pdf", PDF)]);
        let mut content = match kind {
            0 => zip(&[deflated("inner.zip", &inner), stored("i.zip", &inner)]),
            1 => gzip(&tar(&[("inner.zip", &inner), ("b", PDF)])),
            2 => tar(&[("x.gz", &gzip(&inner)), ("b", PDF)]),
            _ => overlapping(20, &zeros(1)),
        };
        for (index, octet) in changes {
            let at = index.index(content.len());
            content[at] = octet;
        }
        content.truncate(content.len() - cut.index(content.len()) / 4);
        let limits = json!({ "archives": { "expandedMax": 300_000, "heldMax": 200_000, "entriesMax": 50, "timeMs": 5000 } });
        let config = config(limits);
        let budget = Budget::new(config.settings.archives);
        look(&message("a", &content), &config, Some(&budget));
        // One read beyond the limit is noticed when it has happened.
        prop_assert!(budget.expanded() <= 300_000 + 200_000);
        prop_assert!(budget.held() == 0);
    }
}
