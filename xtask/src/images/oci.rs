//! An OCI image as an archive (image layout 1.0 in a tar), the same octets each time it is made of the same files.
//!
//! An image is an index, also if it is for one platform: of each platform its manifest, and the list of what is in it as a manifest of its own
//! that has the former as its subject (OCI 1.1). So the digest of the index says everything, and every tool that copies an
//! index copies the lists along; the platform `unknown` keeps nodes from choosing one. They are not listed in the layout's
//! `index.json`, where `ctr images import --digests` takes each entry for an image to unpack.
//!
//! Whatever could differ is fixed: times are 0 or `SOURCE_DATE_EPOCH`, owners are numbers, entries are sorted, the gzip header is empty.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::filter::{compress, digest};
use super::platform::Platform;
use super::tree::Tree;

/// Who programs run as; nobody on any host.
pub(super) const USER: u32 = 65_532;

pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const SPDX: &str = "application/spdx+json";

/// Annotation with a name in a layout.
pub(super) const TAG: &str = "org.opencontainers.image.ref.name";

/// How it is started, and what it says of itself.
pub(super) struct Settings {
    pub(super) entrypoint: Vec<String>,
    /// Labels of the configuration, annotations of index and manifests.
    pub(super) labels: BTreeMap<String, String>,
    /// `NAME:TAG`, under which it is loaded.
    pub(super) reference: String,
    /// Seconds since 1970.
    pub(super) time: u64,
}

/// What it is for one platform.
pub(super) struct Part {
    pub(super) platform: &'static Platform,
    pub(super) tree: Tree,
    /// What is in it (SPDX).
    pub(super) sbom: Option<Vec<u8>>,
}

/// An index with all that it names.
pub(super) struct Image {
    blobs: Blobs,
    index: Descriptor,
    /// What is in the index.
    manifests: Vec<Descriptor>,
}

/// What a blob is called by. Fields are in the order in which Go's types have them, here and in [`Index`]: skopeo of Debian 12
/// writes an index anew when it copies one, and with another order it would be another index.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    pub(super) digest: String,
    size: usize,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<PlatformName>,
}

#[derive(Clone, Serialize)]
struct PlatformName {
    architecture: &'static str,
    os: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// By digest.
#[derive(Default)]
pub(super) struct Blobs(BTreeMap<String, Vec<u8>>);

// === impl Descriptor ===

impl Descriptor {
    /// With these besides.
    pub(super) fn annotated<const N: usize>(mut self, annotations: [(&str, String); N]) -> Self {
        let owned = annotations.map(|(name, value)| (name.to_owned(), value));
        self.annotations.extend(owned);
        self
    }

    /// Without what is said of it in one place.
    pub(super) fn plain(&self) -> Self {
        Self {
            annotations: BTreeMap::new(),
            platform: None,
            ..self.clone()
        }
    }

    fn on(self, os: &'static str, architecture: &'static str) -> Self {
        Self {
            platform: Some(PlatformName { architecture, os }),
            ..self
        }
    }
}

// === impl Index ===

impl<'a> Index<'a> {
    fn new(manifests: &'a [Descriptor], annotations: &'a BTreeMap<String, String>) -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX,
            manifests,
            annotations,
        }
    }
}

// === impl Blobs ===

