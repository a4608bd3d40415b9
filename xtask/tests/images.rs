//! `cargo xtask images` as a whole, judged by software that is not ours: skopeo and a registry of Debian's, openssl.
//!
//! The programs are this command itself, and for the other platform a few lines of assembler with Debian's libraries for cross
//! compilers: no Rust for it is needed, and none of it is run.

mod images {
    pub(crate) mod bed;
    pub(crate) mod registry;
}

/// Left out by `cargo xtask test --fast`, which installs nothing.
mod with_packages {
    use std::path::Path;

    use anyhow::{Context as _, Result, ensure};

    use super::images::bed::{Bed, IMAGE, Layout, PLATFORMS, key, output, tool};
    use super::images::registry::{self, Registry};

    #[test]
    fn each_platform_gets_its_own_programs_and_the_octets_are_the_same_twice() -> Result<()> {
        let bed = Bed::new()?;
        let first = bed.images(&bed.path("one"), &[])?;
        ensure!(first.contains("not signed"), "{first}");
        bed.images(&bed.path("two"), &[])?;
        let archive = |out: &str| bed.path(out).join(format!("{IMAGE}.tar"));
        let octets = std::fs::read(archive("one"))?;
        assert!(octets == std::fs::read(archive("two"))?, "archives differ");
        for (architecture, machine, loader) in PLATFORMS {
            let to = bed.path(architecture);
            output(
                tool("skopeo")
                    .args(["--override-os", "linux", "--override-arch", architecture])
                    .args(["copy", "--insecure-policy"])
                    .arg(format!("oci-archive:{}", archive("one").display()))
                    .arg(format!("oci:{}:chosen", to.display())),
            )?;
            let layout = Layout::open(&to)?;
            let manifest = layout.json(&layout.entry("chosen")?)?;
            assert_eq!(
                layout.json(&manifest["config"])?["architecture"],
                *architecture
            );
            let tree = bed.unpack(&layout, &manifest["layers"][0])?;
            let program = format!("usr/bin/{IMAGE}");
            for needed in [*loader, program.as_str()] {
                assert!(tree.contains_key(needed), "{architecture}: {needed}");
            }
            let machines: Vec<u16> = tree.values().filter_map(|it| *it).collect();
            assert!(machines.len() >= 3, "{architecture}: {tree:?}");
            assert!(machines.iter().all(|it| it == machine), "{tree:?}");
        }
        Ok(())
    }

    #[test]
    fn what_is_in_an_image_is_listed_by_a_referrer_of_its_platform() -> Result<()> {
        let bed = Bed::new()?;
        let out = bed.path("out");
        bed.images(&out, &[])?;
        let layout = bed.layout(&[&out.join(format!("{IMAGE}.tar"))])?;
        let index = layout.json(&layout.only_entry()?)?;
        let entries = index["manifests"].as_array().context("no manifests")?;
        for (architecture, ..) in PLATFORMS {
            let platform = entries
                .iter()
                .find(|it| it["platform"]["architecture"] == *architecture);
            let platform = platform.context("no such platform")?;
            let mut lists = Vec::new();
            for entry in entries {
                let manifest = layout.json(entry)?;
                if manifest["subject"]["digest"] == platform["digest"] {
                    assert_eq!(entry["platform"]["os"], "unknown");
                    lists.push(manifest);
                }
            }
            let [list] = lists.as_slice() else {
                anyhow::bail!("{architecture}: {} lists", lists.len());
            };
            assert_eq!(list["artifactType"], "application/spdx+json");
            let attached = layout.blob(&list["layers"][0])?;
            let beside = out.join(format!("{IMAGE}.{architecture}.spdx.json"));
            assert_eq!(attached, std::fs::read(beside)?);
            let document: serde_json::Value = serde_json::from_slice(&attached)?;
            assert_eq!(document["spdxVersion"], "SPDX-2.3");
            let packages = document["packages"].to_string();
            assert!(packages.contains("pkg:cargo/tokio@"), "crates");
            let library = if *architecture == "arm64" {
                "libc6-arm64-cross"
            } else {
                "libc6"
            };
            assert!(
                packages.contains(&format!("pkg:deb/debian/{library}@")),
                "{library}"
            );
        }
        Ok(())
    }

