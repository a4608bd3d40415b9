//! What is linked into a program, as SPDX 2.3 (JSON): every crate with version, licence and where it is from.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Recipe, oci};
use crate::step;

/// The document; the same for the same `Cargo.lock`.
pub(super) fn of(target: &Path, recipe: &Recipe) -> Result<Vec<u8>> {
    let output = step::cargo_command(target)
        .args(["tree", "--locked", "--edges=normal", "--prefix=none"])
        .args(["--format={p} | {l}", "-p", recipe.package])
        .output()
        .context("cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let document = document(recipe.name, &String::from_utf8_lossy(&output.stdout))?;
    Ok(serde_json::to_vec_pretty(&document)?)
}

fn document(name: &str, tree: &str) -> Result<Value> {
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
    relationships.extend(packages.iter().map(|package| {
        json!({
            "spdxElementId": root, "relationshipType": "STATIC_LINK", "relatedSpdxElement": package.get("SPDXID"),
        })
    }));
    let mut all = vec![json!({
        "SPDXID": root, "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
        "licenseDeclared": "Apache-2.0", "filesAnalyzed": false,
    })];
    all.extend(packages);
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("https://opes.dev/spdx/{name}-{version}-{}", hash(&lines)?),
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

fn hash(lines: &BTreeSet<&str>) -> Result<String> {
    let all: Vec<&str> = lines.iter().copied().collect();
    Ok(oci::digest(all.join("\n").as_bytes())?.replace("sha256:", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_is_listed_once_with_its_licence() -> Result<()> {
        let tree = "opes v0.1.0 (/somewhere) | Apache-2.0\nbytes v1.12.0 | MIT\nbytes v1.12.0 | MIT (*)\nlibc v0.2.1 | MIT/Apache-2.0\n";
        let document = document("opes-edge", tree)?;
        let packages = document["packages"].as_array().map_or(0, Vec::len);
        assert_eq!(packages, 4, "{document:#}");
        let text = document.to_string();
        assert!(text.contains("pkg:cargo/bytes@1.12.0") && text.contains("MIT OR Apache-2.0"));
        assert!(!text.contains("somewhere"), "no path of this machine");
        Ok(())
    }
}
