//! OpenPGP certificates and secret keys (RFC 9580 §10): which of their parts may be used, and until when.
//!
//! Self-signatures are checked here, once; what other people certified is not looked at: who may write into the folder vouches for the key.

use std::io::Cursor;

use pgp::composed::{PublicOrSecret, SignedPublicKey, SignedPublicSubKey, SignedSecretKey};
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails as _, SigningKey, Tag};

/// Most parts of one key that are looked at.
const SUBKEYS_MAX: usize = 64;
/// Most names of one key that are looked at.
const NAMES_MAX: usize = 64;
/// Most keys in one file.
const KEYS_MAX: usize = 10_000;

/// What a file holds.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) secrets: Vec<SecretKey>,
}

/// A public key with the names that it binds to itself.
pub(crate) struct Certificate {
    pub(crate) key: SignedPublicKey,
    /// In lower case.
    pub(crate) addresses: Vec<String>,
    components: Vec<Component>,
}

/// A key of ours.
pub(crate) struct SecretKey {
    pub(crate) key: SignedSecretKey,
    /// In lower case.
    pub(crate) addresses: Vec<String>,
    components: Vec<Component>,
    /// Hexadecimal, of the primary key.
    pub(crate) fingerprint: String,
}

/// The primary key or a subkey that may be used for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Component {
    /// `None`: the primary key.
    subkey: Option<usize>,
    created: u64,
    /// Seconds since 1970.
    expires: Option<u64>,
    signs: bool,
    encrypts: bool,
}

/// Everything in an armored file.
pub(crate) fn read(armor: &[u8]) -> Result<Found, String> {
    let mut found = Found::default();
    let text = std::str::from_utf8(armor)
        .map_err(|_| "not in ASCII armor; export it with `gpg --armor`".to_owned())?;
    // One block after the other: the reader below stops at the end of the first.
    for block in blocks(text) {
        let (keys, _headers) = PublicOrSecret::from_reader_many(Cursor::new(block))
            .map_err(|error| error.to_string())?;
        for key in keys {
            match key.map_err(|error| error.to_string())? {
                PublicOrSecret::Public(key) => found.certificates.push(Certificate::new(key)?),
                PublicOrSecret::Secret(key) => {
                    let public = key.to_public_key();
                    let certificate = Certificate::new(public)?;
                    found.secrets.push(SecretKey::new(key, &certificate)?);
                    found.certificates.push(certificate);
                }
            }
            if found.certificates.len() > KEYS_MAX {
                return Err(format!("more than {KEYS_MAX} keys"));
            }
        }
    }
    if found.certificates.is_empty() {
        return Err("no OpenPGP key in it".to_owned());
    }
    Ok(found)
}

fn blocks(text: &str) -> impl Iterator<Item = &str> {
    const START: &str = "-----BEGIN PGP";
    let starts: Vec<_> = text.match_indices(START).map(|(at, _)| at).collect();
    let ends: Vec<_> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts
        .into_iter()
        .zip(ends)
        .filter_map(move |(start, end)| text.get(start..end))
}

// === impl Certificate ===

impl Certificate {
    fn new(key: SignedPublicKey) -> Result<Self, String> {
        let id = format!("{:x}", key.fingerprint());
        let addresses: Vec<String> = names(&key).collect();
        if addresses.is_empty() {
            return Err(format!(
                "key {id} binds no name with an address to itself; add one with `gpg --quick-add-uid`"
            ));
        }
        let components = components(&key);
        Ok(Self {
            key,
            addresses,
            components,
        })
    }

    /// The subkey that messages are encrypted to now: the newest that may be used; `None`: expired, revoked, or made for something else.
    pub(crate) fn encryption_key(&self, now: u64) -> Option<EncryptTo<'_>> {
        let component = newest(&self.components, now, |component| component.encrypts)?;
        match component.subkey {
            None => Some(EncryptTo::Primary(&self.key)),
            Some(index) => self.key.public_subkeys.get(index).map(EncryptTo::Subkey),
        }
    }

    /// Calls `check` with each part that may have signed at `signed`, and may still be used now.
    pub(crate) fn any_signer(&self, now: u64, mut check: impl FnMut(Signer<'_>) -> bool) -> bool {
        let signers = self.components.iter().filter(|c| c.signs && c.valid(now));
        let mut parts = signers.filter_map(|component| match component.subkey {
            None => Some(Signer::Primary(&self.key)),
            Some(index) => self.key.public_subkeys.get(index).map(Signer::Subkey),
        });
        parts.any(&mut check)
    }
}

