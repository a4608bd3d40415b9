//! An OCI image of one layer as an archive (image layout 1.0 in a tar), the same octets each time it is made of the same files.
//!
//! Whatever could differ is fixed: times are 0 or `SOURCE_DATE_EPOCH`, owners are numbers, entries are sorted, the gzip header is empty.
//! gzip and sha256sum are programs of the system: this command is not compiled with optimisation, and images are large.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// Who programs run as; nobody on any host.
pub(super) const USER: u32 = 65_532;

/// What is in the layer, by path without a leading slash.
#[derive(Default)]
pub(super) struct Tree {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    owner: u32,
    /// `None` = folder.
    content: Option<Vec<u8>>,
}

/// How it is started, and what it says of itself.
pub(super) struct Settings {
    pub(super) entrypoint: Vec<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// Annotations of the manifest.
    pub(super) annotations: BTreeMap<String, String>,
    /// `NAME:TAG`, under which it is loaded.
    pub(super) reference: String,
    /// Seconds since 1970.
    pub(super) time: u64,
}

/// The archive, and the digest of the image's manifest: what `NAME@sha256:…` means.
pub(super) struct Image {
    pub(super) archive: Vec<u8>,
    pub(super) digest: String,
}

// === impl Tree ===

impl Tree {
    /// A file of root's; its folders come along, readable by all.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.folders_of(path);
        let content = Some(content);
        let entry = Entry {
            mode,
            owner: 0,
            content,
        };
        self.entries.insert(path.to_owned(), entry);
    }

    /// An empty folder.
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u32) {
        self.folders_of(path);
        let entry = Entry {
            mode,
            owner,
            content: None,
        };
        self.entries.insert(path.to_owned(), entry);
    }

    fn folders_of(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let folder = path.get(..at).unwrap_or_default().to_owned();
            self.entries.entry(folder).or_insert(Entry {
                mode: 0o755,
                owner: 0,
                content: None,
            });
        }
    }

    fn tar(&self, time: u64) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            append(&mut tar, path, entry, time)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, entry: &Entry, time: u64) -> Result<()> {
    let content = entry.content.as_deref();
    let mut header = tar::Header::new_ustar();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.into());
    header.set_gid(entry.owner.into());
    header.set_mtime(time);
    header.set_size(content.map_or(0, |content| content.len() as u64));
    let kind = if content.is_some() {
        tar::EntryType::Regular
    } else {
        tar::EntryType::Directory
    };
    header.set_entry_type(kind);
    tar.append_data(&mut header, path, content.unwrap_or_default())
        .with_context(|| path.to_owned())
}

/// Makes the archive.
pub(super) fn image(tree: &Tree, settings: &Settings) -> Result<Image> {
    let layer = tree.tar(settings.time)?;
    let difference = digest(&layer)?;
    let layer = compress(&layer)?;
    let created = timestamp(settings.time);
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": created,
        "config": {
            "User": format!("{USER}:{USER}"),
            "Entrypoint": settings.entrypoint,
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "Labels": settings.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [difference]},
        "history": [{"created": created, "created_by": "cargo xtask images"}],
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config)?,
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer)?],
        "annotations": settings.annotations,
    });
    let manifest = manifest.to_string().into_bytes();
    let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)?;
    let tag = settings
        .reference
        .rsplit_once(':')
        .map_or("latest", |(_, tag)| tag);
    // The second is what containerd names it by; the first is the standard's, and has room for the tag alone.
    if let Some(listed) = listed.as_object_mut() {
        listed.insert(
            "platform".into(),
            json!({"architecture": architecture(), "os": "linux"}),
        );
        listed.insert(
            "annotations".into(),
            json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": settings.reference}),
        );
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    });
    let mut layout = Tree::default();
    layout.file(
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    );
    layout.file("index.json", 0o644, index.to_string().into_bytes());
    let image_digest = digest(&manifest)?;
    for blob in [config, layer, manifest] {
        let path = format!("blobs/{}", digest(&blob)?.replace(':', "/"));
        layout.file(&path, 0o644, blob);
    }
    Ok(Image {
        archive: layout.tar(settings.time)?,
        digest: image_digest,
    })
}

fn descriptor(media_type: &str, blob: &[u8]) -> Result<Value> {
    Ok(json!({"mediaType": media_type, "digest": digest(blob)?, "size": blob.len()}))
}

/// `sha256:` and the hash in hexadecimal.
pub(super) fn digest(octets: &[u8]) -> Result<String> {
    let printed = String::from_utf8(filter("sha256sum", &[], octets)?)?;
    let hash = printed.split_whitespace().next();
    Ok(format!("sha256:{}", hash.context("sha256sum")?))
}

/// Without name and time.
fn compress(octets: &[u8]) -> Result<Vec<u8>> {
    filter("gzip", &["-n", "-6"], octets)
}

/// What a program makes of `octets`.
fn filter(program: &str, arguments: &[&str], octets: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| program.to_owned())?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || stdin.write_all(octets));
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{program}: {}", output.status);
        written.join().ok().context("a thread panicked")??;
        Ok(output.stdout)
    })
}

/// As OCI names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// RFC 3339 of seconds since 1970, by the civil calendar (days from the era of 0000-03-01).
pub(super) fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Tree, Settings) {
        let mut tree = Tree::default();
        tree.file("usr/bin/program", 0o755, b"\x7fELF".repeat(1000));
        tree.file(
            "etc/passwd",
            0o644,
            b"opes:x:65532:65532::/:/none\n".to_vec(),
        );
        tree.folder("tmp", 0o755, 0);
        let settings = Settings {
            entrypoint: vec!["/usr/bin/program".to_owned()],
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            reference: "registry.example.com/opes/program:1.0".to_owned(),
            time: 0,
        };
        (tree, settings)
    }

    #[test]
    fn the_same_files_give_the_same_octets() -> Result<()> {
        let make = || -> Result<Image> {
            let (tree, settings) = example();
            image(&tree, &settings)
        };
        let (one, two) = (make()?, make()?);
        assert_eq!(one.archive, two.archive);
        assert_eq!(one.digest, two.digest);
        let (mut tree, settings) = example();
        tree.file("usr/bin/program", 0o755, b"other".to_vec());
        assert_ne!(image(&tree, &settings)?.digest, one.digest);
        Ok(())
    }

    #[test]
    fn entries_are_sorted_owned_by_numbers_and_without_times() -> Result<()> {
        let (tree, _) = example();
        let tar = tree.tar(0)?;
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut paths = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            assert_eq!(entry.header().mtime()?, 0);
            assert_eq!(entry.header().uid()?, 0);
            assert_eq!(entry.header().username()?, Some(""));
            paths.push(entry.path()?.display().to_string());
        }
        assert_eq!(
            paths,
            [
                "etc",
                "etc/passwd",
                "tmp",
                "usr",
                "usr/bin",
                "usr/bin/program"
            ]
        );
        Ok(())
    }

    #[test]
    fn blobs_are_named_by_what_is_in_them() -> Result<()> {
        let (tree, settings) = example();
        let made = image(&tree, &settings)?;
        let mut archive = tar::Archive::new(made.archive.as_slice());
        let mut blobs = 0;
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.display().to_string();
            let Some(name) = path.strip_prefix("blobs/sha256/") else {
                continue;
            };
            let mut octets = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut octets)?;
            if name.is_empty() || octets.is_empty() {
                continue;
            }
            assert_eq!(digest(&octets)?, format!("sha256:{name}"));
            blobs += 1;
        }
        assert_eq!(blobs, 3);
        Ok(())
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
