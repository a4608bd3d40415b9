//! The quarantine's keys.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::units::duration;

/// Shorter, and an operator on holiday finds nothing.
const KEEP_MIN: Duration = Duration::from_mins(1);

/// Where held messages are kept, for how long, and who may ask for them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuarantineConfig {
    /// How long messages are kept.
    #[serde(default = "default_keep", deserialize_with = "duration")]
    pub keep: Duration,
    /// The index of several edges. None: an SQLite file in the spool folder.
    #[serde(default)]
    pub postgres: Option<PostgresConfig>,
    /// The octets of several edges. None: files in the spool folder.
    #[serde(default)]
    pub s3: Option<S3Config>,
    /// The API over TCP. None: the Unix socket `quarantine.sock` in the spool folder only.
    #[serde(default)]
    pub api: Option<ApiConfig>,
}

/// A PostgreSQL database.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://USER@HOST/DATABASE`.
    pub url: String,
    /// File with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// A bucket.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Config {
    /// `https://…`. None: Amazon's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its name.
    pub bucket: String,
    /// Its region.
    #[serde(default = "default_region")]
    pub region: String,
    /// Before all keys.
    #[serde(default)]
    pub prefix: String,
    /// File with the access key's id. None: from the environment.
    #[serde(default)]
    pub access_key_id_file: Option<PathBuf>,
    /// File with the access key's secret.
    #[serde(default)]
    pub secret_access_key_file: Option<PathBuf>,
}

/// The API over TCP.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// File with the token that requests must show.
    pub token_file: PathBuf,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self {
            keep: default_keep(),
            postgres: None,
            s3: None,
            api: None,
        }
    }
}

impl QuarantineConfig {
    pub(super) fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let value = |field: &str, message: &str, remedy| {
            Err(ConfigError::Value {
                path: path.into(),
                field: format!("quarantine.{field}"),
                message: message.into(),
                remedy,
            })
        };
        if self.keep < KEEP_MIN {
            return value("keep", "is less than a minute", "write days, such as `30d`");
        }
        if self.postgres.is_some() != self.s3.is_some() {
            return value(
                "postgres",
                "needs `s3`, and `s3` needs it",
                "name both for a quarantine that several edges share, or none for one in the spool folder",
            );
        }
        if let Some(s3) = &self.s3
            && s3.access_key_id_file.is_some() != s3.secret_access_key_file.is_some()
        {
            return value(
                "s3.accessKeyIdFile",
                "needs `secretAccessKeyFile`, and the other way round",
                "name both files, or none to take credentials from the environment",
            );
        }
        Ok(())
    }
}

fn default_keep() -> Duration {
    Duration::from_hours(30 * 24)
}

fn default_region() -> String {
    "us-east-1".into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::EdgeConfig;

    fn parse(quarantine: &str) -> Result<EdgeConfig, String> {
        let text = format!(
            "hostname: mail.example.com\nspool: /var/spool/opes\ndelivery: {{ nextHop: 'mx.example.com:25' }}\nlisteners:\n  - {{ name: mx, address: '0.0.0.0:2525' }}\nquarantine: {quarantine}\n"
        );
        EdgeConfig::parse(&text, Path::new("edge.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_work_is_refused_with_place_and_remedy() {
        for (text, place) in [
            ("{ keep: 0s }", "quarantine.keep"),
            (
                "{ postgres: { url: 'postgres://x@y/z' } }",
                "quarantine.postgres",
            ),
            ("{ s3: { bucket: held } }", "quarantine.postgres"),
            (
                "{ postgres: { url: 'postgres://x@y/z' }, s3: { bucket: held, accessKeyIdFile: /x } }",
                "quarantine.s3",
            ),
            ("{ api: { address: '127.0.0.1:1' } }", "tokenFile"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(
                message.contains(place) && message.contains("help:"),
                "{message}"
            );
        }
    }

    #[test]
    fn nothing_is_served_and_nothing_is_shared_by_default() {
        let config = parse("{ keep: 7d }").unwrap().quarantine;
        assert_eq!(config.keep.as_secs(), 7 * 24 * 3600);
        assert!(config.api.is_none() && config.postgres.is_none() && config.s3.is_none());
    }
}
