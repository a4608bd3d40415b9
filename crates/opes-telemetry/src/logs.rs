//! The process-wide log subscriber: events on stderr, for people or for machines.
//!
//! Owns the global `tracing` subscriber. Fails if the level cannot be parsed or a subscriber is already there.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// Neither a level nor a filter directive.
    #[error(
        "log level `{level}`: {reason}; use error, warn, info, debug, trace or a filter such as `info,opes_edge=debug`"
    )]
    Level {
        /// As given.
        level: String,
        /// What the filter parser says.
        reason: String,
    },
    /// Another subscriber got there first.
    #[error("logging is already set up in this process")]
    AlreadySet,
}

/// The word for `Format` on a command line.
impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(format!(
                "log format `{other}` is unknown; use human or json"
            )),
        }
    }
}

/// Sends log events of `level` and above to stderr. `level` is a level name or an `EnvFilter` directive list.
pub fn init_logs(format: Format, level: &str) -> Result<(), LogsError> {
    let filter = parse_level(level)?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match format {
        Format::Human => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        Format::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .try_init(),
    };
    outcome.map_err(|_| LogsError::AlreadySet)
}

fn parse_level(level: &str) -> Result<EnvFilter, LogsError> {
    let refuse = |reason: String| LogsError::Level {
        level: level.to_owned(),
        reason,
    };
    // A lone unknown word would be taken for a target name and silence everything else.
    let lone_word = !level.contains(['=', ',', '[']);
    if lone_word
        && level
            .parse::<tracing::level_filters::LevelFilter>()
            .is_err()
    {
        return Err(refuse("not a level".to_owned()));
    }
    EnvFilter::try_new(level).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_accepted() {
        for level in [
            "error",
            "info",
            "off",
            "info,opes_edge=debug",
            "opes_edge=trace",
        ] {
            assert!(parse_level(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused_with_the_remedy() {
        let error = parse_level("inof").unwrap_err().to_string();
        assert!(
            error.contains("`inof`") && error.contains("use error, warn"),
            "{error}"
        );
        assert!(parse_level("opes_edge=loud").is_err());
    }

    #[test]
    fn formats_have_words() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!("human".parse(), Ok(Format::Human));
        assert!(
            "xml"
                .parse::<Format>()
                .unwrap_err()
                .contains("human or json")
        );
    }
}
