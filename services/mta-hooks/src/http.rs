//! One POST to the scanner: bounded in time and size, redirected nowhere, through no proxy of the environment.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Certificate, Client, RequestBuilder, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::Config;

/// Octets of a file with a credential.
const CREDENTIAL_OCTETS_MAX: u64 = 64 * 1024;

/// The scanner.
#[derive(Debug, Clone)]
pub(crate) struct Scanner {
    client: Client,
    url: Url,
    credential: Credential,
    response_size_max: usize,
}

#[derive(Debug, Clone)]
enum Credential {
    None,
    Basic {
        user: String,
        password: SecretString,
    },
    Bearer(SecretString),
}

// === impl Scanner ===

impl Scanner {
    /// Reads the files that the configuration names; connects to nothing yet.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let builder = Client::builder()
            .timeout(config.timeout())
            .redirect(redirect::Policy::none())
            .no_proxy();
        let builder = match &config.ca_file {
            Some(path) => builder.tls_certs_only(authorities(path)?),
            None => builder,
        };
        Ok(Self {
            client: builder.build().context("HTTP client")?,
            url: config.parsed_url()?,
            credential: Credential::of(config)?,
            response_size_max: config.response_size_max,
        })
    }

    /// The body of its answer. Everything but 200 is an error.
    pub(crate) async fn ask(&self, request: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let post = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(request);
        let sent = self.credential.add(post).send().await;
        let mut response = sent.map_err(|error| self.failed(error))?;
        let status = response.status();
        ensure!(
            status == 200,
            "the scanner at {} answered {status}",
            self.place()
        );
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if body.len() + chunk.len() > self.response_size_max {
                bail!(
                    "the scanner's response is larger than responseSizeMax ({})",
                    self.response_size_max
                );
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The innermost cause says what happened; the URL's query may hold a secret.
    fn failed(&self, error: reqwest::Error) -> anyhow::Error {
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        anyhow::anyhow!("the scanner at {} cannot be asked: {cause}", self.place())
    }

    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

// === impl Credential ===

impl Credential {
    fn of(config: &Config) -> anyhow::Result<Self> {
        if let Some(path) = &config.basic_auth_file {
            let text = secret(path)?;
            let Some((user, password)) = text.expose_secret().split_once(':') else {
                bail!(
                    "basicAuthFile: {} does not hold `user:password`",
                    path.display()
                );
            };
            return Ok(Self::Basic {
                user: user.to_owned(),
                password: password.into(),
            });
        }
        match &config.bearer_token_file {
            Some(path) => Ok(Self::Bearer(secret(path)?)),
            None => Ok(Self::None),
        }
    }

    fn add(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::None => request,
            Self::Basic { user, password } => {
                request.basic_auth(user, Some(password.expose_secret()))
            }
            Self::Bearer(token) => request.bearer_auth(token.expose_secret()),
        }
    }
}

/// The first line of a file.
fn secret(path: &Path) -> anyhow::Result<SecretString> {
    let place = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(place)?.len();
    ensure!(
        size <= CREDENTIAL_OCTETS_MAX,
        "{} is too large for a credential",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(place)?;
    let line = text.lines().next().unwrap_or_default().trim();
    ensure!(!line.is_empty(), "{} is empty", path.display());
    Ok(line.into())
}

fn authorities(path: &Path) -> anyhow::Result<Vec<Certificate>> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = Certificate::from_pem_bundle(&pem);
    let found = found.with_context(|| format!("{} is not PEM", path.display()))?;
    ensure!(
        !found.is_empty(),
        "caFile: {} holds no certificate",
        path.display()
    );
    Ok(found)
}
