//! Values that can be read and cannot work.

use std::time::Duration;

use super::{ConfigError, S3, Settings, StoreConfig};

/// Longest template, octets.
const TEXT_OCTETS_MAX: usize = 2000;
/// Longest line of it; with everything filled in it stays under the 998 of RFC 5322 §2.1.1.
const TEXT_LINE_OCTETS_MAX: usize = 200;
/// Longest base, octets: with the link behind it stays on one line of mail.
const BASE_URL_OCTETS_MAX: usize = 200;
/// Links that outlive this are an archive.
const LIFETIME_MAX: Duration = Duration::from_hours(10 * 366 * 24);
/// Most parts of one message; also bounds the edits.
const COUNT_MAX: usize = 500;
/// Most entries of a list of types.
const TYPES_MAX: usize = 1000;

fn problem<T>(field: &'static str, problem: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError::Value { field, problem })
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.size_min == 0 {
            return problem(
                "sizeMin",
                "0 would move every part; write octets, such as 5242880",
            );
        }
        if self.size_max < self.size_min {
            return problem("sizeMax", "is less than sizeMin, so nothing would be moved");
        }
        if self.count_max == 0 || self.count_max > COUNT_MAX {
            return problem("countMax", "is not from 1 to 500");
        }
        if self.lifetime.is_zero() || self.lifetime > LIFETIME_MAX {
            return problem("lifetime", "is not from 1s to ten years; write 30d");
        }
        is_types("types", &self.types)?;
        is_types("typesExcluded", &self.types_excluded)?;
        if !self.text.contains("{link}") {
            return problem("text", "has no {link}, so nobody could get the attachment");
        }
        if self.text.len() > TEXT_OCTETS_MAX
            || self
                .text
                .lines()
                .any(|line| line.len() > TEXT_LINE_OCTETS_MAX)
        {
            return problem(
                "text",
                "is longer than 2000 octets, or has a line over 200; shorten it",
            );
        }
        // Three links of 251 octets and 200 of text still fit a line of mail.
        if self.text.lines().any(|line| line.matches('{').count() > 3) {
            return problem(
                "text",
                "has a line with more than 3 places to fill in; use several lines",
            );
        }
        Ok(())
    }
}

impl StoreConfig {
    pub(super) fn check(&self, has_key_file: bool) -> Result<(), ConfigError> {
        match self {
            Self::Folder(folder) if folder.as_os_str().is_empty() => problem(
                "store.folder",
                "is empty; write a folder that nobody else writes to",
            ),
            Self::Folder(_) => Ok(()),
            Self::S3(_) if !has_key_file => problem(
                "keyFile",
                "is needed with store.s3: all instances must sign alike; write 32 random octets in base64 into a file (openssl rand -base64 32)",
            ),
            Self::S3(s3) => s3.check(),
        }
    }
}

impl S3 {
    fn check(&self) -> Result<(), ConfigError> {
        if self.access_key_id_file.is_some() != self.secret_access_key_file.is_some() {
            return problem(
                "store.s3.accessKeyIdFile",
                "needs secretAccessKeyFile, and the other way round; name both files, or none to take credentials from the environment",
            );
        }
        let endpoint = self.endpoint.as_deref().unwrap_or("https://");
        if !endpoint.starts_with("https://") && !is_loopback(endpoint) {
            return problem(
                "store.s3.endpoint",
                "is not https://…: mail would travel in the clear; http:// is for loopback only",
            );
        }
        Ok(())
    }
}

fn is_types(field: &'static str, types: &[String]) -> Result<(), ConfigError> {
    let is_type = |entry: &String| {
        let halves = entry.split_once('/');
        halves.is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
    };
    if types.len() > TYPES_MAX || !types.iter().all(is_type) {
        return problem(
            field,
            "is not a list of at most 1000 media types; write application/pdf, image/* or */*",
        );
    }
    Ok(())
}

pub(super) fn base_url(url: &str) -> Result<(), ConfigError> {
    let field = "baseUrl";
    if url.is_empty() {
        return problem(
            field,
            "is missing; write what readers reach the web server under, such as https://files.example.com",
        );
    }
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~:/[]".contains(&octet);
    if url.len() > BASE_URL_OCTETS_MAX || !url.bytes().all(plain) {
        return problem(
            field,
            "has more than a scheme, a host, a port and a path of letters, digits, - . _ ~, or is over 200 octets",
        );
    }
    if !url.starts_with("https://") && !is_loopback(url) {
        return problem(
            field,
            "is not https://…: who reads a link on its way could use it; http:// is for loopback only",
        );
    }
    if url.len() <= "https://".len() {
        return problem(field, "has no host");
    }
    Ok(())
}

/// `http://` to this machine.
fn is_loopback(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let is_port = |port: &str| {
        let number = port.strip_prefix(':').map(str::parse::<u16>);
        port.is_empty() || number.is_some_and(|number| number.is_ok())
    };
    ["127.0.0.1", "[::1]", "localhost"]
        .iter()
        .any(|host| authority.strip_prefix(host).is_some_and(is_port))
}

pub(super) fn limits(uploads_max: usize, connections_max: usize) -> Result<(), ConfigError> {
    if !(1..=1024).contains(&uploads_max) {
        return problem("uploadsMax", "is not from 1 to 1024");
    }
    if !(1..=65_536).contains(&connections_max) {
        return problem("connectionsMax", "is not from 1 to 65536");
    }
    Ok(())
}
