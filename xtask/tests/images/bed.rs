//! A target folder with programs for two platforms, and what reads images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// The image that is made, of the program of the same name.
pub(crate) const IMAGE: &str = "opes-normalizer";

/// As OCI names it, as ELF numbers it, and its loader.
pub(crate) const PLATFORMS: &[(&str, u16, &str)] = &[
    ("amd64", 62, "lib64/ld-linux-x86-64.so.2"),
    ("arm64", 183, "lib/ld-linux-aarch64.so.1"),
];

const FOREIGN: &str = include_str!("../../src/images/node/arm64.s");

/// Longest time for any program, seconds.
const PATIENCE: &str = "120";

/// See the module.
pub(crate) struct Bed {
    folder: TempDir,
}

/// An unpacked OCI layout.
pub(crate) struct Layout {
    folder: PathBuf,
    index: Value,
}

/// A program of the system, with a deadline.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, name]);
    command
}

/// What it prints; an error has what it complained of.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// Files of a new private key and its public one.
pub(crate) fn key(bed: &Bed, name: &str) -> Result<(String, PathBuf)> {
    let (private, public) = (bed.path(name), bed.path(&format!("{name}.pub")));
    let curve = ["genpkey", "-algorithm", "EC", "-pkeyopt"];
    let curve = tool("openssl")
        .args(curve)
        .args(["ec_paramgen_curve:P-256", "-out"])
        .arg(&private)
        .output()?;
    ensure!(curve.status.success());
    let mut half = tool("openssl");
    half.args(["pkey", "-pubout", "-in"]).arg(&private);
    output(half.arg("-out").arg(&public))?;
    Ok((private.display().to_string(), public))
}

// === impl Bed ===

impl Bed {
    pub(crate) fn new() -> Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "the foreign platform of these tests is arm64"
        );
        let bed = Self {
            folder: tempfile::tempdir()?,
        };
        for folder in ["release", "aarch64-unknown-linux-gnu/release"] {
            std::fs::create_dir_all(bed.target().join(folder))?;
        }
        let native = bed.target().join("release").join(IMAGE);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_xtask"), native)?;
        let (text, object) = (bed.path("foreign.s"), bed.path("foreign.o"));
        std::fs::write(&text, FOREIGN)?;
        output(
            tool("aarch64-linux-gnu-as")
                .arg(text)
                .arg("-o")
                .arg(&object),
        )?;
        output(
            tool("aarch64-linux-gnu-ld")
                .arg(object)
                .args(["--dynamic-linker", "/lib/ld-linux-aarch64.so.1"])
                .args([
                    "--allow-shlib-undefined",
                    "/usr/aarch64-linux-gnu/lib/libc.so.6",
                ])
                .arg("-o")
                .arg(bed.foreign_program()),
        )?;
        Ok(bed)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("target")
    }

    pub(crate) fn foreign_program(&self) -> PathBuf {
        let release = self.target().join("aarch64-unknown-linux-gnu/release");
        release.join(IMAGE)
    }

    /// `cargo xtask images` for both platforms; what it says.
    pub(crate) fn images(&self, out: &Path, more: &[&str]) -> Result<String> {
        self.images_with(out, more, ("NOTHING", ""))
    }

    /// As [`Self::images`], with a variable.
    pub(crate) fn images_with(
        &self,
        out: &Path,
        more: &[&str],
        variable: (&str, &str),
    ) -> Result<String> {
        let mut command = tool(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(["images", "--no-build", "--out"])
            .arg(out)
            .args(["--target", "aarch64-unknown-linux-gnu"])
            .args(["--target", "x86_64-unknown-linux-gnu"])
            .args(more)
            .arg(IMAGE)
            .env("CARGO_TARGET_DIR", self.target())
            .env(variable.0, variable.1);
        Ok(String::from_utf8(output(&mut command)?)?)
    }

    /// Archives unpacked one over the other.
    pub(crate) fn layout(&self, archives: &[&Path]) -> Result<Layout> {
        let to = self.path("layout");
        std::fs::create_dir_all(&to)?;
        for archive in archives {
            output(tool("tar").arg("-xf").arg(archive).arg("-C").arg(&to))?;
        }
        Layout::open(&to)
    }

    /// Path of each file of a layer, with its machine if it is a program or library.
    pub(crate) fn unpack(
        &self,
        layout: &Layout,
        layer: &Value,
    ) -> Result<BTreeMap<String, Option<u16>>> {
        let to = tempfile::tempdir_in(self.folder.path())?;
        let mut unpack = tool("tar");
        unpack.arg("-xzf").arg(layout.path(layer)?);
        output(unpack.arg("--no-same-owner").arg("-C").arg(to.path()))?;
        let listed = output(tool("find").arg(to.path()).args(["-type", "f"]))?;
        let mut files = BTreeMap::new();
        for path in String::from_utf8(listed)?.lines() {
            let octets = std::fs::read(path)?;
            let machine = octets.starts_with(b"\x7fELF").then(|| octets.get(18..20));
            let machine = machine.flatten().and_then(|it| it.try_into().ok());
            let path = Path::new(path).strip_prefix(to.path())?;
            files.insert(path.display().to_string(), machine.map(u16::from_le_bytes));
        }
        Ok(files)
    }

    /// Is this the signature (base64) of the file?
    pub(crate) fn verify(&self, public: &Path, file: &Path, signature: &str) -> Result<()> {
        let (text, binary) = (self.path("signature.b64"), self.path("signature"));
        std::fs::write(&text, signature)?;
        output(
            tool("openssl")
                .args(["base64", "-d", "-A", "-in"])
                .arg(text)
                .arg("-out")
                .arg(&binary),
        )?;
        let mut verify = tool("openssl");
        verify.args(["dgst", "-sha256", "-verify"]).arg(public);
        output(verify.arg("-signature").arg(binary).arg(file))?;
        Ok(())
    }
}

