use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

fn keys(names: &[u8]) -> Keys {
    let of = |name: &u8| hmac::Key::new(hmac::HMAC_SHA256, &[*name; 32]);
    Keys(Source::Own(Arc::new(names.iter().map(of).collect())))
}

const KEY: Key = Key {
    id: [7; ID_OCTETS],
    expires: 2_000_000_000,
};

#[test]
fn a_token_is_good_until_its_second_and_says_so_afterwards() {
    let keys = keys(b"a");
    let token = keys.sign(KEY);
    assert_eq!(token.len(), TOKEN_CHARS);
    assert_eq!(keys.verify(&token, KEY.expires - 1), Ok(KEY));
    let expired = Err(Refusal::Expired(KEY.expires));
    assert_eq!(keys.verify(&token, KEY.expires), expired);
}

#[test]
fn every_change_of_a_token_is_noticed() {
    let keys = keys(b"a");
    let token = keys.sign(KEY);
    for at in 0..token.len() {
        for other in ['A', 'B', 'z', '9', '-', '_', '=', '/'] {
            let mut changed: Vec<char> = token.chars().collect();
            if std::mem::replace(&mut changed[at], other) == other {
                continue;
            }
            let changed: String = changed.into_iter().collect();
            assert_eq!(keys.verify(&changed, 0), Err(Refusal::Unknown), "{changed}");
        }
    }
}

#[test]
fn keys_are_rotated_by_putting_the_new_one_first() {
    let (old, both, new) = (keys(b"a"), keys(b"ba"), keys(b"b"));
    assert_eq!(both.verify(&old.sign(KEY), 0), Ok(KEY));
    assert_eq!(new.verify(&both.sign(KEY), 0), Ok(KEY));
    assert_eq!(new.verify(&old.sign(KEY), 0), Err(Refusal::Unknown));
}

#[test]
fn a_key_is_made_once_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("link.key");
    let token = Keys::own(&path).unwrap().sign(KEY);
    assert_eq!(Keys::own(&path).unwrap().verify(&token, 0), Ok(KEY));
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    std::fs::write(&path, "short\n").unwrap();
    let error = Keys::own(&path).unwrap_err().to_string();
    assert!(
        error.contains("link.key:1") && !error.contains("short"),
        "{error}"
    );
    std::fs::write(&path, "# none\n").unwrap();
    let error = Keys::open(&path).unwrap_err().to_string();
    assert!(error.contains("has no key"), "{error}");
}

proptest! {
    #[test]
    fn what_is_no_token_is_refused(text in "\\PC{0,80}", octets in proptest::collection::vec(any::<u8>(), 37)) {
        let keys = keys(b"a");
        prop_assert_eq!(keys.verify(&text, 0), Err(Refusal::Unknown));
        prop_assert_eq!(keys.verify(&URL_SAFE_NO_PAD.encode(octets), 0), Err(Refusal::Unknown));
    }

    #[test]
    fn every_object_has_a_token(id: [u8; ID_OCTETS], expires in 1..(1_u64 << 40)) {
        let key = Key { id, expires };
        prop_assert_eq!(keys(b"a").verify(&keys(b"a").sign(key), 0), Ok(key));
    }
}
