//! Which of Debian's packages brought a file of the system that is in an image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::super::filter;
use super::super::libraries::Library;

/// Who brings [`super::super::AUTHORITIES`], which is made when it is installed.
const AUTHORITIES: &str = "ca-certificates";

/// As SPDX has packages: Debian's, and each file by itself that is of none.
pub(super) fn packages(libraries: &[Library]) -> anyhow::Result<Vec<Value>> {
    let owners = owners(libraries);
    let mut names: BTreeSet<&str> = owners.values().map(String::as_str).collect();
    names.insert(AUTHORITIES);
    let mut packages: Vec<Value> = versions(&names)
        .iter()
        .filter_map(|line| package(line))
        .collect();
    for library in libraries {
        if !owners.contains_key(&library.path) {
            packages.push(file(library)?);
        }
    }
    Ok(packages)
}

/// Package of each library, by its path in the image.
fn owners(libraries: &[Library]) -> BTreeMap<String, String> {
    let names = |library: &Library| {
        let path = library.from.display().to_string();
        // The same file where `/lib` is `/usr/lib`; packages know it by either name.
        let other = match path.strip_prefix("/usr") {
            Some(rest) => rest.to_owned(),
            None => format!("/usr{path}"),
        };
        [path, other]
    };
    let mut query = Command::new("dpkg-query");
    query.arg("--search").args(libraries.iter().flat_map(names));
    // It fails if it does not know one of them.
    let output = query.output().map(|output| output.stdout);
    let output = output.unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let known: BTreeMap<&str, &str> = text.lines().filter_map(owner).collect();
    libraries
        .iter()
        .filter_map(|library| {
            let [one, other] = names(library);
            let owner = known.get(one.as_str()).or(known.get(other.as_str()))?;
            Some((library.path.clone(), (*owner).to_owned()))
        })
        .collect()
}

/// Of `libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6`, path and package. Diversions are none.
fn owner(line: &str) -> Option<(&str, &str)> {
    let (package, path) = line.rsplit_once(": ")?;
    (!package.contains(' ')).then_some((path, package))
}

/// `NAME VERSION ARCHITECTURE` of each.
fn versions(names: &BTreeSet<&str>) -> Vec<String> {
    let mut query = Command::new("dpkg-query");
    query
        .args([
            "--show",
            "--showformat=${Package} ${Version} ${Architecture}\\n",
        ])
        .args(names);
    let output = query.output().map(|output| output.stdout);
    let text = String::from_utf8(output.unwrap_or_default()).unwrap_or_default();
    let lines: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    lines.into_iter().collect()
}

fn package(line: &str) -> Option<Value> {
    let mut words = line.split(' ');
    let (name, version, architecture) = (words.next()?, words.next()?, words.next()?);
    let locator = format!(
        "pkg:deb/debian/{name}@{}?arch={architecture}",
        version.replace('+', "%2B")
    );
    Some(json!({
        "SPDXID": format!("SPDXRef-Debian-{}", name.replace('_', "-").replace('+', ".")),
        "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
        "licenseDeclared": "NOASSERTION", "filesAnalyzed": false,
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator}],
    }))
}

fn file(library: &Library) -> anyhow::Result<Value> {
    let name = Path::new(&library.path).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    let hash = filter::digest(&library.content)?.replace("sha256:", "");
    Ok(json!({
        "SPDXID": format!("SPDXRef-File-{}", name.replace('_', "-").replace('+', ".")),
        "name": name, "downloadLocation": "NOASSERTION",
        "licenseDeclared": "NOASSERTION", "filesAnalyzed": false,
        "checksums": [{"algorithm": "SHA256", "checksumValue": hash}],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_package_or_by_its_hash() -> anyhow::Result<()> {
        let library = |path: &str, from: &str| Library {
            path: path.to_owned(),
            from: from.into(),
            content: b"abc".to_vec(),
        };
        let libraries = [
            // Something that is on every Debian, by the name that its package does not use.
            library("bin/sh", "/usr/bin/dpkg-query"),
            library("lib/libours.so.1", "/nonexistent/libours.so.1"),
        ];
        let packages = packages(&libraries)?;
        let of = |name: &str| packages.iter().find(|it| it["name"] == name);
        let ours = of("libours.so.1").map(|it| it["checksums"][0]["checksumValue"].clone());
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(ours, Some(expected.into()));
        if Path::new("/usr/bin/dpkg-query").exists() {
            let dpkg = of("dpkg").map(|it| it["externalRefs"][0]["referenceLocator"].to_string());
            assert!(dpkg.is_some_and(|it| it.contains("pkg:deb/debian/dpkg@")));
        }
        Ok(())
    }

    #[test]
    fn what_dpkg_says_is_read() {
        let line = "libc6:amd64: /lib/x86_64-linux-gnu/libc.so.6";
        let expected = ("/lib/x86_64-linux-gnu/libc.so.6", "libc6:amd64");
        assert_eq!(owner(line), Some(expected));
        assert_eq!(owner("diversion by dash from: /bin/sh"), None);
        let value = package("libstdc++6 12.2.0-14+deb12u1 amd64").unwrap_or_default();
        assert_eq!(value["SPDXID"], "SPDXRef-Debian-libstdc..6");
        let locator = value["externalRefs"][0]["referenceLocator"].as_str();
        assert!(locator.is_some_and(|it| it.ends_with("12.2.0-14%2Bdeb12u1?arch=amd64")));
    }
}