// === impl Layout ===

impl Layout {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let index = std::fs::read(folder.join("index.json"))?;
        Ok(Self {
            folder: folder.to_owned(),
            index: serde_json::from_slice(&index)?,
        })
    }

    fn entries(&self) -> impl Iterator<Item = &Value> {
        self.index["manifests"].as_array().into_iter().flatten()
    }

    /// The descriptor of this name.
    pub(crate) fn entry(&self, tag: &str) -> Result<Value> {
        let entry = self.entries().find(|entry| tag_of(entry) == Some(tag));
        entry
            .cloned()
            .with_context(|| format!("no {tag} in {}", self.index))
    }

    /// The descriptor, if there is only one: `ctr` takes each for an image.
    pub(crate) fn only_entry(&self) -> Result<Value> {
        let entries: Vec<_> = self.entries().collect();
        ensure!(entries.len() == 1, "{}", self.index);
        Ok(entries[0].clone())
    }

    pub(crate) fn path(&self, descriptor: &Value) -> Result<PathBuf> {
        let digest = descriptor["digest"].as_str().context("no digest")?;
        Ok(self.folder.join("blobs").join(digest.replace(':', "/")))
    }

    pub(crate) fn blob(&self, descriptor: &Value) -> Result<Vec<u8>> {
        let path = self.path(descriptor)?;
        let blob = std::fs::read(&path).with_context(|| path.display().to_string())?;
        ensure!(descriptor["size"] == blob.len(), "{descriptor}: size");
        Ok(blob)
    }

    pub(crate) fn json(&self, descriptor: &Value) -> Result<Value> {
        Ok(serde_json::from_slice(&self.blob(descriptor)?)?)
    }
}

fn tag_of(entry: &Value) -> Option<&str> {
    entry["annotations"]["org.opencontainers.image.ref.name"].as_str()
}
