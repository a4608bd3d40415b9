//! What was found out about the sender, in the words of the field, the annotations and the score.

use base64::Engine as _;
use mail_auth::dmarc::Policy;
use mail_auth::{DmarcOutput, DmarcResult, SpfOutput};
use opes_proto::smtp::Context;

use super::dkim::{self, Signed};
use super::dnsbl::Listing;
use super::results::Finding;
use super::score::Symbol;
use super::spf;
use crate::metrics::Check;

/// Annotation with what SPF said, as RFC 8601 has it; absent if the client is not judged.
pub const SPF_ANNOTATION: &str = "auth.spf";
/// Annotation with what DKIM said of the best signature.
pub const DKIM_ANNOTATION: &str = "auth.dkim";
/// Annotation with what DMARC said.
pub const DMARC_ANNOTATION: &str = "auth.dmarc";

/// What was found out about the sender.
pub(crate) struct Senders {
    /// Absent: the client is not judged.
    pub(crate) spf: Option<SpfOutput>,
    pub(crate) dkim: Vec<Signed>,
    /// Absent: nothing to judge by.
    pub(crate) dmarc: Option<Dmarc>,
    pub(crate) lists: Vec<Listing>,
}

pub(crate) struct Dmarc {
    pub(crate) result: &'static str,
    pub(crate) symbol: Option<Symbol>,
    pub(crate) domain: String,
    pub(crate) policy: Policy,
}

// === impl Senders ===

impl Senders {
    /// Checks that DNS did not answer.
    pub(crate) fn failed(&self) -> Vec<Check> {
        let spf = self.spf.as_ref().map(|spf| spf::words(spf.result()).1);
        let dmarc = self.dmarc.as_ref().and_then(|dmarc| dmarc.symbol);
        [
            (Check::Spf, spf == Some(Symbol::SpfTempError)),
            (
                Check::Dkim,
                dkim::words(&self.dkim).1 == Symbol::DkimTempError,
            ),
            (Check::Dmarc, dmarc == Some(Symbol::DmarcTempError)),
            (Check::Dnsbl, self.lists.contains(&Listing::Failed)),
        ]
        .into_iter()
        .filter_map(|(check, failed)| failed.then_some(check))
        .collect()
    }

    pub(crate) fn annotations(&self) -> Vec<(&'static str, String)> {
        let spf = self.spf.as_ref().map(|spf| spf::words(spf.result()).0);
        let dmarc = self.dmarc.as_ref().map(|dmarc| dmarc.result);
        let dkim = Some(dkim::words(&self.dkim).0);
        [
            (SPF_ANNOTATION, spf),
            (DKIM_ANNOTATION, dkim),
            (DMARC_ANNOTATION, dmarc),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?.to_owned())))
        .collect()
    }

    pub(crate) fn findings(&self, context: &Context) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(spf) = &self.spf {
            let mail_from = context.mail_from.as_ref();
            let mail_from = mail_from.map_or("", |from| from.address.as_str());
            let finding = Finding::new("spf", spf::words(spf.result()).0, "");
            findings.push(if mail_from.contains('@') {
                finding.with("smtp.mailfrom", mail_from)
            } else {
                finding.with("smtp.helo", spf.domain())
            });
        }
        if self.dkim.is_empty() && self.spf.is_some() {
            findings.push(Finding::new("dkim", "none", ""));
        }
        for signed in &self.dkim {
            let finding = Finding::new("dkim", signed.result, signed.reason)
                .with("header.d", &signed.domain)
                .with("header.s", &signed.selector)
                .with("header.b", start_of(&signed.signature));
            findings.push(finding);
        }
        if let Some(dmarc) = &self.dmarc {
            let finding =
                Finding::new("dmarc", dmarc.result, "").with("header.from", &dmarc.domain);
            findings.push(match dmarc.symbol {
                Some(_) => finding.with("policy.dmarc", dmarc.policy.to_string()),
                None => finding,
            });
        }
        findings
    }
}

/// The first characters in base64, enough to tell signatures apart (RFC 6008 §4).
fn start_of(signature: &[u8]) -> String {
    /// Octets that make eight characters.
    const OCTETS: usize = 6;
    let start = signature.get(..OCTETS).unwrap_or(signature);
    base64::engine::general_purpose::STANDARD.encode(start)
}

// === impl Dmarc ===

impl Dmarc {
    pub(crate) fn new(result: &'static str, symbol: Symbol) -> Self {
        Self {
            result,
            symbol: Some(symbol),
            domain: String::new(),
            policy: Policy::None,
        }
    }
}

impl From<&DmarcOutput> for Dmarc {
    fn from(output: &DmarcOutput) -> Self {
        let policy = output.policy();
        let (result, symbol) = match (output.result(), policy) {
            (DmarcResult::Pass, _) => ("pass", Some(Symbol::DmarcPass)),
            (DmarcResult::Fail(_), Policy::Reject) => ("fail", Some(Symbol::DmarcReject)),
            (DmarcResult::Fail(_), Policy::Quarantine) => ("fail", Some(Symbol::DmarcQuarantine)),
            (DmarcResult::Fail(_), Policy::None | Policy::Unspecified) => {
                ("fail", Some(Symbol::DmarcFail))
            }
            (DmarcResult::TempError(_), _) => ("temperror", Some(Symbol::DmarcTempError)),
            (DmarcResult::PermError(_), _) => ("permerror", Some(Symbol::DmarcPermError)),
            (DmarcResult::None, _) => ("none", None),
        };
        Self {
            result,
            symbol,
            domain: output.domain().to_owned(),
            policy,
        }
    }
}