/// What a session key is encrypted to.
pub(crate) enum EncryptTo<'k> {
    /// Rare: a key that does everything.
    Primary(&'k SignedPublicKey),
    /// As usual.
    Subkey(&'k SignedPublicSubKey),
}

/// What verifies.
pub(crate) enum Signer<'k> {
    Primary(&'k SignedPublicKey),
    Subkey(&'k SignedPublicSubKey),
}

// === impl SecretKey ===

impl SecretKey {
    fn new(key: SignedSecretKey, certificate: &Certificate) -> Result<Self, String> {
        let fingerprint = format!("{:x}", key.primary_key.fingerprint());
        let subkeys = key.secret_subkeys.iter();
        let mut algorithms = std::iter::once(key.primary_key.algorithm())
            .chain(subkeys.clone().map(|subkey| subkey.key.algorithm()));
        if let Some(algorithm) = algorithms.find(|algorithm| !may_be_secret(*algorithm)) {
            return Err(format!(
                "secret key {fingerprint} is {algorithm:?}; RSA, DSA and Elgamal keys are not used here (timing), only elliptic curves are; \
                 make one with `gpg --quick-generate-key ADDRESS ed25519` and `gpg --quick-add-key FINGERPRINT cv25519`"
            ));
        }
        let mut locked = subkeys.map(|subkey| subkey.key.secret_params().is_encrypted());
        if key.primary_key.secret_params().is_encrypted() || locked.any(|locked| locked) {
            return Err(format!(
                "secret key {fingerprint} has a passphrase; export it without one (`gpg --edit-key`, `passwd`): the folder is the secret"
            ));
        }
        Ok(Self {
            addresses: certificate.addresses.clone(),
            components: Self::own_components(&key, certificate),
            key,
            fingerprint,
        })
    }

    /// The certificate's parts, with subkeys counted as `key` has them.
    fn own_components(key: &SignedSecretKey, certificate: &Certificate) -> Vec<Component> {
        let own = |component: &Component| {
            let Some(index) = component.subkey else {
                return Some(*component);
            };
            let print = certificate.key.public_subkeys.get(index)?.fingerprint();
            let mut subkeys = key.secret_subkeys.iter();
            let at = subkeys.position(|subkey| subkey.key.fingerprint() == print)?;
            Some(Component {
                subkey: Some(at),
                ..*component
            })
        };
        certificate.components.iter().filter_map(own).collect()
    }

    /// The part that signs now.
    pub(crate) fn signing_part(&self, now: u64) -> Option<&dyn SigningKey> {
        let component = newest(&self.components, now, |component| component.signs)?;
        match component.subkey {
            None => Some(&self.key.primary_key),
            Some(index) => {
                let subkey = self.key.secret_subkeys.get(index)?;
                Some(&subkey.key)
            }
        }
    }
}

/// What aws-lc-rs is not asked for is done by crates of which RSA is known to leak private keys by timing (RUSTSEC-2023-0071).
const fn may_be_secret(algorithm: PublicKeyAlgorithm) -> bool {
    matches!(
        algorithm,
        PublicKeyAlgorithm::ECDH
            | PublicKeyAlgorithm::ECDSA
            | PublicKeyAlgorithm::EdDSALegacy
            | PublicKeyAlgorithm::X25519
            | PublicKeyAlgorithm::X448
            | PublicKeyAlgorithm::Ed25519
            | PublicKeyAlgorithm::Ed448
    )
}

// === impl Component ===

impl Component {
    fn valid(&self, now: u64) -> bool {
        self.created <= now && self.expires.is_none_or(|expires| now < expires)
    }
}

fn newest(all: &[Component], now: u64, fits: impl Fn(&Component) -> bool) -> Option<Component> {
    let usable = all.iter().filter(|c| fits(c) && c.valid(now));
    // A subkey before the primary key: whoever made one meant it to be used.
    usable
        .max_by_key(|component| (component.subkey.is_some(), component.created))
        .copied()
}

/// The parts that may be used; none if the whole key is revoked or bound to nothing.
fn components(key: &SignedPublicKey) -> Vec<Component> {
    let primary = &key.primary_key;
    let revoked = key.details.revocation_signatures.iter();
    if revoked
        .clone()
        .any(|signature| signature.verify_key(primary).is_ok())
    {
        return Vec::new();
    }
    let Some(binding) = primary_binding(key) else {
        return Vec::new();
    };
    let flags = binding.key_flags();
    let expires = expiry(binding, primary.created_at().as_secs());
    let mut all = vec![Component {
        subkey: None,
        created: u64::from(primary.created_at().as_secs()),
        expires,
        signs: flags.sign(),
        encrypts: flags.encrypt_comms() || flags.encrypt_storage(),
    }];
    for (index, subkey) in key.public_subkeys.iter().enumerate().take(SUBKEYS_MAX) {
        let Some(binding) = subkey_binding(key, subkey) else {
            continue;
        };
        let flags = binding.key_flags();
        let own = expiry(binding, subkey.created_at().as_secs());
        all.push(Component {
            subkey: Some(index),
            created: u64::from(subkey.created_at().as_secs()),
            expires: [own, expires].into_iter().flatten().min(),
            signs: flags.sign() && signs_back(key, subkey, binding),
            encrypts: flags.encrypt_comms() || flags.encrypt_storage(),
        });
    }
    all
}

/// The newest statement of the key about itself.
fn primary_binding(key: &SignedPublicKey) -> Option<&Signature> {
    let direct = key.details.direct_signatures.iter();
    let direct = direct.filter(|signature| signature.verify_key(&key.primary_key).is_ok());
    let users = key.details.users.iter().take(NAMES_MAX);
    let named = users.filter_map(|user| certification(key, user));
    direct
        .chain(named)
        .max_by_key(|signature| created(signature))
}

/// The newest self-certification of a name that is not revoked.
fn certification<'k>(
    key: &SignedPublicKey,
    user: &'k pgp::types::SignedUser,
) -> Option<&'k Signature> {
    let own = |signature: &&Signature| {
        let verified = signature.verify_certification(&key.primary_key, Tag::UserId, &user.id);
        verified.is_ok()
    };
    let newest = user
        .signatures
        .iter()
        .filter(own)
        .max_by_key(|s| created(s))?;
    (newest.typ() != Some(SignatureType::CertRevocation)).then_some(newest)
}

