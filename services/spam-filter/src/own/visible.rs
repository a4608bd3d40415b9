//! What the reader is shown, against what the envelope says: small findings in the header section.

use std::time::{SystemTime, UNIX_EPOCH};

use mail_parser::parsers::MessageStream;
use mail_parser::{Addr, Address, HeaderValue};
use opes_mime::structure::{HEADER_FIELDS_MAX, Limit, Structure};
use opes_proto::smtp::Context;

use super::score::Symbol;

/// Addresses of one field that are looked at.
const ADDRESSES_MAX: usize = 1000;
/// A Date this far ahead is odd, seconds.
const AHEAD_SECONDS: i64 = 24 * 60 * 60;
/// And this far behind: mail is given up after five days (RFC 5321 §4.5.4.1), and people keep drafts.
const BEHIND_SECONDS: i64 = 14 * 24 * 60 * 60;

/// One address as the reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    name: String,
    address: String,
}

/// The header section, as far as it is read here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visible {
    from: Vec<Shown>,
    from_fields: usize,
    has_sender: bool,
    reply_to: Vec<Shown>,
    recipients: Vec<Shown>,
    /// Seconds since 1970.
    date: Option<i64>,
    has_message_id: bool,
    too_large: bool,
}

// === impl Visible ===

impl Visible {
    /// `octets`: those that `structure` is about.
    pub(crate) fn read(octets: &[u8], structure: &Structure) -> Self {
        let mut visible = Self {
            too_large: is_too_large(structure),
            ..Self::default()
        };
        for (name, value) in fields(octets, structure) {
            match name.to_ascii_lowercase().as_slice() {
                b"from" => {
                    visible.from_fields += 1;
                    visible.from.append(&mut addresses(value));
                }
                b"sender" => visible.has_sender = true,
                b"reply-to" => visible.reply_to.append(&mut addresses(value)),
                b"to" | b"cc" => visible.recipients.append(&mut addresses(value)),
                b"date" => visible.date = visible.date.or_else(|| date(value)),
                b"message-id" => visible.has_message_id = true,
                _ => {}
            }
        }
        visible.from.truncate(ADDRESSES_MAX);
        visible.reply_to.truncate(ADDRESSES_MAX);
        visible.recipients.truncate(ADDRESSES_MAX);
        visible
    }

    /// Of the author; empty if there is none.
    pub(crate) fn author_domain(&self) -> String {
        let first = self.from.first();
        first.map(|from| domain(&from.address)).unwrap_or_default()
    }

    /// Could a signature of this domain speak for the author? By organisation, as the author's domain may ask for no more (RFC 9989 §4.10.2).
    pub(crate) fn is_authors(&self, signer: &str) -> bool {
        let author = organisation(&self.author_domain());
        !author.is_empty() && organisation(&host(signer)) == author
    }

    /// Are there authors of different domains? DMARC has no answer for them.
    pub(crate) fn has_two_domains(&self) -> bool {
        let first = self.author_domain();
        let mut others = self.from.iter().map(|from| domain(&from.address));
        others.any(|other| other != first)
    }

    /// What is odd. `judged`: the client is a stranger.
    pub(crate) fn findings(&self, context: &Context, now: SystemTime, judged: bool) -> Vec<Symbol> {
        let mail_from = context.mail_from.as_ref();
        let mail_from = mail_from.map_or("", |from| from.address.as_str());
        let from = organisation(&self.author_domain());
        let differs = |address: &str| {
            let other = organisation(&domain(address));
            !from.is_empty() && !other.is_empty() && other != from
        };
        let first_reply = self.reply_to.first();
        let found = [
            (Symbol::HeaderTooLarge, self.too_large),
            (Symbol::FromMissing, self.from.is_empty()),
            (Symbol::FromMultiple, self.has_many_authors()),
            (
                Symbol::FromNameAddress,
                self.from.iter().any(Shown::hides_behind_another),
            ),
            (Symbol::EnvelopeFromDiffers, differs(mail_from)),
            (
                Symbol::ReplyToDiffers,
                first_reply.is_some_and(|reply| differs(&reply.address)),
            ),
            (Symbol::RecipientNotNamed, !self.names_one_of(context)),
            (Symbol::DateMissing, self.date.is_none()),
            (
                Symbol::DateFar,
                self.date.is_some_and(|date| is_far(date, now)),
            ),
            (Symbol::MessageIdMissing, !self.has_message_id),
            (
                Symbol::HeloNoName,
                judged
                    && !matches!(context.helo.as_bytes(), [b'[', ..])
                    && !context.helo.contains('.'),
            ),
        ];
        let found = found.into_iter().filter(|(_, is_so)| *is_so);
        found.map(|(symbol, _)| symbol).collect()
    }

