//! What makes no sense in settings that can be read.

use opes_mime::edit::LINE_OCTETS_MAX;

use super::{ConfigError, ENTRIES_MAX, POLICIES_MAX, Settings};
use crate::formats;

pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    let problem = |field, problem| Err(ConfigError::Value { field, problem });
    let is_type = |entry: &&String| !entry.contains('/') && !formats::is_known(entry);
    if let Some(unknown) = settings.block_types.iter().find(is_type) {
        return Err(ConfigError::UnknownType(unknown.clone()));
    }
    if settings.block_types.len() > ENTRIES_MAX {
        return problem("blockTypes", "more than 1000 entries; use groups or type/*");
    }
    if settings.block_names.len() > ENTRIES_MAX {
        return problem("blockNames", "more than 1000 entries; use * and ?");
    }
    if settings
        .block_names
        .iter()
        .any(|pattern| pattern.trim().is_empty())
    {
        return problem("blockNames", "an empty pattern; write a name such as *.exe");
    }
    if settings
        .block_names
        .iter()
        .any(|pattern| pattern.len() > LINE_OCTETS_MAX)
    {
        return problem(
            "blockNames",
            "a pattern of more than 998 octets; use * and ?",
        );
    }
    if !settings
        .header
        .bytes()
        .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
        || settings.header.len() > 76
    {
        return problem(
            "header",
            "not a header field name; use letters, digits and hyphens, 76 at most, e.g. X-Opes-Security",
        );
    }
    if settings.subject_mark.chars().any(char::is_control)
        || settings.subject_mark.chars().count() > 200
    {
        return problem(
            "subjectMark",
            "more than one line or 200 characters; use a short text, or an empty one for no mark",
        );
    }
    if settings.size_max == 0 || settings.size_max > 1 << 32 {
        return problem(
            "sizeMax",
            "not between 1 and 4294967296 octets; 67108864 is 64 MiB",
        );
    }
    if settings.large_messages == 0 || settings.large_messages > 10_000 {
        return problem(
            "largeMessages",
            "not between 1 and 10000; memory is bounded by this times sizeMax",
        );
    }
    if settings
        .policies
        .as_ref()
        .is_some_and(|policies| policies.len() > POLICIES_MAX)
    {
        return problem("policies", "more than 100; use * and ? in their patterns");
    }
    if let Some(clamd) = &settings.clamd {
        clamd.check()?;
    }
    settings.archives.check()
}

/// What `blockTypes` may name.
pub(super) fn known_types() -> String {
    let mut names: Vec<&str> = formats::FORMATS
        .iter()
        .flat_map(|format| [format.group, format.name])
        .collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}
