//! Where the policy comes from: `policyFile: PATH`, read again when it changes, or the policy itself, inline; and the
//! directories that its rules ask.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use opes_directory::{Answer, Directory, DirectoryConfig, Metrics};
use opes_reload::Reloaded;
use serde::Deserialize;

use crate::lookup::{Directories, INPUTS, Question, Uses};
use crate::policy::Policy;

/// Directories of one configuration.
const LOOKUPS_MAX: usize = 64;

/// The policy in force.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Inline(Arc<Policy>),
    File(Reloaded<Policy>),
}

/// The directories, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lookups(Arc<BTreeMap<String, Directory>>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileConfig {
    policy_file: PathBuf,
}

// === impl Source ===

impl Source {
    /// From the `config` of a `CalloutService`, with what its rules ask.
    pub(crate) fn from_config(
        json: &serde_json::Value,
        metrics: &Metrics,
    ) -> anyhow::Result<(Self, Lookups)> {
        let mut json = json.clone();
        let lookups = match json
            .as_object_mut()
            .and_then(|fields| fields.remove("lookups"))
        {
            Some(lookups) => Lookups::from_config(lookups, metrics)?,
            None => Lookups::default(),
        };
        if json.get("policyFile").is_some() {
            let config = FileConfig::deserialize(&json).context(
                "beside `policyFile` and `lookups` there is nothing to configure; rules go into that file",
            )?;
            return Ok((Self::from_file(config.policy_file, &lookups)?, lookups));
        }
        anyhow::ensure!(
            json.get("default").is_some(),
            "no policy; write `policyFile: PATH`, or a policy with `default: allow` or `default: deny` and `rules`"
        );
        let policy = Policy::from_json(&json, &lookups.directories())?;
        Ok((Self::Inline(Arc::new(policy)), lookups))
    }

    pub(crate) fn from_file(path: PathBuf, lookups: &Lookups) -> anyhow::Result<Self> {
        let directories = lookups.directories();
        let read = move |file: &_, text: &_| Policy::from_yaml(file, text, &directories);
        Ok(Self::File(Reloaded::open(path, read)?))
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        match self {
            Self::Inline(policy) => Arc::clone(policy),
            Self::File(file) => file.current(),
        }
    }
}

// === impl Lookups ===

impl Lookups {
    fn from_config(json: serde_json::Value, metrics: &Metrics) -> anyhow::Result<Self> {
        let configs: BTreeMap<String, DirectoryConfig> = serde_json::from_value(json)
            .context("lookups: write a mapping of names to `ldap:` or `sql:`")?;
        anyhow::ensure!(
            configs.len() <= LOOKUPS_MAX,
            "lookups: more than {LOOKUPS_MAX}"
        );
        let open = |(name, config): (String, DirectoryConfig)| {
            let directory = Directory::new(&*name, &config, INPUTS, &[], metrics.clone());
            let directory = directory.with_context(|| format!("lookups.{name}"))?;
            anyhow::Ok((name, directory))
        };
        let directories: BTreeMap<_, _> =
            configs.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(directories)))
    }

    fn directories(&self) -> Directories {
        let uses = |(name, directory): (&String, &Directory)| {
            let uses = Uses {
                inputs: directory.inputs().to_vec(),
                attributes: directory.attributes().map(<[String]>::to_vec),
            };
            (name.clone(), uses)
        };
        Directories(self.0.iter().map(uses).collect())
    }

    pub(crate) async fn ask(&self, question: &Question) -> anyhow::Result<Arc<Answer>> {
        // A policy is bound to these directories when it is read.
        let directory = self.0.get(&question.directory).context("no such look-up")?;
        Ok(directory.look_up(&question.inputs).await?)
    }
}
