//! What there is to configure of an engine, and what makes no sense.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

/// Octets of a file with a credential.
const CREDENTIAL_OCTETS_MAX: u64 = 64 * 1024;

/// How to reach an engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://host/path`; `http://` on this machine only, unless [`insecure_plaintext`](Self::insecure_plaintext).
    pub url: String,
    /// PEM file with the authorities that may vouch for it, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// Mail may go over the network in the clear.
    pub insecure_plaintext: bool,
    /// Who we are to it.
    pub credential: Credential,
    /// For one request.
    pub timeout: Duration,
    /// Octets of a response.
    pub response_size_max: usize,
}

/// What a request carries to be let in.
#[derive(Debug, Clone, Default)]
pub enum Credential {
    /// Nothing.
    #[default]
    None,
    /// HTTP Basic authentication.
    Basic {
        /// Without colon.
        user: String,
        /// Never logged.
        password: SecretString,
    },
    /// A token.
    Bearer(SecretString),
}

/// What of it makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not a URL of an engine.
    #[error("url: `{url}` is not an http or https URL: {reason}")]
    Url {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `http://` to another machine.
    #[error(
        "url: mail would go over the network in the clear to {host}\n  help: write https://, or insecurePlaintext: true if the network is trusted"
    )]
    InTheClear {
        /// Of the URL.
        host: String,
    },
    /// Both kinds of credentials.
    #[error("basicAuthFile and bearerTokenFile: one request carries one of them; remove the other")]
    TwoCredentials,
    /// A file that is named.
    #[error("{}: {reason}", path.display())]
    File {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The client cannot be made.
    #[error("HTTP client: {0}")]
    Client(String),
}

// === impl Settings ===

impl Settings {
    /// The URL, if mail may go there.
    pub fn parsed_url(&self) -> Result<Url, SettingsError> {
        let wrong = |reason: String| SettingsError::Url {
            url: self.url.clone(),
            reason,
        };
        let url: Url = self
            .url
            .parse()
            .map_err(|error| wrong(format!("{error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("credentials belong into a file".to_owned()));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.insecure_plaintext || is_this_machine(&host) => Ok(url),
            "http" => Err(SettingsError::InTheClear { host }),
            other => Err(wrong(format!("`{other}` is another scheme"))),
        }
    }
}

// === impl Credential ===

impl Credential {
    /// From files: `user:password`, or a token.
    pub fn from_files(basic: Option<&Path>, bearer: Option<&Path>) -> Result<Self, SettingsError> {
        match (basic, bearer) {
            (Some(_), Some(_)) => Err(SettingsError::TwoCredentials),
            (Some(path), None) => {
                let text = secret(path)?;
                let parts = text.expose_secret().split_once(':');
                let (user, password) =
                    parts.ok_or_else(|| file(path, "it does not hold `user:password`"))?;
                Ok(Self::Basic {
                    user: user.to_owned(),
                    password: password.into(),
                })
            }
            (None, Some(path)) => Ok(Self::Bearer(secret(path)?)),
            (None, None) => Ok(Self::None),
        }
    }
}

pub(crate) fn file(path: &Path, reason: impl std::fmt::Display) -> SettingsError {
    SettingsError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// The first line of a file.
fn secret(path: &Path) -> Result<SecretString, SettingsError> {
    let size = std::fs::metadata(path)
        .map_err(|error| file(path, error))?
        .len();
    if size > CREDENTIAL_OCTETS_MAX {
        return Err(file(path, "it is too large for a credential"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| file(path, error))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(line.into()),
        _ => Err(file(path, "it is empty")),
    }
}

fn is_this_machine(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    address.is_ok_and(|address| address.is_loopback()) || host == "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, insecure_plaintext: bool) -> Settings {
        Settings {
            url: url.to_owned(),
            ca_file: None,
            insecure_plaintext,
            credential: Credential::None,
            timeout: Duration::from_secs(1),
            response_size_max: 1,
        }
    }

    #[test]
    fn where_mail_may_go() {
        for (url, said) in [
            ("scan.example.com", "not an http or https URL"),
            ("ftp://scan.example.com", "another scheme"),
            (
                "http://scan.example.com/",
                "in the clear to scan.example.com",
            ),
            ("https://u:p@scan.example.com/", "into a file"),
        ] {
            let error = settings(url, false).parsed_url().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        for url in [
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
            "http://localhost/",
            "https://scan.example.com/",
        ] {
            settings(url, false).parsed_url().unwrap();
        }
        settings("http://scan.example.com/", true)
            .parsed_url()
            .unwrap();
    }
}
