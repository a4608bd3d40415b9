//! Our own engine: SPF, DKIM and DMARC, DNS lists, and what the header shows, as a sum of named findings.
//!
//! Owns what is asked, of whom, and for how long. DNS that does not answer is nobody's fault: such a check weighs nothing, is counted and
//! shown, and fails the transaction only if `dnsFailure` says so.

mod dkim;
mod dns;
mod dnsbl;
mod results;
pub(crate) mod score;
mod senders;
mod spf;
pub(crate) mod visible;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use bytes::Bytes;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult, SpfOutput};
use opes_mime::structure::Structure;
use opes_proto::smtp::Context;
use tokio::time::Instant;

use crate::config::own::{DnsFailure, OwnConfig, OwnError};
use crate::metrics::Metrics;
use crate::verdict::{AUTHENTICATION, CONTENT, Done, Judgement, POLICY};
use dkim::Signed;
use dns::Dns;
use dnsbl::Listing;
use score::{Score, Symbol};
use senders::{Dmarc, Senders};
use visible::Visible;

pub use senders::{DKIM_ANNOTATION, DMARC_ANNOTATION, SPF_ANNOTATION};

/// A message, as far as it was read.
pub(crate) struct Mail<'a> {
    pub(crate) context: &'a Context,
    pub(crate) octets: Bytes,
    pub(crate) structure: &'a Structure,
    /// Are all octets there? Without them nothing is said of signatures.
    pub(crate) is_whole: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    config: Arc<OwnConfig>,
    dns: Dns,
    metrics: Metrics,
}

// === impl Own ===

impl Own {
    pub(crate) fn new(config: &OwnConfig, metrics: Metrics) -> Result<Self, OwnError> {
        Ok(Self {
            dns: Dns::new(config)?,
            config: Arc::new(config.clone()),
            metrics,
        })
    }

    pub(crate) async fn judge(&self, mail: Mail<'_>) -> anyhow::Result<Judgement> {
        let client = client(mail.context);
        let stranger = mail.context.auth.is_none();
        let trusted = client.is_some_and(|client| self.config.trusts(client));
        if !trusted && visible::is_too_large(mail.structure) {
            return Ok(self.too_large());
        }
        let visible = Visible::read(&mail.octets, mail.structure);
        let judged = client.filter(|_| stranger && !trusted);
        let senders = Box::pin(self.senders(&mail, &visible, judged)).await?;
        self.count(&senders)?;

        let mut score = Score::default();
        self.add_senders(&mut score, &senders);
        let now = SystemTime::now();
        for symbol in visible.findings(mail.context, now, judged.is_some()) {
            score.add(symbol, &self.config);
        }
        let mut judgement = self.judgement(&score, &senders);
        if !self.config.authentication_results {
            return Ok(judgement);
        }
        if !trusted {
            judgement.removed = self.forged(&mail);
        }
        let field = results::write(&self.config.authserv_id, &senders.findings(mail.context));
        judgement.added.push((results::NAME.to_owned(), field));
        Ok(judgement)
    }