/// The newest binding of a subkey that is not revoked.
fn subkey_binding<'k>(
    key: &SignedPublicKey,
    subkey: &'k SignedPublicSubKey,
) -> Option<&'k Signature> {
    let own = |signature: &&Signature| {
        let verified = signature.verify_subkey_binding(&key.primary_key, &subkey.key);
        verified.is_ok()
    };
    let mut valid: Vec<_> = subkey.signatures.iter().filter(own).collect();
    valid.sort_by_key(|signature| created(signature));
    let revoked = valid
        .iter()
        .any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation));
    let newest = valid.last().copied()?;
    (!revoked && newest.typ() == Some(SignatureType::SubkeyBinding)).then_some(newest)
}

/// A subkey that signs says so itself (RFC 9580 §5.2.1.9), or anybody could claim it.
fn signs_back(key: &SignedPublicKey, subkey: &SignedPublicSubKey, binding: &Signature) -> bool {
    binding.embedded_signature().is_some_and(|back| {
        let verified = back.verify_primary_key_binding(&subkey.key, &key.primary_key);
        verified.is_ok()
    })
}

fn names(key: &SignedPublicKey) -> impl Iterator<Item = String> + '_ {
    let users = key.details.users.iter().take(NAMES_MAX);
    users
        .filter(|user| certification(key, user).is_some())
        .filter_map(|user| address(user.id.id()))
}

/// `Ann <ann@example.org>` or the address alone, in lower case.
fn address(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.trim();
    let bare = match (name.rfind('<'), name.ends_with('>')) {
        (Some(start), true) => name.get(start + 1..name.len() - 1)?,
        _ => name,
    };
    let fits = bare.len() <= 320
        && bare.contains('@')
        && !bare.contains(|c: char| c.is_whitespace() || c.is_control() || "<>,".contains(c));
    fits.then(|| bare.to_ascii_lowercase())
}

fn created(signature: &Signature) -> u32 {
    signature
        .created()
        .map_or(0, pgp::types::Timestamp::as_secs)
}

fn expiry(binding: &Signature, created: u32) -> Option<u64> {
    let seconds = binding.key_expiration_time()?.as_secs();
    (seconds > 0).then(|| u64::from(created) + u64::from(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_names() {
        for (name, expected) in [
            ("Ann (work) <Ann@Example.org>", Some("ann@example.org")),
            ("ann@example.org", Some("ann@example.org")),
            ("Ann", None),
            ("<a b@example.org>", None),
            ("x <y@example.org", None),
        ] {
            assert_eq!(address(name.as_bytes()).as_deref(), expected, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(octets in proptest::collection::vec(0_u8..=255, 0..600)) {
            let _ = address(&octets);
            let _ = read(&octets);
            let mut armor = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n".to_vec();
            armor.extend_from_slice(crate::sevenbit::lines(&octets).as_bytes());
            armor.extend_from_slice(b"\n-----END PGP PUBLIC KEY BLOCK-----\n");
            let _ = read(&armor);
        }
    }
}
