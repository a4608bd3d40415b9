//! Where the map comes from: `mapFile: PATH`, read again when it changes, `map:` with the entries themselves, or a
//! `directory:` that is asked.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use opes_directory::{DirectoryConfig, Metrics};
use opes_reload::Reloaded;
use opes_smtp::grammar::ForwardPath;
use serde::Deserialize;

use crate::directory::{AnswerConfig, DirectoryOptions, Located, OnUnknown, Questions, Recipients};
use crate::map::Map;

/// The map in force, or the directory.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Inline(Arc<Map>),
    File(Reloaded<Map>),
    Directory(Arc<Recipients>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    map_file: Option<PathBuf>,
    map: Option<serde_json::Value>,
    directory: Option<DirectoryConfig>,
    answer: Option<AnswerConfig>,
    domains: Option<Vec<String>>,
    ask_for: Option<Questions>,
    on_unknown: Option<OnUnknown>,
}

const REMEDY: &str = "write either `mapFile: PATH` or `map:` with entries `address: target`, or `directory:` with `ldap` or `sql`";

// === impl Source ===

impl Source {
    /// From the `config` of a `CalloutService`.
    pub(crate) fn from_config(json: &serde_json::Value, metrics: Metrics) -> anyhow::Result<Self> {
        let mut config = Config::deserialize(json).context(REMEDY)?;
        let options = config.options();
        match (config.map_file, config.map, config.directory, options) {
            (Some(path), None, None, None) => Self::from_file(path),
            (None, Some(map), None, None) => Ok(Self::Inline(Arc::new(Map::from_json(&map)?))),
            (None, None, Some(directory), options) => {
                let options = options.unwrap_or_default();
                let recipients = Recipients::new(&directory, options, metrics)?;
                Ok(Self::Directory(Arc::new(recipients)))
            }
            (Some(_), None, None, Some(_)) | (None, Some(_), None, Some(_)) => anyhow::bail!(
                "`answer`, `domains`, `askFor` and `onUnknown` go with `directory:` only"
            ),
            _ => anyhow::bail!(REMEDY),
        }
    }

    pub(crate) fn from_file(path: PathBuf) -> anyhow::Result<Self> {
        Ok(Self::File(Reloaded::open(path, Map::from_file)?))
    }

    pub(crate) async fn locate(&self, recipient: &ForwardPath) -> anyhow::Result<Located> {
        let map = match self {
            Self::Inline(map) => Arc::clone(map),
            Self::File(file) => file.current(),
            Self::Directory(directory) => return directory.locate(recipient).await,
        };
        Ok(map.look_up(recipient)?.map_or(Located::Here, Located::At))
    }

    /// A map never says who there is.
    pub(crate) fn on_unknown(&self) -> OnUnknown {
        match self {
            Self::Inline(_) | Self::File(_) => OnUnknown::Accept,
            Self::Directory(directory) => directory.on_unknown(),
        }
    }
}

// === impl Config ===

impl Config {
    /// `None`: nothing that goes with a directory is configured.
    fn options(&mut self) -> Option<DirectoryOptions> {
        let (answer, domains) = (self.answer.take(), self.domains.take());
        let (ask_for, on_unknown) = (self.ask_for.take(), self.on_unknown.take());
        let is_there =
            answer.is_some() || domains.is_some() || ask_for.is_some() || on_unknown.is_some();
        is_there.then(|| DirectoryOptions {
            answer: answer.unwrap_or_default(),
            domains: domains.unwrap_or_default(),
            ask_for: ask_for.unwrap_or_default(),
            on_unknown: on_unknown.unwrap_or_default(),
        })
    }
}
