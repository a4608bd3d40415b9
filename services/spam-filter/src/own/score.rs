//! The sum: what each finding is called and weighs, and the field that shows all of it.

use crate::config::own::OwnConfig;

/// Octets of a line of the field, about, before it is folded (RFC 5322 §2.1.1).
const LINE_OCTETS: usize = 78;

/// Octets of the usual field's name and what follows it.
const NAME_OCTETS: usize = 16;

macro_rules! symbols {
    ($($(#[$meaning:meta])* $variant:ident $name:literal $weight:literal,)*) => {
        /// A finding. docs/services/spam-filter.md has the same table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Symbol {
            $($(#[$meaning])* $variant,)*
        }

        impl Symbol {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As the field has it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Unless configured otherwise.
            pub const fn weight(self) -> f64 {
                match self {
                    $(Self::$variant => $weight,)*
                }
            }
        }
    };
}

symbols! {
    /// The client may send for the domain of the reverse-path.
    SpfPass "SPF_PASS" -0.5,
    /// It may not.
    SpfFail "SPF_FAIL" 3.5,
    /// It probably may not.
    SpfSoftFail "SPF_SOFTFAIL" 1.5,
    /// The domain does not say.
    SpfNeutral "SPF_NEUTRAL" 0.5,
    /// The domain has no record.
    SpfNone "SPF_NONE" 0.5,
    /// Its record cannot be followed.
    SpfPermError "SPF_PERMERROR" 1.0,
    /// DNS did not answer.
    SpfTempError "SPF_TEMPERROR" 0.0,
    /// At least one signature is good.
    DkimPass "DKIM_PASS" -0.5,
    /// There are signatures, and none is good. Not worse than none (RFC 6376 §6.1).
    DkimFail "DKIM_FAIL" 0.5,
    /// No signature.
    DkimNone "DKIM_NONE" 0.5,
    /// No signature is good, and for at least one DNS did not answer.
    DkimTempError "DKIM_TEMPERROR" 0.0,
    /// The author's domain vouches for the message.
    DmarcPass "DMARC_PASS" -1.0,
    /// It does not, and asks for nothing.
    DmarcFail "DMARC_FAIL" 1.0,
    /// It does not, and asks to be suspicious.
    DmarcQuarantine "DMARC_QUARANTINE" 4.0,
    /// It does not, and asks to refuse.
    DmarcReject "DMARC_REJECT" 6.0,
    /// Authors of different domains, or a record that cannot be read.
    DmarcPermError "DMARC_PERMERROR" 1.0,
    /// DNS did not answer.
    DmarcTempError "DMARC_TEMPERROR" 0.0,
    /// No From, or none with an address.
    FromMissing "FROM_MISSING" 3.0,
    /// More than one From, or several authors without a Sender.
    FromMultiple "FROM_MULTIPLE" 4.0,
    /// The name beside the author's address has another address in it.
    FromNameAddress "FROM_NAME_ADDRESS" 3.0,
    /// Author and reverse-path are of different organisations. Usual for mailing lists.
    EnvelopeFromDiffers "ENVELOPE_FROM_DIFFERS" 0.5,
    /// Replies go to another organisation than the author's.
    ReplyToDiffers "REPLY_TO_DIFFERS" 0.5,
    /// No recipient is named in To or Cc.
    RecipientNotNamed "RECIPIENT_NOT_NAMED" 0.5,
    /// No Date that can be read.
    DateMissing "DATE_MISSING" 1.0,
    /// More than a day ahead, or two weeks behind.
    DateFar "DATE_FAR" 1.5,
    /// No Message-ID.
    MessageIdMissing "MESSAGE_ID_MISSING" 1.0,
    /// The client did not say a name with a dot, nor an address literal.
    HeloNoName "HELO_NO_NAME" 1.5,
    /// The header section is beyond what is looked at: a megabyte, or 1000 fields.
    HeaderTooLarge "HEADER_TOO_LARGE" 3.0,
}

/// Findings with their weights.
#[derive(Debug, Clone, Default)]
pub(crate) struct Score {
    findings: Vec<(String, f64)>,
}

// === impl Symbol ===

impl Symbol {
    /// By name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.name() == name)
    }

    /// What DNS does not answer weighs nothing.
    pub(crate) const fn is_fixed(self) -> bool {
        matches!(
            self,
            Self::SpfTempError | Self::DkimTempError | Self::DmarcTempError
        )
    }
}

// === impl Score ===

impl Score {
    pub(crate) fn add(&mut self, symbol: Symbol, config: &OwnConfig) {
        self.add_named(symbol.name().to_owned(), config.weight(symbol));
    }

    pub(crate) fn add_named(&mut self, name: String, weight: f64) {
        self.findings.push((name, weight));
    }

    /// The sum.
    pub(crate) fn total(&self) -> f64 {
        // In what is shown: 0.1 and 0.2 make 0.3, and a threshold is met when the field says so.
        let sum: f64 = self.findings.iter().map(|(_, weight)| weight).sum();
        (sum * 1000.0).round() / 1000.0
    }

    /// `Yes, score=7.5 required=6.0 tests=SPF_FAIL(3.5),DNSBL_ZEN(4.0)`, folded.
    pub(crate) fn status(&self, required: f64) -> String {
        let total = self.total();
        let word = if total >= required { "Yes" } else { "No" };
        let mut status = format!(
            "{word}, score={} required={} tests=",
            number(total),
            number(required)
        );
        if self.findings.is_empty() {
            status.push_str("none");
        }
        let mut line = status.len() + NAME_OCTETS;
        for (nth, (name, weight)) in self.findings.iter().enumerate() {
            let comma = if nth == 0 { "" } else { "," };
            let shown = format!("{name}({})", number(*weight));
            status.push_str(comma);
            line += comma.len() + shown.len();
            if line > LINE_OCTETS {
                status.push_str("\r\n\t");
                line = shown.len() + 1;
            }
            status.push_str(&shown);
        }
        status
    }

    /// For logs.
    pub(crate) fn reason(&self) -> String {
        let shown: Vec<_> = self
            .findings
            .iter()
            .map(|(name, weight)| format!("{name}({})", number(*weight)))
            .collect();
        format!("{} {}", number(self.total()), shown.join(" "))
    }
}

/// As short as it is exact: `6.0`, `0.25`.
fn number(value: f64) -> String {
    let long = format!("{value:.3}");
    let short = long.trim_end_matches('0');
    let zero = if short.ends_with('.') { "0" } else { "" };
    match format!("{short}{zero}").as_str() {
        "-0.0" => "0.0".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_adds_up() {
        let mut score = Score::default();
        assert_eq!(score.status(6.0), "No, score=0.0 required=6.0 tests=none");
        score.add_named("SPF_FAIL".into(), 3.5);
        score.add_named("DNSBL_ZEN".into(), 4.0);
        assert_eq!(
            score.status(6.0),
            "Yes, score=7.5 required=6.0 tests=SPF_FAIL(3.5),DNSBL_ZEN(4.0)"
        );
        score.add_named("A".into(), -7.6);
        score.add_named("B".into(), 0.25);
        assert!((score.total() - 0.15).abs() < f64::EPSILON);
        assert_eq!(
            score.reason(),
            "0.15 SPF_FAIL(3.5) DNSBL_ZEN(4.0) A(-7.6) B(0.25)"
        );
    }

    #[test]
    fn long_fields_are_folded() {
        let mut score = Score::default();
        for symbol in Symbol::ALL {
            score.add_named(symbol.name().into(), symbol.weight());
        }
        let status = format!("X-Spam-Status: {}", score.status(6.0));
        assert!(
            status
                .split("\r\n")
                .all(|line| line.len() <= LINE_OCTETS + 1),
            "{status}"
        );
        assert_eq!(status.matches('(').count(), Symbol::ALL.len());
    }

    #[test]
    fn the_documents_table_is_this_one() {
        let page = include_str!("../../../../docs/services/spam-filter.md");
        for symbol in Symbol::ALL {
            let row = format!("| `{}` | {} |", symbol.name(), number(symbol.weight()));
            assert!(page.contains(&row), "missing in the page: {row}");
        }
        let rows = page.lines().filter(|line| {
            let name = line
                .strip_prefix("| `")
                .and_then(|rest| rest.split('`').next());
            name.is_some_and(|name| {
                name.contains('_') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
            })
        });
        assert_eq!(rows.count(), Symbol::ALL.len());
    }
}
