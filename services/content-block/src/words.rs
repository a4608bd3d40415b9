//! Words and patterns, found in one pass over a text whose time grows with the text only.

use regex::{RegexSet, RegexSetBuilder, escape};

/// Octets that the compiled patterns of one configuration may take.
const COMPILED_OCTETS_MAX: usize = 16 * 1024 * 1024;

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Words {
    set: RegexSet,
    /// As configured, in the order of the set.
    names: Vec<String>,
}

/// A pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WordError {
    /// Of its own.
    #[error("patterns: `{pattern}`: {reason}")]
    Pattern {
        /// As configured.
        pattern: String,
        /// What is wrong with it, in one line.
        reason: String,
    },
    /// All of them together.
    #[error(
        "words and patterns: together they are too large; repetitions such as {{1000}} cost most"
    )]
    TooLarge,
}

/// The first entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Word or pattern as configured.
    pub entry: String,
}

// === impl Words ===

impl Words {
    /// Words are whole words or phrases, in any case; patterns are regular expressions, in any case too.
    pub fn new(words: &[String], patterns: &[String]) -> Result<Self, WordError> {
        for pattern in patterns {
            if let Err(error) = build(std::slice::from_ref(pattern)) {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default();
                return Err(WordError::Pattern {
                    pattern: pattern.clone(),
                    reason: reason.trim_start_matches("error: ").to_owned(),
                });
            }
        }
        let all: Vec<_> = words
            .iter()
            .map(|word| whole(word))
            .chain(patterns.iter().cloned())
            .collect();
        Ok(Self {
            set: build(&all).map_err(|_| WordError::TooLarge)?,
            names: words.iter().chain(patterns).cloned().collect(),
        })
    }

    /// In the order of the configuration.
    pub fn find(&self, text: &str) -> Option<Found> {
        let first = self.set.matches(text).iter().next()?;
        self.names.get(first).map(|entry| Found {
            entry: entry.clone(),
        })
    }

    /// Nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// `\b` only where a letter or digit stands at the edge: `100%` has no word boundary behind it.
fn whole(word: &str) -> String {
    let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
    let edge = |c: Option<char>| {
        if c.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            r"\b"
        } else {
            ""
        }
    };
    let (before, behind) = (edge(word.chars().next()), edge(word.chars().next_back()));
    format!("{before}{}{behind}", escape(&word))
}

fn build(patterns: &[String]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns)
        .case_insensitive(true)
        .size_limit(COMPILED_OCTETS_MAX)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str], patterns: &[&str]) -> Result<Words, WordError> {
        let owned = |list: &[&str]| {
            list.iter()
                .map(|&entry| entry.to_owned())
                .collect::<Vec<_>>()
        };
        Words::new(&owned(words), &owned(patterns))
    }

    #[test]
    fn whole_words_phrases_and_patterns_in_any_case() {
        let words = words(
            &["casino", "free  money", "100%", "größe"],
            &[r"v[i1]agra", r"\bwin \d+\b"],
        )
        .unwrap();
        for (text, found) in [
            ("the CASINO is open", Some("casino")),
            ("casinos", None),
            ("Free money now", Some("free  money")),
            ("it is 100% sure", Some("100%")),
            ("GRÖSSE", None),
            ("GRÖßE", Some("größe")),
            ("cheap V1agra", Some("v[i1]agra")),
            ("you win 1000 times", Some(r"\bwin \d+\b")),
            ("nothing", None),
        ] {
            let entry = words.find(text).map(|found| found.entry);
            assert_eq!(entry.as_deref(), found, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = words(&[], &["fine", "(open"]).unwrap_err().to_string();
        assert!(
            error.contains("`(open`") && error.contains("unclosed group"),
            "{error}"
        );
        let error = words(&[], &[r"(\w{1000}){1000}"]).unwrap_err().to_string();
        assert!(
            error.contains("size limit") || error.contains("too large"),
            "{error}"
        );
    }
}