    fn has_many_authors(&self) -> bool {
        self.from_fields > 1 || (self.from.len() > 1 && !self.has_sender)
    }

    fn names_one_of(&self, context: &Context) -> bool {
        let named = |address: &str| {
            let mut shown = self.recipients.iter();
            shown.any(|shown| shown.address.eq_ignore_ascii_case(address))
        };
        let mut recipients = context.recipients.iter();
        context.recipients.is_empty() || recipients.any(|recipient| named(&recipient.address))
    }
}

// === impl Shown ===

impl Shown {
    /// `"joe@bank.example" <a@example.org>`: many readers show the name alone.
    fn hides_behind_another(&self) -> bool {
        let own = organisation(&domain(&self.address));
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '@' | '.' | '-' | '_' | '+');
        let mut words = self.name.split(|c: char| !is_part(c));
        words.any(|word| {
            let Some((local, host)) = word.rsplit_once('@') else {
                return false;
            };
            let host = host.trim_matches('.');
            !local.is_empty()
                && host.contains('.')
                && organisation(&host.to_ascii_lowercase()) != own
        })
    }
}

/// Name and value, with the value's line end, which the parsers want.
pub(crate) fn fields<'m>(
    octets: &'m [u8],
    structure: &'m Structure,
) -> impl Iterator<Item = (&'m [u8], &'m [u8])> {
    structure.fields.iter().filter_map(|field| {
        let name = slice(octets, field.name.start, field.name.end)?;
        let value = slice(octets, field.value.start, field.whole.end)?;
        Some((name, value))
    })
}

pub(crate) fn slice(octets: &[u8], start: u64, end: u64) -> Option<&[u8]> {
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    range.and_then(|(start, end)| octets.get(start..end))
}

/// Is there more of the message's own header than is looked at? Those of messages and parts inside do not count.
pub(crate) fn is_too_large(structure: &Structure) -> bool {
    match structure.truncated {
        Some(Limit::HeaderFields) => structure.fields.len() >= HEADER_FIELDS_MAX,
        // No empty line ended it.
        Some(Limit::HeaderOctets) => structure.fields_end == structure.header_end,
        _ => false,
    }
}

fn addresses(value: &[u8]) -> Vec<Shown> {
    let read = |addr: &Addr<'_>| {
        let address = addr.address.as_deref()?;
        Some(Shown {
            name: addr.name.as_deref().unwrap_or_default().to_owned(),
            address: address.to_owned(),
        })
    };
    match MessageStream::new(value).parse_address() {
        HeaderValue::Address(Address::List(list)) => list.iter().filter_map(read).collect(),
        HeaderValue::Address(Address::Group(groups)) => groups
            .iter()
            .flat_map(|group| group.addresses.iter().filter_map(read))
            .collect(),
        _ => Vec::new(),
    }
}

fn date(value: &[u8]) -> Option<i64> {
    match MessageStream::new(value).parse_date() {
        HeaderValue::DateTime(date) if date.is_valid() => Some(date.to_timestamp()),
        _ => None,
    }
}

fn is_far(date: i64, now: SystemTime) -> bool {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    date.saturating_sub(now) > AHEAD_SECONDS || now.saturating_sub(date) > BEHIND_SECONDS
}

fn domain(address: &str) -> String {
    host(address.rsplit_once('@').map_or("", |(_, domain)| domain))
}

fn host(name: &str) -> String {
    mail_auth::common::to_a_label(name.trim_end_matches('.')).to_ascii_lowercase()
}

/// What is registered: `example.co.uk` of `mail.example.co.uk`; the name itself if it is a public suffix.
fn organisation(domain: &str) -> String {
    psl::domain_str(domain).unwrap_or(domain).to_owned()
}

#[cfg(test)]
mod tests;
