use opes_mime::Rope;
use pgp::composed::KeyType;
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::openpgp::tests::key;

/// A folder with OpenPGP keys of Ann and Bob.
fn keys() -> (Arc<Keys>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ann@example.org", "bob@example.com"] {
        let curve = KeyType::ECDH(pgp::crypto::ecc_curve::ECCCurve::Curve25519Legacy);
        let armor = key(name, KeyType::Ed25519Legacy, curve);
        std::fs::write(folder.path().join(format!("{name}.asc")), armor).unwrap();
    }
    let json = serde_json::json!({ "keys": folder.path() });
    let keys = Keys::read(&Config::from_json(&json).unwrap()).unwrap();
    (Arc::new(keys), folder)
}

fn job(keys: &Arc<Keys>, octets: &[u8], policy: &str) -> Job {
    Job {
        octets: Bytes::copy_from_slice(octets),
        sender: "ann@example.org".to_owned(),
        recipients: vec!["bob@example.com".to_owned()],
        policy: Arc::new(Policy::from_json(policy).unwrap()),
        keys: Arc::clone(keys),
        size_max: 1 << 20,
        now: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
        header: "X-Secure-Mail".to_owned(),
    }
}

fn done(job: &Job) -> Done {
    operate(job).unwrap()
}

/// The message that comes out for those of the first step.
fn message(job: &Job) -> Vec<u8> {
    let mut steps = done(job).steps;
    let pieces = steps.remove(0).pieces.unwrap();
    Rope::from_pieces(pieces).flatten(&job.octets)
}

const MAIL: &[u8] = b"From: ann@example.org\r\nTo: bob@example.com\r\nSubject: s\r\n\r\nhello\r\n";
const SIGN: &str = r#"{"operation":"sign","format":"openpgp"}"#;
const VERIFY: &str = r#"{"operation":"verify"}"#;
const ENCRYPT: &str = r#"{"operation":"encrypt","format":"openpgp","sign":true}"#;
const DECRYPT: &str = r#"{"operation":"decrypt"}"#;

#[test]
fn a_signature_is_good_until_something_changes() {
    let (keys, _folder) = keys();
    let signed = message(&job(&keys, MAIL, SIGN));
    let finding = |octets: &[u8]| done(&job(&keys, octets, VERIFY)).steps.remove(0).finding;
    assert_eq!(
        finding(&signed).signature,
        Some(Signature::Good("ann@example.org".to_owned()))
    );
    let text = String::from_utf8(signed).unwrap();
    for (from, to) in [
        ("hello", "hellO"),
        ("From: ann@example.org", "From: bob@example.com"),
        ("From: ann", "From: bob@example.com\r\nFrom: ann"),
        ("MIME-Version", "Content-Type: text/html\r\nMIME-Version"),
        // Where some readers end the header.
        ("MIME-Version", "no field\r\nMIME-Version"),
        ("MIME-Version", " \r\nMIME-Version"),
        ("boundary=", "boundary=other; boundary="),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        let finding = finding(changed.as_bytes());
        assert!(finding.failure.is_some(), "{from}: {finding:?}");
    }
    let by_nobody = text.replace("ann@example.org", "eve@example.org");
    let unchecked = finding(by_nobody.as_bytes());
    assert_eq!(unchecked.signature, Some(Signature::Unchecked));
    assert_eq!(unchecked.failure.unwrap().0, Failure::MissingKey);
}

#[test]
fn encrypted_there_and_decrypted_back() {
    let (keys, _folder) = keys();
    let encrypted = message(&job(&keys, MAIL, ENCRYPT));
    let text = String::from_utf8(encrypted.clone()).unwrap();
    assert!(
        !text.contains("hello") && text.contains("Subject: s\r\n"),
        "{text}"
    );
    let back = job(&keys, &encrypted, DECRYPT);
    let step = done(&back).steps.remove(0);
    assert_eq!(
        step.finding.signature,
        Some(Signature::Good("ann@example.org".to_owned()))
    );
    let opened = String::from_utf8(message(&back)).unwrap();
    assert!(opened.ends_with("\r\n\r\nhello\r\n"), "{opened}");
}

