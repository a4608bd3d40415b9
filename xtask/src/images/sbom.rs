//! What is in an image, as SPDX 2.3 (JSON): every crate that is linked into the program with version, licence and where it is from, and
//! what of the system's comes along.

mod debian;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::filter;
use super::libraries::Library;
use super::oci;
use super::platform::Platform;
use super::recipe::Recipe;
use crate::step;

/// The document; the same for the same `Cargo.lock` and the same packages of the system.
pub(super) fn of(
    target: &Path,
    recipe: &Recipe,
    platform: &Platform,
    libraries: &[Library],
) -> Result<Vec<u8>> {
    let output = step::cargo_command(target)
        .args(["tree", "--locked", "--edges=normal", "--prefix=none"])
        .args(["--target", platform.target])
        .args(["--format={p} | {l}", "-p", recipe.package])
        .output()
        .context("cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let system = debian::packages(libraries)?;
    let tree = String::from_utf8_lossy(&output.stdout);
    let document = document(recipe.name, &tree, &system)?;
    Ok(serde_json::to_vec_pretty(&document)?)
}

fn document(name: &str, tree: &str, system: &[Value]) -> Result<Value> {
    let lines: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty())
        .collect();
    let packages: Vec<Value> = lines.iter().filter_map(|line| package(line)).collect();
    let root = format!("SPDXRef-{name}");
    let version = env!("CARGO_PKG_VERSION");
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": root,
    })];
    let linked = packages.iter().map(|package| ("STATIC_LINK", package));
    let beside = system.iter().map(|package| ("CONTAINS", package));
    relationships.extend(linked.chain(beside).map(|(relation, package)| {
        json!({
            "spdxElementId": root, "relationshipType": relation, "relatedSpdxElement": package.get("SPDXID"),
        })
    }));
    let mut all = vec![json!({
        "SPDXID": root, "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
        "licenseDeclared": "Apache-2.0", "filesAnalyzed": false,
    })];
    all.extend(packages);
    all.extend_from_slice(system);
    let content = json!([name, version, all]).to_string();
    let hash = filter::digest(content.as_bytes())?.replace("sha256:", "");
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("https://opes.dev/spdx/{name}-{version}-{hash}"),
        "creationInfo": {"created": oci::timestamp(0), "creators": ["Tool: cargo-xtask-images"]},
        "packages": all,
        "relationships": relationships,
    }))
}

/// `name v1.2.3 (place) | LICENCE`.
fn package(line: &str) -> Option<Value> {
    let (package, licence) = line.split_once(" | ")?;
    let mut words = package.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.trim_start_matches('v'));
    let licence = licence.replace('/', " OR ");
    let ours = words.next().is_some_and(|place| place.starts_with('('));
    let (from, reference) = if ours {
        ("NOASSERTION".to_owned(), Value::Null)
    } else {
        (
            format!("https://crates.io/crates/{name}/{version}"),
            json!(format!("pkg:cargo/{name}@{version}")),
        )
    };
    let mut value = json!({
        "SPDXID": format!("SPDXRef-{}-{}", name.replace('_', "-"), version.replace('+', "-")),
        "name": name, "versionInfo": version, "downloadLocation": from,
        "licenseDeclared": if licence.is_empty() { "NOASSERTION" } else { &licence }, "filesAnalyzed": false,
    });
    if let (Some(value), false) = (value.as_object_mut(), reference.is_null()) {
        value.insert(
            "externalRefs".to_owned(),
            json!([{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": reference}]),
        );
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_is_listed_once_with_its_licence() -> Result<()> {
        let tree = "opes v0.1.0 (/somewhere) | Apache-2.0\nbytes v1.12.0 | MIT\nbytes v1.12.0 | MIT (*)\nlibc v0.2.1 | MIT/Apache-2.0\n";
        let system = [json!({"SPDXID": "SPDXRef-Debian-libc6", "name": "libc6"})];
        let document = document("opes-edge", tree, &system)?;
        let packages = document["packages"].as_array().map_or(0, Vec::len);
        assert_eq!(packages, 5, "{document:#}");
        let text = document.to_string();
        assert!(text.contains("pkg:cargo/bytes@1.12.0") && text.contains("MIT OR Apache-2.0"));
        assert!(!text.contains("somewhere"), "no path of this machine");
        Ok(())
    }
}
