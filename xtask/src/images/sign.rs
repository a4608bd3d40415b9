//! Signatures as cosign documents them: ECDSA over P-256 and SHA-256 of a simple-signing payload that names a digest, in a manifest that
//! is found by the tag `sha256-….sig`, and by OCI 1.1 as a referrer.
//!
//! They go into a layout of their own beside the image's, because they differ each time, and the image's octets must not. It has the
//! index too, and not what that names: unpacked over the image's layout it is one that is whole.
//!
//! openssl(1) signs. It reads the key itself, or from its standard input: the key is in no argument, no output and no archive.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::filter;
use super::oci::{self, Blobs, Descriptor, Image, Settings};

const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// By which cosign finds signatures among referrers.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Before a variable's name in place of a file's, as cosign has it.
const VARIABLE: &str = "env://";
/// Variable with the password of an encrypted key.
const PASSWORD: &str = "OPES_SIGN_PASSWORD";

/// SubjectPublicKeyInfo of a key for ECDSA over P-256, before the point (RFC 5480).
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A private key, by where it is.
pub(super) enum Key {
    File(PathBuf),
    Variable(OsString),
}

// === impl Key ===

impl Key {
    /// `FILE` or `env://VARIABLE`; an error if openssl cannot use it, or it is of another kind.
    pub(super) fn new(word: &str) -> Result<Self> {
        let key = match word.strip_prefix(VARIABLE) {
            Some(name) => Self::Variable(name.into()),
            None => Self::File(std::path::absolute(word)?),
        };
        let public = key.public().with_context(|| {
            format!(
                "--sign {word}: no private key in PEM; `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one, the password of an encrypted one is in {PASSWORD}"
            )
        })?;
        ensure!(
            public.starts_with(P256),
            "--sign {word}: not a key for ECDSA over P-256"
        );
        println!("signed by the key {}", filter::digest(&public)?);
        Ok(key)
    }

    /// Variables that nobody else should see.
    pub(super) fn variables(&self) -> Vec<&OsStr> {
        let mut variables = vec![OsStr::new(PASSWORD)];
        if let Self::Variable(name) = self {
            variables.push(name);
        }
        variables
    }

    /// SubjectPublicKeyInfo, DER.
    fn public(&self) -> Result<Vec<u8>> {
        self.openssl(&["pkey", "-in", "/dev/stdin", "-pubout", "-outform", "DER"])
    }

    /// The signature of a file's octets, DER.
    fn sign(&self, file: &Path) -> Result<Vec<u8>> {
        let file = file.to_str().context("a path that is no text")?;
        self.openssl(&["dgst", "-sha256", "-sign", "/dev/stdin", file])
    }

    /// With the key as standard input. Never asks for a password.
    fn openssl(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let (first, rest) = arguments.split_first().context("no command")?;
        let mut command = Command::new("openssl");
        let password = match std::env::var_os(PASSWORD) {
            Some(_) => format!("env:{PASSWORD}"),
            None => "pass:".to_owned(),
        };
        command.arg(first).args(["-passin", &password]).args(rest);
        match self {
            Self::Variable(name) => {
                let key = std::env::var(name).context("the variable is not set")?;
                // The tool is told where the password is, and needs no key in its environment.
                filter::run(command.env_remove(name), key.as_bytes())
            }
            Self::File(path) => {
                let key = File::open(path)?;
                let output = command.stdin(key).stderr(Stdio::piped()).output();
                let output = output.context("openssl; `apt-get install openssl`")?;
                if !output.status.success() {
                    bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
                }
                Ok(output.stdout)
            }
        }
    }
}

/// The layout with signatures of the index and of every manifest in it, as a tar. `aside` is a path for what is being signed.
pub(super) fn archive(
    key: &Key,
    image: &Image,
    settings: &Settings,
    aside: &Path,
) -> Result<Vec<u8>> {
    let mut blobs = Blobs::default();
    let (descriptor, index) = image.index();
    blobs.add(oci::INDEX, index.to_vec())?;
    let mut entries = vec![entry(descriptor, "imageIndex", settings.tag())];
    // The first is the index's: cosign looks at no other when it verifies a folder.
    for subject in image.everything() {
        let payload = payload(settings.repository(), &subject.digest);
        let payload = payload.to_string().into_bytes();
        fs::write(aside, &payload).with_context(|| aside.display().to_string())?;
        let signature = key.sign(aside);
        fs::remove_file(aside)?;
        let manifest = manifest(&mut blobs, payload, &signature?, subject)?;
        entries.push(entry(&manifest, "sigs", &tag(&subject.digest)));
    }
    blobs.archive(&entries, settings.time)
}

/// What is signed.
fn payload(repository: &str, digest: &str) -> Value {
    json!({
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
}

/// An image whose only layer is what is signed, with the signature beside it.
fn manifest(
    blobs: &mut Blobs,
    payload: Vec<u8>,
    signature: &[u8],
    subject: &Descriptor,
) -> Result<Descriptor> {
    let layer = blobs.add(PAYLOAD, payload)?;
    let config = json!({
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    });
    let signature = STANDARD.encode(signature);
    let layer = layer.annotated([("dev.cosignproject.cosign/signature", signature)]);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "artifactType": ARTIFACT,
        "config": blobs.add_json(oci::CONFIG, &config)?,
        "layers": [layer],
        "subject": subject.plain(),
    });
    blobs.add_json(oci::MANIFEST, &manifest)
}

/// Of a layout's `index.json`, as cosign and others look for it.
fn entry(descriptor: &Descriptor, kind: &str, tag: &str) -> Descriptor {
    descriptor.clone().annotated([
        ("kind", format!("dev.cosignproject.cosign/{kind}")),
        (oci::TAG, tag.to_owned()),
    ])
}

/// Under which the signature of a digest is in a registry.
fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_a_digest_for_a_repository() {
        let payload = payload("registry.example.com/opes/opes-edge", "sha256:ab");
        let expected = r#"{"critical":{"identity":{"docker-reference":"registry.example.com/opes/opes-edge"},"image":{"docker-manifest-digest":"sha256:ab"},"type":"cosign container image signature"},"optional":null}"#;
        assert_eq!(payload.to_string(), expected);
        assert_eq!(tag("sha256:ab"), "sha256-ab.sig");
    }

    #[test]
    fn a_key_that_is_none_gets_the_remedy_and_is_not_shown() -> Result<()> {
        let file = std::env::temp_dir().join(format!("xtask-key-{}", std::process::id()));
        fs::write(&file, "swordfish")?;
        let error = Key::new(file.to_str().context("path")?).err();
        fs::remove_file(&file)?;
        let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("openssl genpkey"), "{error}");
        assert!(!error.contains("swordfish"), "{error}");
        let unset = Key::new("env://OPES_NO_SUCH_KEY").err();
        assert!(unset.is_some_and(|error| format!("{error:#}").contains("not set")));
        Ok(())
    }

    #[test]
    fn a_key_of_another_kind_is_refused() -> Result<()> {
        let file = std::env::temp_dir().join(format!("xtask-ed25519-{}", std::process::id()));
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "ED25519", "-out"])
            .arg(&file)
            .status()?;
        assert!(made.success());
        let error = Key::new(file.to_str().context("path")?).err();
        fs::remove_file(&file)?;
        assert!(error.is_some_and(|error| error.to_string().contains("P-256")));
        Ok(())
    }
}
