//! Which images there are, and what each says of itself.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::oci::{self, Settings};

/// An image of ours.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Cargo's package.
    pub(super) package: &'static str,
    /// In the target folder.
    pub(super) program: &'static str,
    arguments: &'static [&'static str],
    what: &'static str,
}

const fn service(name: &'static str, what: &'static str) -> Recipe {
    Recipe {
        name,
        package: name,
        program: name,
        arguments: &[],
        what,
    }
}

pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        name: "opes-edge",
        package: "opes",
        program: "opes",
        arguments: &["edge"],
        what: "The edge: SMTP, submission and LMTP, with rules that call services",
    },
    service(
        "opes-operator",
        "The operator: rules and pools as custom resources",
    ),
    service(
        "opes-access-control",
        "Callout service: who may send what to whom",
    ),
    service(
        "opes-attachment-links",
        "Callout service: attachments to links",
    ),
    service(
        "opes-content-block",
        "Callout service: a text block in each mail",
    ),
    service("opes-milter-bridge", "Callout service: any milter"),
    service("opes-mta-hooks", "Callout service: any MTA hook"),
    service("opes-normalizer", "Callout service: well-formed mail"),
    service(
        "opes-reporting",
        "Callout service: what became of each mail",
    ),
    service("opes-rerouting", "Callout service: other recipients"),
    service("opes-secure-mail", "Callout service: OpenPGP, S/MIME, DKIM"),
    service(
        "opes-security-filter",
        "Callout service: malware and forbidden attachments",
    ),
    service("opes-spam-filter", "Callout service: spam"),
];

/// Of the tests, not of the project: somebody's own callout service.
pub(super) const STAMPER: Recipe = Recipe {
    name: "opes-slow-stamp",
    package: "opes-examples",
    program: "slow-stamp",
    arguments: &[],
    what: "Example of a callout service: takes its time, and stamps",
};

/// Of this name.
pub(super) fn named(name: &str) -> Result<&'static Recipe> {
    let found = RECIPES
        .iter()
        .chain([&STAMPER])
        .find(|recipe| recipe.name == name);
    found.with_context(|| {
        let names: Vec<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
        format!("no image `{name}`; there are {}", names.join(", "))
    })
}

// === impl Recipe ===

impl Recipe {
    /// How it is started and what it is called in this registry.
    pub(super) fn settings(&self, registry: &str) -> Result<Settings> {
        let version = env!("CARGO_PKG_VERSION");
        let time = time()?;
        let entrypoint = std::iter::once(format!("/usr/bin/{}", self.program));
        let arguments = self.arguments.iter().map(|&argument| argument.to_owned());
        let labels: BTreeMap<String, String> = [
            ("title", self.name),
            ("description", self.what),
            ("version", version),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("created", &oci::timestamp(time)),
            ("vendor", "OPES"),
        ]
        .into_iter()
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
        .collect();
        Ok(Settings {
            entrypoint: entrypoint.chain(arguments).collect(),
            labels,
            reference: format!("{registry}/{}:{version}", self.name),
            time,
        })
    }

    /// Where a chart's values have the digest, if they know the image.
    pub(super) fn value(&self) -> Option<[&'static str; 3]> {
        match self.name {
            "opes-edge" => Some(["edge", "image", "digest"]),
            "opes-operator" => Some(["operator", "image", "digest"]),
            name if name == STAMPER.name => None,
            name => Some(["pools", "digests", name.strip_prefix("opes-")?]),
        }
    }
}

/// `SOURCE_DATE_EPOCH`, or 0.
fn time() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .context("SOURCE_DATE_EPOCH: seconds since 1970"),
        Err(_) => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_a_wrong_one_gets_a_list() {
        let names: std::collections::BTreeSet<_> = RECIPES.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), RECIPES.len());
        let error = named("opes").err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("opes-edge")));
        assert!(named(STAMPER.name).is_ok());
    }
}