    #[test]
    fn everything_is_signed_and_the_key_is_nowhere() -> Result<()> {
        let bed = Bed::new()?;
        let (private, public) = key(&bed, "signing")?;
        let out = bed.path("out");
        let unsigned = bed.path("unsigned");
        bed.images(&unsigned, &[])?;
        let mut said = bed.images(&out, &["--sign", &private])?;
        let archives = [IMAGE.to_owned() + ".tar", IMAGE.to_owned() + ".sig.tar"];
        let archives = archives.map(|name| out.join(name));
        for archive in &archives {
            said += &String::from_utf8_lossy(&std::fs::read(archive)?);
        }
        let pem = std::fs::read_to_string(&private)?;
        for line in pem.lines().filter(|line| !line.starts_with('-')) {
            assert!(!said.contains(line), "the key is in what was written");
        }
        let plain = std::fs::read(unsigned.join(format!("{IMAGE}.tar")))?;
        let same = plain == std::fs::read(&archives[0])?;
        assert!(same, "the image is the same, signed or not");

        let layout = bed.layout(&[&archives[0], &archives[1]])?;
        let index = layout.entry(env!("CARGO_PKG_VERSION"))?;
        let mut expected = vec![index["digest"].clone()];
        let within = layout.json(&index)?;
        let within = within["manifests"]
            .as_array()
            .context("no manifests")?
            .clone();
        expected.extend(within.iter().map(|it| it["digest"].clone()));
        assert_eq!(expected.len(), 5, "index, two platforms, two lists");
        for digest in expected {
            let digest = digest.as_str().context("no digest")?;
            let tag = format!("{}.sig", digest.replace(':', "-"));
            let manifest = layout.json(&layout.entry(&tag)?)?;
            assert_eq!(manifest["subject"]["digest"], digest);
            let signed = &manifest["layers"][0];
            let payload: serde_json::Value = layout.json(signed)?;
            assert_eq!(
                payload["critical"]["image"]["docker-manifest-digest"],
                digest
            );
            let signature = &signed["annotations"]["dev.cosignproject.cosign/signature"];
            let signature = signature.as_str().context("no signature")?;
            bed.verify(&public, &layout.path(signed)?, signature)?;
            let other = layout.path(&manifest["config"])?;
            assert!(bed.verify(&public, &other, signature).is_err());
        }
        // Signatures of an image that is made anew would be of another one.
        bed.images(&out, &[])?;
        assert!(!archives[1].exists());
        Ok(())
    }

    #[test]
    fn what_was_pushed_has_its_digest_and_a_signature_that_is_found_by_it() -> Result<()> {
        let bed = Bed::new()?;
        let process = Registry::start(&bed)?;
        let (private, public) = key(&bed, "signing")?;
        let (_, stranger) = key(&bed, "stranger")?;
        let repository = process.repository("opes");
        let out = bed.path("out");
        // As CI has it: in the environment.
        let text = std::fs::read_to_string(&private)?;
        let arguments = ["--registry", &repository, "--sign", "env://SIGNING"];
        bed.images_with(&out, &arguments, ("SIGNING", &text))?;
        let name = format!("{repository}/{IMAGE}");
        let archive = out.join(format!("{IMAGE}.tar"));
        let signatures = out.join(format!("{IMAGE}.sig.tar"));
        registry::push_all(&archive, &format!("{name}:1"))?;
        let digest = std::fs::read_to_string(out.join(format!("{IMAGE}.digest")))?;
        assert_eq!(registry::digest(&format!("{name}:1"))?, digest);
        let values = std::fs::read(out.join("values.yaml"))?;
        let values: serde_json::Value = serde_json::from_slice(&values)?;
        assert_eq!(values["global"]["imageRegistry"], repository);
        assert_eq!(values["pools"]["digests"]["normalizer"], digest);

        let layout = bed.layout(&[&archive, &signatures])?;
        let index = layout.json(&layout.entry(env!("CARGO_PKG_VERSION"))?)?;
        let mut subjects = vec![digest.clone()];
        for (at, (architecture, ..)) in PLATFORMS.iter().enumerate() {
            registry::pull(
                &format!("{name}@{digest}"),
                architecture,
                &bed.path("pulled"),
            )?;
            let platform = index["manifests"][at]["digest"].as_str();
            subjects.push(platform.context("no digest")?.to_owned());
        }
        for subject in subjects {
            let tag = format!("{}.sig", subject.replace(':', "-"));
            let signature = format!("{name}:{tag}");
            assert!(registry::digest(&signature).is_err(), "not signed yet");
            let from = format!("oci-archive:{}:{tag}", signatures.display());
            registry::push(&from, &signature)?;
            let pulled = bed.path("signature-of");
            registry::pull(&signature, "amd64", &pulled)?;
            let manifest = std::fs::read(pulled.join("manifest.json"))?;
            let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
            let layer = &manifest["layers"][0];
            let blob = layer["digest"].as_str().context("no digest")?;
            let payload = pulled.join(blob.trim_start_matches("sha256:"));
            let signature = &layer["annotations"]["dev.cosignproject.cosign/signature"];
            let signature = signature.as_str().context("no signature")?;
            bed.verify(&public, &payload, signature)?;
            assert!(bed.verify(&stranger, &payload, signature).is_err());
            let payload: serde_json::Value = serde_json::from_slice(&std::fs::read(payload)?)?;
            let signed = &payload["critical"];
            assert_eq!(signed["image"]["docker-manifest-digest"], subject);
            assert_eq!(signed["identity"]["docker-reference"], name);
        }
        Ok(())
    }

    #[test]
    fn what_is_missing_for_a_platform_is_said() -> Result<()> {
        let bed = Bed::new()?;
        let out = bed.path("out");
        let program = bed.foreign_program();
        std::fs::remove_file(&program)?;
        let error = bed.images(&out, &[]).err();
        let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains("is it built?"), "{error}");
        std::fs::copy(Path::new(env!("CARGO_BIN_EXE_xtask")), &program)?;
        let error = bed.images(&out, &[]).err();
        let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(
            error.contains("is not for aarch64-unknown-linux-gnu"),
            "{error}"
        );
        Ok(())
    }
}
