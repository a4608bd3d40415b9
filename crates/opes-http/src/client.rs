//! One POST to an engine: a question, or something that it is told.

use std::path::Path;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Certificate, Client, Response, StatusCode, Url, redirect};
use secrecy::ExposeSecret as _;

use crate::Field;
use crate::settings::{Credential, Settings, SettingsError, file};

/// An engine that is asked over HTTP. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Engine {
    client: Client,
    url: Url,
    credential: Credential,
    response_size_max: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Not reached, or not in time.
    #[error("{engine} cannot be asked: {reason}")]
    Unreachable {
        /// Scheme, host and port.
        engine: String,
        /// The network's words.
        reason: String,
    },
    /// Everything but 200.
    #[error("{engine} answered {status}")]
    Status {
        /// Scheme, host and port.
        engine: String,
        /// As it came.
        status: StatusCode,
    },
    /// More than [`Settings::response_size_max`].
    #[error("the response of {engine} is larger than responseSizeMax ({max})")]
    TooLarge {
        /// Scheme, host and port.
        engine: String,
        /// Octets.
        max: usize,
    },
    /// A value that HTTP cannot carry.
    #[error("`{name}` has a value that HTTP cannot carry")]
    Field {
        /// Of the request.
        name: &'static str,
    },
}

// === impl AskError ===

impl AskError {
    /// Would the same request fail again? Not if the engine was not reached, or says that it has too much to do (RFC 9110 §15.5, §15.6).
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Status { status, .. } => {
                let later = [
                    StatusCode::REQUEST_TIMEOUT,
                    StatusCode::TOO_EARLY,
                    StatusCode::TOO_MANY_REQUESTS,
                ];
                !status.is_server_error() && !later.contains(status)
            }
            Self::TooLarge { .. } | Self::Field { .. } => true,
        }
    }
}

// === impl Engine ===

impl Engine {
    /// Reads the files that are named; connects to nothing yet.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let builder = Client::builder()
            .timeout(settings.timeout)
            .redirect(redirect::Policy::none())
            .no_proxy();
        let builder = match &settings.ca_file {
            Some(path) => builder.tls_certs_only(authorities(path)?),
            None => builder,
        };
        let client = builder
            .build()
            .map_err(|error| SettingsError::Client(error.to_string()))?;
        Ok(Self {
            client,
            url: settings.parsed_url()?,
            credential: settings.credential,
            response_size_max: settings.response_size_max,
        })
    }

    /// The body of its answer to this one.
    pub async fn ask(
        &self,
        content_type: &'static str,
        fields: &[Field<'_>],
        body: impl Into<Body>,
    ) -> Result<Vec<u8>, AskError> {
        let mut response = self.send(content_type, fields, body.into()).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(self.status(status));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable(error))?
        {
            if body.len() + chunk.len() > self.response_size_max {
                let (engine, max) = (self.place(), self.response_size_max);
                return Err(AskError::TooLarge { engine, max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Tells it something: any 2xx will do, and what it says besides is not read.
    pub async fn tell(
        &self,
        content_type: &'static str,
        body: impl Into<Body>,
    ) -> Result<(), AskError> {
        let response = self.send(content_type, &[], body.into()).await?;
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(self.status(status))
        }
    }

    async fn send(
        &self,
        content_type: &'static str,
        fields: &[Field<'_>],
        body: Body,
    ) -> Result<Response, AskError> {
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, content_type)
            .headers(headers(fields)?)
            .body(body);
        let request = match &self.credential {
            Credential::None => request,
            Credential::Basic { user, password } => {
                request.basic_auth(user, Some(password.expose_secret()))
            }
            Credential::Bearer(token) => request.bearer_auth(token.expose_secret()),
        };
        request
            .send()
            .await
            .map_err(|error| self.unreachable(error))
    }

    fn status(&self, status: StatusCode) -> AskError {
        AskError::Status {
            engine: self.place(),
            status,
        }
    }

    /// The innermost cause says what happened.
    fn unreachable(&self, error: reqwest::Error) -> AskError {
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        AskError::Unreachable {
            engine: self.place(),
            reason: cause.to_string(),
        }
    }

    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

fn headers(fields: &[Field<'_>]) -> Result<HeaderMap, AskError> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for &(name, value) in fields {
        let parsed = HeaderValue::from_bytes(value.as_bytes());
        let parsed = parsed.map_err(|_| AskError::Field { name })?;
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| AskError::Field { name })?;
        headers.append(key, parsed);
    }
    Ok(headers)
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, SettingsError> {
    let pem = std::fs::read(path).map_err(|error| file(path, error))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(file(path, "it holds no certificate")),
        Err(error) => Err(file(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener};
    use std::time::Duration;

    use super::*;

    /// Answers one request with these octets.
    fn answers(octets: &'static [u8]) -> Engine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/secret?key=1", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _read = stream.read(&mut request);
            let _gone = stream.write_all(octets);
            // Closed with something unread, it would be reset, and the answer could be lost.
            let _gone = stream.shutdown(Shutdown::Write);
            let _rest = std::io::copy(&mut stream, &mut std::io::sink());
        });
        let settings = Settings {
            url,
            ca_file: None,
            insecure_plaintext: false,
            credential: Credential::None,
            timeout: Duration::from_secs(30),
            response_size_max: 5,
        };
        Engine::new(settings).unwrap()
    }

    async fn said(octets: &'static [u8]) -> String {
        match answers(octets).ask("text/plain", &[], "x").await {
            Ok(body) => String::from_utf8(body).unwrap(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn answers_and_what_is_none() {
        assert_eq!(
            said(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await,
            "hello"
        );
        for (octets, expected) in [
            (
                &b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"
                    [..],
                "answered 302",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!",
                "responseSizeMax (5)",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
                "cannot be asked",
            ),
            (b"220 ESMTP\r\n", "cannot be asked"),
        ] {
            let text = said(octets).await;
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("secret") && !text.contains("key"), "{text}");
        }
    }

    #[tokio::test]
    async fn telling_takes_any_success_and_knows_what_is_final() {
        for octets in [
            &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
            b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\nand so on",
        ] {
            answers(octets).tell("text/plain", "x").await.unwrap();
        }
        for (octets, is_final) in [
            (
                &b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n"[..],
                false,
            ),
            (b"HTTP/1.1 429 Later\r\nContent-Length: 0\r\n\r\n", false),
            (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", true),
            (b"HTTP/1.1 302 No\r\nContent-Length: 0\r\n\r\n", true),
            (b"", false),
        ] {
            let error = answers(octets).tell("text/plain", "x").await.unwrap_err();
            assert_eq!(error.is_final(), is_final, "{error}");
        }
    }

    #[tokio::test]
    async fn a_value_cannot_add_fields() {
        let error = answers(b"")
            .ask("text/plain", &[("From", "a\r\nX: y")], "x")
            .await
            .unwrap_err();
        assert!(matches!(error, AskError::Field { name: "From" }), "{error}");
    }
}
