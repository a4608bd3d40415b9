//! The layers and their arrows: core ← shell ← program, and never the other way (`ARCHITECTURE.md`).
//!
//! An arrow is a normal dependency as a manifest declares it, followed through our own crates with the features that they
//! turn on. Build and development dependencies are free: they do not run in production.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::Finding;

/// Where a crate of this workspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Knows the standards; no runtime, sockets, disk, clock.
    Core,
    /// Knows tokio, files, gRPC; no particular service.
    Shell,
    /// Wiring of one program; no other program.
    Service,
    /// `opes`: all programs in one.
    Bundle,
    /// Examples, tests, tools: no program depends on them; tests may share with tests.
    Support,
}

/// The table: every crate of the workspace stands here.
pub const LAYERS: &[(&str, Layer)] = &[
    ("opes-proto", Layer::Core),
    ("opes-smtp", Layer::Core),
    ("opes-mime", Layer::Core),
    ("opes-milter", Layer::Core),
    ("opes-ocp", Layer::Core),
    ("opes-rules", Layer::Core),
    ("opes-dsn", Layer::Core),
    ("opes-trace", Layer::Core),
    ("opes-content", Layer::Shell),
    ("opes-spool", Layer::Shell),
    ("opes-relay", Layer::Shell),
    ("opes-callout-client", Layer::Shell),
    ("opes-callout-server", Layer::Shell),
    ("opes-conform", Layer::Shell),
    ("opes-telemetry", Layer::Shell),
    ("opes-reload", Layer::Shell),
    ("opes-database", Layer::Shell),
    ("opes-quarantine", Layer::Shell),
    ("opes-tls", Layer::Shell),
    ("opes-host", Layer::Shell),
    ("opes-http", Layer::Shell),
    ("opes-directory", Layer::Shell),
    ("opes-k8s", Layer::Shell),
    ("opes-routing", Layer::Shell),
    ("opes-edge", Layer::Service),
    ("opes-access-control", Layer::Service),
    ("opes-attachment-links", Layer::Service),
    ("opes-content-block", Layer::Service),
    ("opes-milter-bridge", Layer::Service),
    ("opes-mta-hooks", Layer::Service),
    ("opes-normalizer", Layer::Service),
    ("opes-reporting", Layer::Service),
    ("opes-rerouting", Layer::Service),
    ("opes-secure-mail", Layer::Service),
    ("opes-security-filter", Layer::Service),
    ("opes-spam-filter", Layer::Service),
    ("opes-operator", Layer::Service),
    ("opes", Layer::Bundle),
    ("opes-examples", Layer::Support),
    ("opes-cluster", Layer::Support),
    ("opes-e2e", Layer::Support),
    ("opes-simulation", Layer::Support),
    ("opes-tidy", Layer::Support),
    ("xtask", Layer::Support),
];

/// What a core must not know, by the first word of the crate name (`tokio` stands for `tokio-util` too).
const FORBIDDEN_IN_CORE: &[&str] = &[
    "tokio", "tonic", "hyper", "tower", "axum", "reqwest", "kube", "k8s", "rustls", "openssl",
    "socket2", "mio", "async", "smol", "rustix", "libc", "nix", "tempfile",
];

/// A package as `cargo metadata` has it.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// As declared.
    pub dependencies: Vec<Dependency>,
    /// Feature → what it turns on.
    #[serde(default)]
    pub features: BTreeMap<String, Vec<String>>,
}

/// A declared dependency.
#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    /// Name of the package.
    pub name: String,
    /// `None` = normal.
    pub kind: Option<String>,
    /// Only with a feature.
    pub optional: bool,
    /// Features turned on.
    #[serde(default)]
    pub features: Vec<String>,
    /// Is `default` turned on.
    #[serde(default)]
    pub uses_default_features: bool,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// The workspace's packages from the output of `cargo metadata --no-deps`.
pub fn packages(metadata_json: &[u8]) -> anyhow::Result<Vec<Package>> {
    Ok(serde_json::from_slice::<Metadata>(metadata_json)?.packages)
}

/// Every arrow that points up, and every crate that is missing in `table`.
pub fn forbidden_arrows(packages: &[Package], table: &[(&str, Layer)]) -> Vec<Finding> {
    let graph = Graph {
        layers: table.iter().copied().collect(),
        packages: packages
            .iter()
            .map(|package| (package.name.as_str(), package))
            .collect(),
    };
    packages
        .iter()
        .flat_map(|package| graph.findings(package))
        .collect()
}

struct Graph<'a> {
    layers: BTreeMap<&'a str, Layer>,
    packages: BTreeMap<&'a str, &'a Package>,
}

// === impl Graph ===

impl<'a> Graph<'a> {
    fn findings(&self, package: &'a Package) -> Vec<Finding> {
        let Some(&layer) = self.layers.get(package.name.as_str()) else {
            let message = "stands in no layer; add it to LAYERS in tests/tidy".to_owned();
            return vec![Finding {
                place: package.name.clone(),
                message,
            }];
        };
        let finding = |path: &[&str], why: &str| Finding {
            place: package.name.clone(),
            message: format!("{}: {why}", path.join(" → ")),
        };
        let mut findings = Vec::new();
        self.follow(
            package,
            &default_features(package),
            &mut vec![&package.name],
            &mut |path, to| {
                if let Some(why) = self.refusal(layer, to) {
                    findings.push(finding(path, why));
                }
            },
        );
        findings
    }

