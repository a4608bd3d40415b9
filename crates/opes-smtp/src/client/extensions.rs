//! What the peer offered in its EHLO or LHLO reply (RFC 5321 §4.1.1.1). Unknown keywords are skipped; a malformed
//! parameter counts as if the keyword came without one.

use crate::limits::BYPASS_KEYWORD;

/// Extensions this client makes use of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a keyword that is there or not"
)]
pub struct Extensions {
    /// RFC 2920
    pub pipelining: bool,
    /// RFC 1870. Octets; `Some(0)` is "offered, no fixed limit".
    pub size_max: Option<u64>,
    /// RFC 6152
    pub eight_bit_mime: bool,
    /// RFC 6531
    pub smtputf8: bool,
    /// RFC 3461
    pub dsn: bool,
    /// RFC 3207
    pub starttls: bool,
    /// R4902-23
    pub opes_bypass: bool,
}

impl Extensions {
    /// Reads the lines of the reply; the first is the peer's name and says nothing about extensions.
    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for line in lines.skip(1) {
            found.note(line);
        }
        found
    }

    fn note(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            BYPASS_KEYWORD => self.opes_bypass = true,
            "SIZE" => {
                self.size_max = Some(
                    words
                        .next()
                        .and_then(|limit| limit.parse().ok())
                        .unwrap_or(0),
                );
            }
            _ => {}
        }
    }

    /// Whether the peer said beforehand that a message of this size has no chance (RFC 1870 §6.1).
    pub(super) fn refuse_size(&self, octets: u64) -> bool {
        self.size_max
            .is_some_and(|limit| limit != 0 && octets > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::Extensions;

    #[test]
    fn keywords_are_read_in_any_case_and_the_name_is_not_one() {
        let lines = [
            "PIPELINING",
            "Size 1000",
            "8bitmime",
            "X-OTHER a b",
            "starttls",
            "SMTPUTF8",
            "DSN",
        ];
        let all = Extensions::parse(std::iter::once("mx.example.com").chain(lines));
        assert!(all.pipelining && all.eight_bit_mime && all.smtputf8 && all.dsn && all.starttls);
        assert_eq!(all.size_max, Some(1000));
        assert!(!Extensions::parse(["PIPELINING"].into_iter()).pipelining);
    }

    #[test]
    fn size_without_a_number_is_no_limit() {
        let offered = Extensions::parse(["mx", "SIZE"].into_iter());
        assert_eq!(offered.size_max, Some(0));
        assert!(!offered.refuse_size(u64::MAX));
        assert!(Extensions::parse(["mx", "SIZE 10"].into_iter()).refuse_size(11));
    }
}
