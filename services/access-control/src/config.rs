//! Where the policy comes from: `policyFile: PATH`, read again when it changes, or the policy itself, inline.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use opes_reload::Reloaded;
use serde::Deserialize;

use crate::policy::Policy;

/// The policy in force.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Inline(Arc<Policy>),
    File(Reloaded<Policy>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileConfig {
    policy_file: PathBuf,
}

// === impl Source ===

impl Source {
    /// From the `config` of a `CalloutService`.
    pub(crate) fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        if json.get("policyFile").is_some() {
            let config = FileConfig::deserialize(json).context(
                "beside `policyFile` there is nothing to configure; rules go into that file",
            )?;
            return Self::from_file(config.policy_file);
        }
        anyhow::ensure!(
            json.get("default").is_some(),
            "no policy; write `policyFile: PATH`, or a policy with `default: allow` or `default: deny` and `rules`"
        );
        Ok(Self::Inline(Arc::new(Policy::from_json(json)?)))
    }

    pub(crate) fn from_file(path: PathBuf) -> anyhow::Result<Self> {
        Ok(Self::File(Reloaded::open(path, Policy::from_yaml)?))
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        match self {
            Self::Inline(policy) => Arc::clone(policy),
            Self::File(file) => file.current(),
        }
    }
}