#[test]
fn a_signature_inside_is_not_good_where_readers_differ() {
    let (keys, _folder) = keys();
    let signature = |octets: &[u8]| {
        let step = done(&job(&keys, octets, DECRYPT)).steps.remove(0);
        assert!(step.pieces.is_some(), "{:?}", step.finding);
        step.finding.signature
    };
    // Outside: some readers end the header there, and see another From below.
    let encrypted = String::from_utf8(message(&job(&keys, MAIL, ENCRYPT))).unwrap();
    let outside = encrypted.replacen("MIME-Version", "no field\r\nMIME-Version", 1);
    assert_ne!(outside, encrypted);
    assert_eq!(signature(outside.as_bytes()), Some(Signature::Bad));
    // Inside.
    let fields = b"Content-Type: text/html; charset=utf-8; charset=utf-7\r\n";
    let odd = [&fields[..], MAIL].concat();
    let inside = message(&job(&keys, &odd, ENCRYPT));
    assert_eq!(signature(&inside), Some(Signature::Bad));
    let good = Some(Signature::Good("ann@example.org".to_owned()));
    assert_eq!(signature(encrypted.as_bytes()), good);
}

/// The same for S/MIME, with a certificate of Ann.
fn smime_keys() -> (Arc<Keys>, tempfile::TempDir) {
    let made = crate::smime::tests::made().folder;
    let folder = made.path().join("keys");
    std::fs::create_dir(&folder).unwrap();
    for name in ["ann.crt", "ann.key"] {
        let to = folder.join(format!("{name}.pem"));
        std::fs::copy(made.path().join(name), to).unwrap();
    }
    let anchors = made.path().join("ca.crt");
    let json = serde_json::json!({ "keys": folder, "trustAnchors": anchors });
    let keys = Keys::read(&Config::from_json(&json).unwrap()).unwrap();
    (Arc::new(keys), made)
}

#[test]
fn what_cbc_encrypts_is_opened_only_where_readers_agree_on_its_signature() {
    let (keys, _folder) = smime_keys();
    let job = |octets: &[u8], policy| Job {
        recipients: vec!["ann@example.org".to_owned()],
        ..job(&keys, octets, policy)
    };
    let policy = r#"{"operation":"encrypt","format":"smime","sign":true}"#;
    let encrypted = String::from_utf8(message(&job(MAIL, policy))).unwrap();
    let opened = |octets: &str| done(&job(octets.as_bytes(), DECRYPT)).steps.remove(0);
    let good = opened(&encrypted);
    assert_eq!(
        good.finding.signature,
        Some(Signature::Good("ann@example.org".to_owned()))
    );
    assert!(good.pieces.is_some());
    let odd = encrypted.replacen("MIME-Version", "no field\r\nMIME-Version", 1);
    assert_ne!(odd, encrypted);
    let bad = opened(&odd);
    assert!(bad.pieces.is_none());
    assert_eq!(bad.finding.failure.unwrap().0, Failure::CannotDecrypt);
}

#[test]
fn nobody_gets_a_message_opened_that_was_made_for_another() {
    let (keys, _folder) = keys();
    let encrypted = message(&job(&keys, MAIL, ENCRYPT));
    let mut back = job(&keys, &encrypted, DECRYPT);
    back.recipients = vec!["ann@example.org".into(), "bob@example.com".into()];
    let steps = done(&back).steps;
    assert_eq!(steps.len(), 2);
    assert!(steps[0].pieces.is_none() && steps[1].pieces.is_some());
    assert_eq!(
        steps[0].finding.failure.as_ref().unwrap().0,
        Failure::MissingKey
    );
}