    /// All that DNS is asked for.
    async fn senders(
        &self,
        mail: &Mail<'_>,
        visible: &Visible,
        judged: Option<IpAddr>,
    ) -> anyhow::Result<Senders> {
        let until = Instant::now() + Duration::from_millis(self.config.timeout_ms);
        let header = header(mail);
        let mut message = AuthenticatedMessage::parse(&header);
        let (mut dkim, unread) = prepare(mail, message.as_mut()).await?;
        // Anybody can write a signature, so that only one that could have made DMARC pass is a reason to doubt that it fails.
        let may_pass = unread
            .iter()
            .any(|signed| visible.is_authors(&signed.domain));
        dkim.extend(unread);

        let spf = async {
            let client = judged?;
            Some(spf::check(&self.dns, self.sender(mail.context, client), until).await)
        };
        let lists = async {
            match judged {
                Some(client) => dnsbl::check(&self.dns, &self.config.dnsbl, client, until).await,
                None => Vec::new(),
            }
        };
        let signatures = async {
            match &message {
                Some(message) => dkim::verify(&self.dns, message, until).await,
                None => Vec::new(),
            }
        };
        let (spf, lists, outputs) = tokio::join!(spf, lists, signatures);
        dkim.extend(outputs.iter().map(Signed::from));
        if dkim.is_empty()
            && message
                .as_ref()
                .is_some_and(|message| message.has_dkim_errors)
        {
            dkim.push(Signed::unread(None, "the signature cannot be read"));
        }
        let dmarc = match &message {
            _ if visible.has_two_domains() => Some(Dmarc::new("permerror", Symbol::DmarcPermError)),
            Some(message) => {
                let judged = self.dmarc(message, &outputs, spf.as_ref(), until).await;
                // Without SPF, or with a signature of the author that was not looked at, only a pass is to be believed: what a trusted client
                // relays has lost the address that SPF goes by.
                let is_complete = spf.is_some() && !may_pass;
                judged.filter(|judged| is_complete || judged.result == "pass")
            }
            None => None,
        };
        Ok(Senders {
            spf,
            dkim,
            dmarc,
            lists,
        })
    }