impl Blobs {
    /// Keeps it and returns its descriptor.
    pub(super) fn add(&mut self, media_type: &str, blob: Vec<u8>) -> Result<Descriptor> {
        let digest = digest(&blob)?;
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.clone(),
            size: blob.len(),
            annotations: BTreeMap::new(),
            platform: None,
        };
        self.0.insert(digest, blob);
        Ok(descriptor)
    }

    /// As [`Self::add`], of JSON.
    pub(super) fn add_json(&mut self, media_type: &str, value: &Value) -> Result<Descriptor> {
        self.add(media_type, value.to_string().into_bytes())
    }

    fn platform(&mut self, part: &Part, settings: &Settings) -> Result<Descriptor> {
        let layer = part.tree.tar(settings.time)?;
        let difference = digest(&layer)?;
        let layer = self.add(LAYER, compress(&layer)?)?;
        let created = timestamp(settings.time);
        let config = json!({
            "architecture": part.platform.architecture,
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
        let config = self.add_json(CONFIG, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": settings.labels,
        });
        self.add_json(MANIFEST, &manifest)
    }

    /// An artifact about `subject`, as OCI 1.1 has them.
    fn sbom(
        &mut self,
        sbom: &[u8],
        subject: &Descriptor,
        settings: &Settings,
    ) -> Result<Descriptor> {
        let nothing = self.add("application/vnd.oci.empty.v1+json", b"{}".to_vec())?;
        let sbom = self.add(SPDX, sbom.to_vec())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": SPDX,
            "config": nothing,
            "layers": [sbom],
            "subject": subject,
            "annotations": {"org.opencontainers.image.created": timestamp(settings.time)},
        });
        self.add_json(MANIFEST, &manifest)
    }

    /// The layout with these entries in its `index.json`, as a tar.
    pub(super) fn archive(&self, entries: &[Descriptor], time: u64) -> Result<Vec<u8>> {
        let mut layout = Tree::default();
        let version = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
        layout.file("oci-layout", 0o644, version);
        let index = serde_json::to_vec(&Index::new(entries, &BTreeMap::new()))?;
        layout.file("index.json", 0o644, index);
        for (digest, blob) in &self.0 {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            layout.file(&path, 0o644, blob.clone());
        }
        layout.tar(time)
    }
}

// === impl Image ===

impl Image {
    /// Of one part for each platform.
    pub(super) fn new(parts: &[Part], settings: &Settings) -> Result<Self> {
        let mut blobs = Blobs::default();
        let (mut images, mut lists) = (Vec::new(), Vec::new());
        for part in parts {
            let manifest = blobs.platform(part, settings)?;
            if let Some(sbom) = &part.sbom {
                let list = blobs.sbom(sbom, &manifest, settings)?;
                lists.push(list.on("unknown", "unknown"));
            }
            images.push(manifest.on("linux", part.platform.architecture));
        }
        images.append(&mut lists);
        let index = serde_json::to_vec(&Index::new(&images, &settings.labels))?;
        Ok(Self {
            index: blobs.add(INDEX, index)?,
            manifests: images,
            blobs,
        })
    }

    pub(super) fn archive(&self, settings: &Settings) -> Result<Vec<u8>> {
        // The second is what containerd names it by; the first is the standard's, and has room for the tag alone.
        let entry = self.index.clone().annotated([
            (TAG, settings.tag().to_owned()),
            ("io.containerd.image.name", settings.reference.clone()),
        ]);
        self.blobs.archive(&[entry], settings.time)
    }

    /// What `NAME@sha256:…` means.
    pub(super) fn digest(&self) -> &str {
        &self.index.digest
    }

    /// Descriptor and octets of the index.
    pub(super) fn index(&self) -> (&Descriptor, &[u8]) {
        let blob = self.blobs.0.get(self.digest());
        (&self.index, blob.map_or(&[], Vec::as_slice))
    }

    /// All that somebody may ask for by digest: the index, then what is in it.
    pub(super) fn everything(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.index).chain(&self.manifests)
    }
}

// === impl Settings ===

impl Settings {
    pub(super) fn tag(&self) -> &str {
        let tag = self.reference.rsplit_once(':').map(|(_, tag)| tag);
        tag.filter(|tag| !tag.contains('/')).unwrap_or("latest")
    }

    /// The reference without its tag.
    pub(super) fn repository(&self) -> &str {
        let suffix = format!(":{}", self.tag());
        self.reference
            .strip_suffix(&suffix)
            .unwrap_or(&self.reference)
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
    use super::super::platform::PLATFORMS;
    use super::*;

    fn settings() -> Settings {
        Settings {
            entrypoint: vec!["/usr/bin/program".to_owned()],
            labels: BTreeMap::new(),
            reference: "registry.example.com:5000/opes/program:1.0".to_owned(),
            time: 0,
        }
    }

    fn example(content: &[u8]) -> Result<Image> {
        let parts = PLATFORMS.iter().map(|platform| {
            let mut tree = Tree::default();
            tree.file("usr/bin/program", 0o755, content.repeat(1000));
            let sbom = Some(platform.architecture.as_bytes().to_vec());
            Part {
                platform,
                tree,
                sbom,
            }
        });
        Image::new(&parts.collect::<Vec<_>>(), &settings())
    }

    fn blob<'a>(image: &'a Image, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        let blob = image.blobs.0.get(digest);
        blob.map_or(&[], Vec::as_slice)
    }