#[test]
fn who_is_not_named_gets_a_message_of_their_own() {
    let (keys, _folder) = keys();
    let mut to = job(&keys, MAIL, ENCRYPT);
    to.recipients = ["bob@example.com", "ann@example.org", "carol@example.net"]
        .map(str::to_owned)
        .to_vec();
    let steps = done(&to).steps;
    let of: Vec<_> = steps.iter().map(|step| step.recipients.join(",")).collect();
    assert_eq!(
        of,
        ["bob@example.com", "ann@example.org", "carol@example.net"]
    );
    assert!(steps[2].pieces.is_none(), "Carol has no key");
    assert_eq!(steps[2].finding.label, "missing-key");
}

#[test]
fn cms_that_protects_nothing_counts_as_plain() {
    use crate::asn1::{CONTEXT_0, INTEGER, OID, SEQUENCE, container, tlv};

    let (keys, _folder) = keys();
    let mail = |id: &[u8]| {
        let data = container(SEQUENCE, &[&tlv(INTEGER, &[0])]);
        let cms = container(SEQUENCE, &[&tlv(OID, id), &tlv(CONTEXT_0, &data)]);
        let lines = crate::sevenbit::lines(&cms);
        let fields = "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64";
        format!("From: ann@example.org\r\nTo: bob@example.com\r\n{fields}\r\n\r\n{lines}\r\n")
    };
    let label = |mail: &str, policy| {
        let step = done(&job(&keys, mail.as_bytes(), policy)).steps.remove(0);
        (step.finding.label, step.pieces.is_some())
    };
    // id-ct-compressedData: a reader unpacks it without a key.
    let compressed = mail(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 16, 1, 9]);
    assert_eq!(label(&compressed, ENCRYPT), ("encrypted", true));
    assert_eq!(label(&compressed, SIGN), ("signed", true));
    assert_eq!(label(&compressed, VERIFY), ("unsigned", false));
    assert_eq!(label(&compressed, DECRYPT), ("not-encrypted", false));
    let enveloped = mail(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3]);
    assert_eq!(label(&enveloped, ENCRYPT), ("protected-already", false));
    assert_eq!(label(&enveloped, SIGN), ("protected-already", false));
    assert_eq!(label(&enveloped, VERIFY), ("encrypted", false));
}

#[test]
fn a_forged_field_is_seen() {
    let (keys, _folder) = keys();
    let forged = [b"X-Secure-Mail: verified\r\n", MAIL].concat();
    assert!(done(&job(&keys, &forged, VERIFY)).forged);
    assert!(!done(&job(&keys, MAIL, VERIFY)).forged);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn hostile_mail_does_not_panic(
        kind in 0_usize..6,
        junk in proptest::collection::vec(0_u8..=255, 0..300),
        cut in 0_usize..4000,
    ) {
        let (keys, _folder) = keys();
        let head = [
            "Content-Type: multipart/signed; boundary=b; protocol=\"application/pgp-signature\"\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\n",
            "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\n",
            "Content-Type: multipart/encrypted; boundary=b\r\n\r\n--b\r\nContent-Type: application/pgp-encrypted\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\n",
            "Content-Type: application/pkcs7-mime\r\n\r\n",
            "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n",
            "",
        ][kind];
        let mut hostile = format!("From: ann@example.org\r\n{head}").into_bytes();
        hostile.extend_from_slice(&junk);
        let encrypted = message(&job(&keys, MAIL, ENCRYPT));
        let cut = encrypted[..cut.min(encrypted.len())].to_vec();
        for octets in [hostile, junk, cut] {
            for policy in [SIGN, VERIFY, ENCRYPT, DECRYPT, r#"{"operation":"dkimSign"}"#] {
                let job = job(&keys, &octets, policy);
                for step in operate(&job).map_or_else(|_| Vec::new(), |done| done.steps) {
                    let size = step.pieces.map_or(0, |pieces| Rope::from_pieces(pieces).len());
                    prop_assert!(size < 20_000 + 4 * octets.len() as u64);
                }
            }
        }
    }
}