    async fn dmarc(
        &self,
        message: &AuthenticatedMessage<'_>,
        dkim: &[DkimOutput<'_>],
        spf: Option<&SpfOutput>,
        until: Instant,
    ) -> Option<Dmarc> {
        let has_pass = dkim
            .iter()
            .any(|output| matches!(output.result(), DkimResult::Pass));
        if spf.is_none() && !has_pass {
            return None;
        }
        let nothing = SpfOutput::new(String::new());
        let output = spf.unwrap_or(&nothing);
        let parameters = DmarcParameters::new(message, dkim, output.domain(), output);
        let asked = Box::pin(self.dns.resolver().verify_dmarc(parameters));
        Some(match self.dns.check(until, asked).await {
            Ok(output) => Dmarc::from(&output),
            Err(_) => Dmarc::new("temperror", Symbol::DmarcTempError),
        })
    }

    fn sender<'a>(&'a self, context: &'a Context, client: IpAddr) -> spf::Sender<'a> {
        let mail_from = context.mail_from.as_ref();
        spf::Sender {
            client,
            helo: &context.helo,
            mail_from: mail_from.map_or("", |from| from.address.as_str()),
            host: &self.config.authserv_id,
        }
    }

    /// An error if the message is not to be judged without them.
    fn count(&self, senders: &Senders) -> anyhow::Result<()> {
        let failed = senders.failed();
        for check in &failed {
            self.metrics.failed(*check);
        }
        if failed.is_empty() || self.config.dns_failure == DnsFailure::Ignore {
            return Ok(());
        }
        bail!("DNS did not answer for {failed:?}");
    }

    fn add_senders(&self, score: &mut Score, senders: &Senders) {
        if let Some(spf) = &senders.spf {
            score.add(spf::words(spf.result()).1, &self.config);
        }
        // Submitted mail is not signed yet.
        if senders.spf.is_some() || !senders.dkim.is_empty() {
            score.add(dkim::words(&senders.dkim).1, &self.config);
        }
        if let Some(symbol) = senders.dmarc.as_ref().and_then(|dmarc| dmarc.symbol) {
            score.add(symbol, &self.config);
        }
        for (list, listing) in self.config.dnsbl.iter().zip(&senders.lists) {
            match listing {
                Listing::No => {}
                Listing::Yes(weight) => score.add_named(list.symbol(), *weight),
                Listing::Failed => score.add_named(format!("{}_TEMPERROR", list.symbol()), 0.0),
            }
        }
    }

    fn judgement(&self, score: &Score, senders: &Senders) -> Judgement {
        let thresholds = &self.config.thresholds;
        let total = score.total();
        let over = |threshold: Option<f64>| threshold.is_some_and(|threshold| total >= threshold);
        let asked = senders
            .dmarc
            .as_ref()
            .filter(|dmarc| self.config.dmarc_reject && dmarc.symbol == Some(Symbol::DmarcReject));
        let (done, action) = if asked.is_some() {
            (Done::Refused(AUTHENTICATION), "reject")
        } else if over(thresholds.reject) {
            (Done::Refused(POLICY), "reject")
        } else if total >= thresholds.mark {
            let hold = total >= thresholds.queue.unwrap_or(thresholds.mark);
            (Done::Marked { hold }, "add header")
        } else {
            (Done::Passed, "no action")
        };
        let text = asked.map(|dmarc| {
            let domain = crate::verdict::line(&dmarc.domain);
            format!("Not accepted because of the DMARC policy of {domain}")
        });
        let status = score.status(thresholds.mark);
        Judgement {
            text,
            annotations: senders.annotations(),
            reason: format!("{action} {}", score.reason()),
            ..Judgement::new(done, action, total, status)
        }
    }

    /// Of a message whose fields are not all known: one in our name could not be removed, and others would read another From or signature
    /// than we did. No mail is written so.
    fn too_large(&self) -> Judgement {
        let mut score = Score::default();
        score.add(Symbol::HeaderTooLarge, &self.config);
        let status = score.status(self.config.thresholds.mark);
        Judgement {
            text: Some("The header of this message is too large".to_owned()),
            reason: format!("reject {}", score.reason()),
            ..Judgement::new(Done::Never(CONTENT), "reject", score.total(), status)
        }
    }

    /// Fields from outside in our name (RFC 8601 §5).
    fn forged(&self, mail: &Mail<'_>) -> Vec<(String, Option<u32>)> {
        let all = visible::fields(&mail.octets, mail.structure);
        let named = all.filter(|(name, _)| name.eq_ignore_ascii_case(results::NAME.as_bytes()));
        let ours = (0_u32..).zip(named).filter_map(|(nth, (_, value))| {
            results::claims(value, &self.config.authserv_id).then_some(nth)
        });
        ours.map(|nth| (results::NAME.to_owned(), Some(nth)))
            .collect()
    }
}

/// Sets apart what is not to be verified, and hashes the body for the rest. The second: signatures that are not verified as not all is there.
async fn prepare(
    mail: &Mail<'_>,
    message: Option<&mut AuthenticatedMessage<'_>>,
) -> anyhow::Result<(Vec<Signed>, Vec<Signed>)> {
    let Some(message) = message else {
        return Ok((Vec::new(), Vec::new()));
    };
    let apart = dkim::read(message);
    let reason = if visible::is_too_large(mail.structure) {
        Some("the header is too large")
    } else {
        (!mail.is_whole).then_some("not all of the message was seen")
    };
    if let Some(reason) = reason {
        let signatures = message.dkim_headers.drain(..);
        let mut unread: Vec<_> = signatures
            .map(|header| Signed::unread(Some(&header.header), reason))
            .collect();
        if unread.is_empty() && message.has_dkim_errors {
            unread.push(Signed::unread(None, reason));
        }
        message.errors.clear();
        return Ok((apart, unread));
    }
    let body = usize::try_from(mail.structure.header_end).unwrap_or(usize::MAX);
    let body = mail.octets.slice(body.min(mail.octets.len())..);
    dkim::hash(message, body).await?;
    Ok((apart, Vec::new()))
}

fn header(mail: &Mail<'_>) -> Bytes {
    let end = usize::try_from(mail.structure.header_end).unwrap_or(usize::MAX);
    mail.octets.slice(..end.min(mail.octets.len()))
}

fn client(context: &Context) -> Option<IpAddr> {
    let client = context.client.as_ref()?;
    client.ip.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests;