    /// Calls `visit` with every dependency that `package` has in production, directly or through our own crates.
    fn follow(
        &self,
        package: &'a Package,
        features: &BTreeSet<String>,
        path: &mut Vec<&'a str>,
        visit: &mut impl FnMut(&[&str], &str),
    ) {
        let optional = activated(package, features);
        for dependency in &package.dependencies {
            let in_use = dependency.kind.is_none()
                && (!dependency.optional || optional.contains(&dependency.name));
            if !in_use || path.contains(&dependency.name.as_str()) {
                continue;
            }
            path.push(&dependency.name);
            visit(path, &dependency.name);
            if let Some(ours) = self.packages.get(dependency.name.as_str()) {
                self.follow(ours, &requested(dependency), path, visit);
            }
            path.pop();
        }
    }

    fn refusal(&self, from: Layer, to: &str) -> Option<&'static str> {
        let Some(&to_layer) = self.layers.get(to) else {
            let first_word = to.split(['-', '_']).next().unwrap_or_default();
            return (from == Layer::Core && FORBIDDEN_IN_CORE.contains(&first_word)).then_some(
                "a core knows no runtime, socket, disk or TLS; move this to a shell crate",
            );
        };
        match (from, to_layer) {
            (Layer::Core | Layer::Shell | Layer::Service | Layer::Bundle, Layer::Support) => {
                Some("no program depends on examples, tests and tools")
            }
            (Layer::Core, Layer::Core)
            | (Layer::Shell | Layer::Service, Layer::Core | Layer::Shell)
            | (Layer::Bundle | Layer::Support, _) => None,
            (Layer::Core, _) => Some("a core depends on cores only"),
            (Layer::Shell, _) => Some("a shell crate knows no particular program"),
            (Layer::Service, _) => Some("programs do not know each other; share through a crate"),
        }
    }
}

fn default_features(package: &Package) -> BTreeSet<String> {
    package
        .features
        .contains_key("default")
        .then(|| "default".to_owned())
        .into_iter()
        .collect()
}

fn requested(dependency: &Dependency) -> BTreeSet<String> {
    let default = dependency
        .uses_default_features
        .then(|| "default".to_owned());
    dependency.features.iter().cloned().chain(default).collect()
}

/// Names of the optional dependencies that `features` of `package` turn on.
fn activated(package: &Package, features: &BTreeSet<String>) -> BTreeSet<String> {
    let mut reached = features.clone();
    let mut open: Vec<String> = features.iter().cloned().collect();
    let mut activated = BTreeSet::new();
    while let Some(feature) = open.pop() {
        for implied in package.features.get(&feature).into_iter().flatten() {
            let name = implied.strip_prefix("dep:").unwrap_or(implied);
            let name = name.split(['/', '?']).next().unwrap_or(name).to_owned();
            activated.insert(name.clone());
            if reached.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    activated
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, Layer)] = &[
        ("proto", Layer::Core),
        ("core", Layer::Core),
        ("shell", Layer::Shell),
        ("one", Layer::Service),
        ("two", Layer::Service),
        ("all", Layer::Bundle),
        ("tests", Layer::Support),
    ];

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|&name| dependency(name)).collect();
        Package {
            name: name.to_owned(),
            dependencies,
            features: BTreeMap::new(),
        }
    }

    fn dependency(name: &str) -> Dependency {
        Dependency {
            name: name.to_owned(),
            kind: None,
            optional: false,
            features: Vec::new(),
            uses_default_features: true,
        }
    }

    fn messages(packages: &[Package]) -> Vec<String> {
        forbidden_arrows(packages, TABLE)
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn arrows_that_point_down_are_fine() {
        let fine = [
            package("core", &["proto", "bytes"]),
            package("shell", &["core", "tokio"]),
            package("one", &["shell", "core"]),
            package("all", &["one", "two"]),
            package("tests", &["all"]),
        ];
        assert_eq!(messages(&fine), Vec::<String>::new());
    }

    #[test]
    fn each_arrow_that_points_up_is_found() {
        for (from, to) in [
            ("core", "tokio-util"),
            ("core", "shell"),
            ("shell", "one"),
            ("one", "two"),
            ("one", "all"),
            ("all", "tests"),
        ] {
            let found = messages(&[package(from, &[to])]);
            assert_eq!(found.len(), 1, "{from} → {to}: {found:?}");
            assert!(
                found[0].starts_with(&format!("{from}: {from} → {to}: ")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn arrows_through_our_own_crates_and_their_features_are_found() {
        let mut proto = package("proto", &["tonic", "prost"]);
        proto.dependencies[0].optional = true;
        proto
            .features
            .insert("grpc".to_owned(), vec!["dep:tonic".to_owned()]);
        let mut core = package("core", &["proto"]);
        assert!(messages(&[proto.clone(), core.clone()]).is_empty());
        core.dependencies[0].features.push("grpc".to_owned());
        assert!(messages(&[proto, core])[0].starts_with("core: core → proto → tonic: "));
    }

    #[test]
    fn test_dependencies_are_free_and_strangers_are_named() {
        let mut core = package("core", &["tokio"]);
        core.dependencies[0].kind = Some("dev".to_owned());
        assert!(messages(&[core]).is_empty());
        assert!(messages(&[package("new", &[])])[0].contains("no layer"));
    }
}
