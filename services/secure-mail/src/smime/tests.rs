use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::keys::x509::{Anchors, Identity, Loose, Recipient};
use crate::policy::Cipher;

/// An authority, and Ann's certificate and key from it, made by `openssl`: `ca.crt`, `ann.crt` and `ann.key`.
pub(crate) struct Made {
    pub(crate) folder: tempfile::TempDir,
    anchors: Anchors,
    identity: Arc<Identity>,
    recipient: Arc<Recipient>,
}

fn openssl(folder: &std::path::Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn made() -> Made {
    made_for("/CN=Ann", "subjectAltName=email:Ann@example.org")
}

fn made_for(subject: &str, name: &str) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    std::fs::write(
        at.join("ext"),
        format!(
            "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=emailProtection\n\
             {name}\nsubjectKeyIdentifier=hash\n"
        ),
    )
    .unwrap();
    openssl(
        at,
        &[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt",
            "-subj", "/CN=CA", "-days", "2",
        ],
    );
    openssl(
        at,
        &[
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "ann.key", "-out", "ann.csr",
            "-subj", subject,
        ],
    );
    openssl(
        at,
        &[
            "x509",
            "-req",
            "-in",
            "ann.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            "ann.crt",
            "-days",
            "1",
            "-extfile",
            "ext",
        ],
    );
    let read = |name: &str| std::fs::read(at.join(name)).unwrap();
    let mut loose = Loose::default();
    loose.add(&read("ann.crt")).unwrap();
    loose.add(&read("ann.key")).unwrap();
    let (mut recipients, mut identities) = loose.matched();
    let anchors = Anchors::from_pem(&read("ca.crt")).unwrap();
    Made {
        folder,
        anchors,
        identity: Arc::new(identities.pop().unwrap()),
        recipient: Arc::new(recipients.pop().unwrap()),
    }
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn there_and_back() {
    let made = made();
    let cms = sign(b"text", &made.identity, now()).unwrap();
    let judge = |text: &[u8], anchors: &Anchors, at| verify(&cms, Some(text), anchors, at);
    let good = Verified::Good {
        addresses: vec!["ann@example.org".to_owned()],
        content: None,
    };
    assert_eq!(judge(b"text", &made.anchors, now()), good);
    for (text, anchors, at) in [
        (&b"Text"[..], &made.anchors, now()),
        (b"text", &Anchors::default(), now()),
        (b"text", &made.anchors, now() + 3 * 86_400),
    ] {
        let bad = judge(text, anchors, at);
        assert!(matches!(bad, Verified::Bad(_)), "{bad:?}");
    }
    for (cipher, authenticated) in [(Cipher::Aes256Cbc, false), (Cipher::Aes256Gcm, true)] {
        let (cms, _) = encrypt(b"inside".to_vec(), &[Arc::clone(&made.recipient)], cipher).unwrap();
        let content = decrypt(&cms, &[Arc::clone(&made.identity)]).unwrap();
        assert_eq!(content.octets, b"inside");
        assert_eq!(content.authenticated, authenticated);
        assert_eq!(decrypt(&cms, &[]).unwrap_err(), DecryptError::NotForUs);
    }
}

#[test]
fn an_address_in_the_subject_counts_in_the_folder_and_not_in_a_signature() {
    // An authority may be bound to other addresses, and that is checked for alternative names only.
    let made = made_for(
        "/CN=Ann/emailAddress=ann@example.org",
        "certificatePolicies=1.2.3.4",
    );
    assert_eq!(made.recipient.addresses, ["ann@example.org"]);
    let cms = sign(b"text", &made.identity, now()).unwrap();
    let found = verify(&cms, Some(b"text"), &made.anchors, now());
    let Verified::Good { addresses, .. } = found else {
        panic!("{found:?}");
    };
    assert!(addresses.is_empty(), "{addresses:?}");
}

#[test]
fn what_openssl_makes_in_other_ways_is_read() {
    let made = made();
    let at = made.folder.path();
    std::fs::write(at.join("text"), "text").unwrap();
    let read = |name: &str| std::fs::read(at.join(name)).unwrap();
    // Indefinite lengths and pieces, not detached, with PSS and a key identifier.
    for extra in [
        &["-stream"][..],
        &["-keyid"],
        &[
            "-keyopt",
            "rsa_padding_mode:pss",
            "-keyopt",
            "rsa_pss_saltlen:32",
        ],
    ] {
        let mut arguments = vec![
            "cms",
            "-sign",
            "-binary",
            "-nodetach",
            "-in",
            "text",
            "-signer",
            "ann.crt",
            "-inkey",
            "ann.key",
            "-outform",
            "DER",
            "-out",
            "out",
        ];
        arguments.extend(extra);
        openssl(at, &arguments);
        let found = verify(&read("out"), None, &made.anchors, now());
        let Verified::Good { content, .. } = found else {
            panic!("{extra:?}: {found:?}");
        };
        assert_eq!(content.as_deref(), Some(&b"text"[..]));
    }
    for extra in [
        &["-stream"][..],
        &["-keyid"],
        &["-aes-128-cbc"],
        &["-aes-256-gcm"],
        &[
            "-keyopt",
            "rsa_padding_mode:oaep",
            "-keyopt",
            "rsa_oaep_md:sha256",
        ],
        &["-keyopt", "rsa_padding_mode:oaep"],
    ] {
        let mut arguments = vec![
            "cms", "-encrypt", "-binary", "-in", "text", "-outform", "DER", "-out", "out",
        ];
        let (ciphers, options): (Vec<&str>, Vec<&str>) =
            extra.iter().partition(|option| option.starts_with("-aes"));
        // What OpenSSL 3.0 takes by itself is 3DES, which is refused.
        arguments.push(ciphers.first().copied().unwrap_or("-aes-256-cbc"));
        arguments.extend(["-recip", "ann.crt"]);
        arguments.extend(options);
        openssl(at, &arguments);
        let found = decrypt(&read("out"), &[Arc::clone(&made.identity)]);
        assert_eq!(found.unwrap().octets, b"text", "{extra:?}");
    }
}

#[test]
fn no_octet_can_be_changed_unseen() {
    let made = made();
    let (cms, _) = encrypt(
        b"inside".to_vec(),
        &[Arc::clone(&made.recipient)],
        Cipher::Aes256Gcm,
    )
    .unwrap();
    let signed = sign(b"text", &made.identity, now()).unwrap();
    // The octets and their tag; what says how to read them is not authenticated.
    for at in (0..cms.len()).rev().take(26) {
        let mut changed = cms.clone();
        changed[at] ^= 1;
        assert!(
            decrypt(&changed, &[Arc::clone(&made.identity)]).is_err(),
            "octet {at}"
        );
    }
    let mut seen = 0;
    for at in (0..signed.len()).step_by(7) {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        let found = verify(&changed, Some(b"text"), &made.anchors, now());
        seen += usize::from(!matches!(found, Verified::Good { .. }));
    }
    // Some octets say nothing, such as a version; a certificate that is not needed is none of them here.
    assert!(seen > signed.len() / 8, "{seen}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn hostile_octets_do_not_panic(octets in proptest::collection::vec(0_u8..=255, 0..300), at in 0_usize..80) {
        let anchors = Anchors::default();
        let good = matches!(verify(&octets, Some(b"x"), &anchors, 0), Verified::Good { .. });
        prop_assert!(!good);
        prop_assert!(decrypt(&octets, &[]).is_err());
        // Inside what looks like the real thing.
        for kind in [oids::SIGNED_DATA, oids::ENVELOPED_DATA, oids::AUTH_ENVELOPED_DATA] {
            let mut cms = sign::content_info(kind, &crate::asn1::tlv(SEQUENCE, &octets));
            let _ = verify(&cms, None, &anchors, 0);
            let _ = decrypt(&cms, &[]);
            if let Some(octet) = cms.get_mut(at) {
                *octet ^= 0x55;
            }
            let _ = verify(&cms, None, &anchors, 0);
            let _ = decrypt(&cms, &[]);
        }
    }
}
