//! Where the map comes from: `mapFile: PATH`, read again when it changes, or `map:` with the entries themselves.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use opes_reload::Reloaded;
use serde::Deserialize;

use crate::map::Map;

/// The map in force.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Inline(Arc<Map>),
    File(Reloaded<Map>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    map_file: Option<PathBuf>,
    map: Option<serde_json::Value>,
}

// === impl Source ===

impl Source {
    /// From the `config` of a `CalloutService`.
    pub(crate) fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        const REMEDY: &str =
            "write either `mapFile: PATH` or `map:` with entries `address: target`";
        let config = Config::deserialize(json).context(REMEDY)?;
        match (config.map_file, config.map) {
            (Some(path), None) => Self::from_file(path),
            (None, Some(map)) => Ok(Self::Inline(Arc::new(Map::from_json(&map)?))),
            (Some(_), Some(_)) | (None, None) => anyhow::bail!(REMEDY),
        }
    }

    pub(crate) fn from_file(path: PathBuf) -> anyhow::Result<Self> {
        Ok(Self::File(Reloaded::open(path, Map::from_file)?))
    }

    pub(crate) fn map(&self) -> Arc<Map> {
        match self {
            Self::Inline(map) => Arc::clone(map),
            Self::File(file) => file.current(),
        }
    }
}