    fn json_of(image: &Image, descriptor: &Value) -> Result<Value> {
        Ok(serde_json::from_slice(blob(image, descriptor))?)
    }

    #[test]
    fn the_same_files_give_the_same_octets() -> Result<()> {
        let (one, two) = (example(b"\x7fELF")?, example(b"\x7fELF")?);
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.archive(&settings())?, two.archive(&settings())?);
        assert_ne!(example(b"other")?.digest(), one.digest());
        Ok(())
    }

    #[test]
    fn each_platform_has_its_list_as_a_referrer_in_the_index() -> Result<()> {
        let image = example(b"\x7fELF")?;
        let index: Value = serde_json::from_slice(image.index().1)?;
        let entries = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
        let of = |entry: &Value| entry["platform"]["architecture"].clone();
        let kinds: Vec<Value> = entries.iter().map(of).collect();
        assert_eq!(kinds, ["amd64", "arm64", "unknown", "unknown"]);
        let (images, lists) = entries.split_at(2);
        for (image_of, list) in images.iter().zip(lists) {
            let manifest = json_of(&image, list)?;
            assert_eq!(manifest["artifactType"], SPDX);
            assert_eq!(manifest["subject"]["digest"], image_of["digest"]);
            assert_eq!(manifest["subject"]["size"], image_of["size"]);
            let config = json_of(&image, &json_of(&image, image_of)?["config"])?;
            assert_eq!(config["architecture"], of(image_of));
            let architecture = of(image_of);
            let expected = architecture.as_str().unwrap_or_default().as_bytes();
            assert_eq!(blob(&image, &manifest["layers"][0]), expected);
        }
        Ok(())
    }

    #[test]
    fn blobs_are_named_by_what_is_in_them_and_one_entry_is_listed() -> Result<()> {
        let made = example(b"\x7fELF")?.archive(&settings())?;
        let mut archive = tar::Archive::new(made.as_slice());
        let mut blobs = 0;
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.display().to_string();
            let mut octets = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut octets)?;
            if path == "index.json" {
                let index: Value = serde_json::from_slice(&octets)?;
                assert_eq!(index["manifests"].as_array().map(Vec::len), Some(1));
                let names = &index["manifests"][0]["annotations"];
                assert_eq!(names["org.opencontainers.image.ref.name"], "1.0");
            }
            if let Some(name) = path.strip_prefix("blobs/sha256/")
                && !name.is_empty()
            {
                assert_eq!(digest(&octets)?, format!("sha256:{name}"));
                blobs += 1;
            }
        }
        // The index; of each platform manifest, configuration, list and its manifest; the layer and `{}` once.
        assert_eq!(blobs, 1 + 2 * 4 + 2);
        Ok(())
    }

    #[test]
    fn an_index_is_written_as_go_writes_it() -> Result<()> {
        let image = example(b"\x7fELF")?;
        let text = std::str::from_utf8(image.index().1)?;
        let first = image.manifests.first().map(|it| it.digest.clone());
        let first = first.unwrap_or_default();
        let start = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{first}","size":"#
        );
        assert!(text.starts_with(&start), "{text}");
        let platform = r#","platform":{"architecture":"amd64","os":"linux"}},"#;
        assert!(text.contains(platform), "{text}");
        Ok(())
    }

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(
            settings().repository(),
            "registry.example.com:5000/opes/program"
        );
        let mut without = settings();
        without.reference = "registry.example.com:5000/program".to_owned();
        assert_eq!(without.tag(), "latest");
        assert_eq!(without.repository(), without.reference);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
