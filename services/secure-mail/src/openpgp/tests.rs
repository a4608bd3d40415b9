use pgp::composed::{
    EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder,
};
use proptest::prelude::*;

use super::*;
use crate::keys::pgp::read;

/// A key as `gpg` makes them, in armor.
pub(crate) fn key(name: &str, primary: KeyType, sub: KeyType) -> String {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(sub)
        .can_encrypt(EncryptionCaps::All)
        .build()
        .unwrap();
    let parameters = SecretKeyParamsBuilder::default()
        .key_type(primary)
        .can_certify(true)
        .can_sign(true)
        .primary_user_id(name.to_owned())
        .subkeys(vec![subkey])
        .build()
        .unwrap();
    let key: SignedSecretKey = parameters.generate(OsRng).unwrap();
    key.to_armored_string(ArmorOptions::default()).unwrap()
}

fn ann() -> (Arc<SecretKey>, Arc<Certificate>) {
    let armor = key("Ann <ann@example.org>", KeyType::Ed25519Legacy, curve());
    let mut found = read(armor.as_bytes()).unwrap();
    let secret = found.secrets.pop().unwrap();
    (
        Arc::new(secret),
        Arc::new(found.certificates.pop().unwrap()),
    )
}

fn curve() -> KeyType {
    KeyType::ECDH(pgp::crypto::ecc_curve::ECCCurve::Curve25519Legacy)
}

fn now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    since.as_secs()
}

const SIZE: usize = 1 << 20;

#[test]
fn signed_and_verified_and_a_changed_octet_is_seen() {
    let (secret, public) = ann();
    let armor = sign(b"text\r\n", &secret, now()).unwrap();
    assert!(armor.starts_with("-----BEGIN PGP SIGNATURE-----\r\n"));
    let judged =
        |text: &[u8], keys: &[Arc<Certificate>], at| verify(text, armor.as_bytes(), keys, at);
    let keys = [Arc::clone(&public)];
    assert_eq!(judged(b"text\r\n", &keys, now()), Judgement::Good);
    assert_eq!(judged(b"Text\r\n", &keys, now()), Judgement::Bad);
    assert_eq!(judged(b"text\r\n", &[ann().1], now()), Judgement::Bad);
    // From tomorrow, as it were.
    assert_eq!(judged(b"text\r\n", &keys, now() - 86_400), Judgement::Bad);
}

#[test]
fn encrypted_and_decrypted_with_its_signature() {
    let (secret, public) = ann();
    let (other, _) = ann();
    let keys = [Arc::clone(&public)];
    let armor = encrypt(b"inside".to_vec(), &keys, Some(&secret), now()).unwrap();
    let open = |armor: &str, key: &Arc<SecretKey>, signers: &[Arc<Certificate>], size| {
        decrypt(armor.as_bytes(), &[Arc::clone(key)], signers, size, now())
    };
    let opened = open(&armor, &secret, &keys, SIZE).unwrap();
    assert_eq!(
        (opened.octets.as_slice(), opened.judgement),
        (&b"inside"[..], Judgement::Good)
    );
    let stranger = open(&armor, &secret, &[], SIZE).unwrap();
    assert_eq!(stranger.judgement, Judgement::Bad);
    let error = open(&armor, &other, &keys, SIZE).err();
    assert_eq!(error, Some(DecryptError::NotForUs));
    let unsigned = encrypt(b"inside".to_vec(), &keys, None, now()).unwrap();
    let opened = open(&unsigned, &secret, &keys, SIZE).unwrap();
    assert_eq!(opened.judgement, Judgement::None);
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let (secret, public) = ann();
    let EncryptTo::Subkey(to) = public.encryption_key(now()).unwrap() else {
        panic!("the subkey encrypts");
    };
    let mut builder = MessageBuilder::from_bytes("", vec![0; 64 << 20])
        .seipd_v1(OsRng, SymmetricKeyAlgorithm::AES256);
    builder.compression(pgp::types::CompressionAlgorithm::ZLIB);
    builder.encrypt_to_key(OsRng, &to.key).unwrap();
    let armor = builder
        .to_armored_string(OsRng, ArmorOptions::default())
        .unwrap();
    assert!(armor.len() < SIZE, "it is small: {}", armor.len());
    let opened = decrypt(armor.as_bytes(), &[secret], &[], SIZE, now());
    assert_eq!(opened.err(), Some(DecryptError::Damaged));
}

#[test]
fn a_changed_octet_of_what_is_encrypted_is_seen() {
    let (secret, public) = ann();
    let armor = encrypt(vec![b'x'; 300], &[public], None, now()).unwrap();
    let lines: Vec<&str> = armor.lines().collect();
    let mut noticed = 0;
    for at in 2..lines.len() - 2 {
        let mut lines = lines.clone();
        let changed = lines[at].replacen(char::is_alphabetic, "+", 1);
        lines[at] = &changed;
        let changed = lines.join("\r\n");
        let opened = decrypt(changed.as_bytes(), &[Arc::clone(&secret)], &[], SIZE, now());
        assert!(opened.is_err(), "line {at}");
        noticed += 1;
    }
    assert!(noticed > 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_octets_do_not_panic(octets in proptest::collection::vec(0_u8..=255, 0..400)) {
        let armor = |kind| {
            let lines = crate::sevenbit::lines(&octets);
            format!("-----BEGIN PGP {kind}-----\r\n\r\n{lines}\r\n-----END PGP {kind}-----\r\n")
        };
        for text in [armor("MESSAGE"), armor("SIGNATURE")] {
            prop_assert_ne!(verify(b"x", text.as_bytes(), &[], 0), Judgement::Good);
            let opened = decrypt(text.as_bytes(), &[], &[], SIZE, 0);
            prop_assert!(opened.is_err());
        }
        let opened = decrypt(&octets, &[], &[], SIZE, 0);
        prop_assert!(opened.is_err());
    }
}
