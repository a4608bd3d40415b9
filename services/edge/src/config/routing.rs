//! The operator that an edge follows.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{CalloutsConfig, ConfigError, EdgeConfig};

/// Where rules come from, in a cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoutingConfig {
    /// `https://HOST:PORT`, where an operator is found first.
    pub operator: String,
    /// Folder of the last good table. None: `routing` in the spool folder.
    #[serde(default)]
    pub cache: Option<PathBuf>,
    /// Name of this edge, unique in the installation. None: `POD_NAME`, or the host's name.
    #[serde(default)]
    pub edge: Option<String>,
    /// Certificate chain that operators are shown, leaf first. None: the one of `callouts`.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its private key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Authorities that the certificates of operators must come from.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

// === impl RoutingConfig ===

impl RoutingConfig {
    /// What operators are shown and whose word is believed; those of `callouts` where nothing else is said.
    pub fn files(&self, callouts: Option<&CalloutsConfig>) -> Option<CalloutsConfig> {
        match (&self.certificate, &self.key, &self.ca) {
            (Some(certificate), Some(key), Some(ca)) => Some(CalloutsConfig {
                certificate: certificate.clone(),
                key: key.clone(),
                ca: ca.clone(),
            }),
            _ => callouts.cloned(),
        }
    }

    /// Where the last good table is kept.
    pub fn cache_folder(&self, spool: &Path) -> PathBuf {
        let beside = || spool.join("routing");
        self.cache.clone().unwrap_or_else(beside)
    }

    pub(super) fn check(&self, path: &Path, edge: &EdgeConfig) -> Result<(), ConfigError> {
        let value = |field: &str, message: &str, remedy| {
            Err(ConfigError::Value {
                path: path.into(),
                field: field.into(),
                message: message.into(),
                remedy,
            })
        };
        if edge.rules.is_some() {
            return value(
                "routing",
                "and `rules` are both set",
                "leave out `rules` where an operator is followed, `routing` where rules are files",
            );
        }
        let host = self.operator.strip_prefix("https://");
        let port = host.and_then(|host| host.rsplit_once(':'));
        if !port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            return value(
                "routing.operator",
                &format!("`{}` is not https://HOST:PORT", self.operator),
                "write `https://opes-operator.NAMESPACE.svc:9443`",
            );
        }
        let own = [&self.certificate, &self.key, &self.ca];
        let named = own.iter().filter(|file| file.is_some()).count();
        if named != 0 && named != own.len() {
            return value(
                "routing.certificate",
                "needs `key` and `ca`, and each of them the others",
                "name all three, or none to use those of `callouts`",
            );
        }
        if named == 0 && edge.callouts.is_none() {
            return value(
                "routing",
                "has nothing to show to operators, which want to know who follows them",
                "set `callouts: { certificate: FILE, key: FILE, ca: FILE }`, or the same keys in `routing`",
            );
        }
        if self.edge.as_deref() == Some("") {
            return value(
                "routing.edge",
                "is empty",
                "leave it out for the pod's or host's name",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::EdgeConfig;

    const CALLOUTS: &str = "callouts: { certificate: /c, key: /k, ca: /a }\n";

    fn parse(routing: &str, rest: &str) -> Result<EdgeConfig, String> {
        let text = format!(
            "hostname: mail.example.com\nspool: /var/spool/opes\ndelivery: {{ nextHop: 'mx.example.com:25' }}\nlisteners:\n  - {{ name: mx, address: '0.0.0.0:2525' }}\nrouting: {routing}\n{rest}"
        );
        EdgeConfig::parse(&text, Path::new("edge.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_place_and_remedy() {
        let good = "{ operator: 'https://operator.example.com:9443' }";
        for (routing, rest, place) in [
            (good, "", "edge.yaml: routing:"),
            (
                good,
                "callouts: { certificate: /c, key: /k, ca: /a }\nrules: /r\n",
                "`rules`",
            ),
            (
                "{ operator: 'http://operator:9443' }",
                CALLOUTS,
                "routing.operator",
            ),
            (
                "{ operator: 'https://operator' }",
                CALLOUTS,
                "routing.operator",
            ),
            (
                "{ operator: 'https://operator:9443', certificate: /c }",
                CALLOUTS,
                "routing.certificate",
            ),
            (
                "{ operator: 'https://operator:9443', edge: '' }",
                CALLOUTS,
                "routing.edge",
            ),
            (
                "{ operator: 'https://operator:9443', cahce: /x }",
                CALLOUTS,
                "cahce",
            ),
        ] {
            let message = parse(routing, rest).unwrap_err();
            assert!(
                message.contains(place) && (message.contains("help:") || place == "cahce"),
                "{message}"
            );
        }
    }

    #[test]
    fn certificates_and_cache_have_places_of_their_own_or_are_with_the_others() {
        let shared = "{ operator: 'https://operator:9443' }";
        let config = parse(shared, CALLOUTS).unwrap();
        let routing = config.routing.as_ref().unwrap();
        let files = routing.files(config.callouts.as_ref()).unwrap();
        assert_eq!(files.certificate, Path::new("/c"));
        let cache = routing.cache_folder(&config.spool);
        assert_eq!(cache, Path::new("/var/spool/opes/routing"));
        let own = "{ operator: 'https://operator:9443', cache: /cache, certificate: /1, key: /2, ca: /3 }";
        let config = parse(own, "").unwrap();
        let routing = config.routing.as_ref().unwrap();
        let files = routing.files(config.callouts.as_ref()).unwrap();
        assert_eq!(
            (files.key.as_path(), files.ca.as_path()),
            (Path::new("/2"), Path::new("/3"))
        );
        assert_eq!(routing.cache_folder(&config.spool), Path::new("/cache"));
    }
}
