use mail_auth::dkim::Canonicalization::{Relaxed, Simple};
use proptest::prelude::*;

use super::*;

fn relaxed(body: &[u8]) -> Vec<u8> {
    body_hash(body, Relaxed, HashAlgorithm::Sha256)
}

/// RFC 6376 §3.4.4, word by word.
fn canonical(body: &[u8]) -> Vec<u8> {
    let text: String = body.iter().map(|octet| char::from(*octet)).collect();
    let lines = text.split("\r\n").map(|line| {
        let reduced = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let space = if line.starts_with([' ', '\t']) {
            " "
        } else {
            ""
        };
        let reduced = reduced.collect::<Vec<_>>().join(" ");
        if reduced.is_empty() {
            reduced
        } else {
            format!("{space}{reduced}")
        }
    });
    let mut lines: Vec<_> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let text: String = lines
        .iter()
        .flat_map(|line| [line.as_str(), "\r\n"])
        .collect();
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}

fn plain_hash(octets: &[u8]) -> Vec<u8> {
    // Simple leaves these octets alone: they end in one line end.
    let hash = HashAlgorithm::Sha256.hash(Simple.canonical_body(octets, 0));
    hash.as_ref().to_vec()
}

#[test]
fn lines_of_white_space_at_the_end_are_empty_lines() {
    for tail in ["\r\n \t\r\n", "\r\n\r\n", "\r\n\t", " \r\n \r\n\r\n \r\n"] {
        let body = format!("a{tail}");
        assert_eq!(relaxed(body.as_bytes()), relaxed(b"a\r\n"), "{tail:?}");
    }
    assert_eq!(relaxed(b" \r\n\t\r\n"), relaxed(b""));
    assert_ne!(relaxed(b"a\r\n \r\nb\r\n"), relaxed(b"a\r\nb\r\n"));
}

/// The reason for [`body_hash`]. When this fails, the library has been mended: take the cut out, and the pin with it (ADR 0018).
#[test]
fn the_library_still_hashes_lines_of_white_space() {
    let theirs = |body: &[u8]| {
        let hash = HashAlgorithm::Sha256.hash(Relaxed.canonical_body(body, 0));
        hash.as_ref().to_vec()
    };
    assert_ne!(
        theirs(b"a\r\n \t\r\n"),
        theirs(b"a\r\n"),
        "mail-auth was mended: see ADR 0018"
    );
}

fn signature(value: &str) -> Signature {
    let tags = "v=1; d=example.org; s=s; b=AAAA; bh=AAAA; ";
    Signature::parse(format!("{tags}{value}\r\n").as_bytes()).unwrap()
}

#[test]
fn what_the_library_would_let_pass() {
    let wrong = |value: &str| objection(&signature(value)).map(|(result, _)| result);
    assert_eq!(wrong("a=rsa-sha256; h=Subject:FROM"), None);
    assert_eq!(wrong("a=rsa-sha1; h=From"), Some("permerror"));
    assert_eq!(wrong("a=rsa-sha256; h=Subject"), Some("permerror"));
    let many = vec!["From"; NAMES_MAX + 1].join(":");
    assert_eq!(wrong(&format!("a=rsa-sha256; h={many}")), Some("policy"));
}

#[test]
fn only_so_many_signatures_are_looked_at() {
    let field =
        "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=From; r=y; b=AAAA; bh=AAAA\r\n";
    let header = format!("{}From: a@example.org\r\n\r\n", field.repeat(20));
    let mut message = AuthenticatedMessage::parse(header.as_bytes()).unwrap();
    assert!(read(&mut message).is_empty());
    assert_eq!(message.dkim_headers.len(), SIGNATURES_MAX);
    assert!(message.dkim_headers.iter().all(|header| !header.header.r));
}

#[tokio::test]
async fn large_bodies_are_hashed_elsewhere_and_alike() {
    let field = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s; h=From; b=AAAA; bh=AAAA\r\n";
    let header = format!("{field}From: a@example.org\r\n\r\n");
    for lines in [10, INLINE_OCTETS_MAX / 8] {
        let body = Bytes::from(b"0123456789\r\n".repeat(lines));
        let mut message = AuthenticatedMessage::parse(header.as_bytes()).unwrap();
        hash(&mut message, body.clone()).await.unwrap();
        let [(.., kept)] = &message.body_hashes[..] else {
            panic!()
        };
        assert_eq!(*kept, relaxed(&body), "{lines}");
    }
}

proptest! {
    #[test]
    fn the_relaxed_body_is_the_rfcs(lines in proptest::collection::vec("[ab \t]{0,6}", 0..8), ended in any::<bool>()) {
        let mut body = lines.join("\r\n");
        if ended {
            body.push_str("\r\n");
        }
        let expected = canonical(body.as_bytes());
        let expected = if expected.is_empty() {
            // Not `simple`, which would add a line end.
            HashAlgorithm::Sha256.hash(Relaxed.canonical_body(b"", 0)).as_ref().to_vec()
        } else {
            plain_hash(&expected)
        };
        prop_assert_eq!(relaxed(body.as_bytes()), expected);
    }

    #[test]
    fn hostile_signatures_cannot_panic(value in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut header = b"From: a@example.org\r\nDKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h=From; b=AA; ".to_vec();
        header.extend_from_slice(&value);
        header.extend_from_slice(b"\r\n\r\n");
        if let Some(mut message) = AuthenticatedMessage::parse(&header) {
            let apart = read(&mut message);
            prop_assert!(apart.len() + message.dkim_headers.len() <= SIGNATURES_MAX);
        }
    }
}
