//! The callout service: at a command the session is told up to that command, at the content the whole message.

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_milter::{Actions, BODY_OCTETS_MAX, Command as Said, Verdict};
use opes_mime::{Limit, Scanner, Structure};
use opes_proto::smtp::{Address, Context, ContextField, Point};
use opes_smtp::command::{Command as Parsed, parse_line};

use crate::changes::Changes;
use crate::config::{Config, Settings};
use crate::dialog::{Decision, Dialog};
use crate::headers::Headers;
use crate::recipients::Recipients;
use crate::verdict::{self, Refused};

/// What a milter is told.
const CONTEXT: [ContextField; 7] = [
    ContextField::Client,
    ContextField::Listener,
    ContextField::Helo,
    ContextField::Tls,
    ContextField::Auth,
    ContextField::MailFrom,
    ContextField::Recipients,
];

/// A milter as a callout service.
#[derive(Debug, Clone)]
pub struct MilterBridge {
    settings: Settings,
}

// === impl MilterBridge ===

impl MilterBridge {
    /// From the `config` of a `CalloutService`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("milter-bridge")?;
        let settings = config.settings().context("milter-bridge")?;
        Ok(Self { settings })
    }
}

impl Service for MilterBridge {
    fn describe(&self) -> Description {
        Description::new(concat!("milter-bridge/", env!("CARGO_PKG_VERSION")))
            .command_context(CONTEXT)
            .message_context(CONTEXT)
            .whole_content()
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        if !matches!(
            command.point,
            Point::Connect | Point::Helo | Point::MailFrom | Point::RcptTo | Point::Data
        ) {
            return Ok(CommandAnswer::proceed());
        }
        let mut dialog = Dialog::open(&self.settings, &command.context).await?;
        let decision = until(&mut dialog, &command).await;
        dialog.milter.quit().await;
        Ok(verdict::to_command(decision?))
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        if !matches!(message.point(), Point::Content | Point::Routing) {
            bail!("a milter can be asked at commands, content and routing only");
        }
        let context = message.context().clone();
        let mut dialog = Dialog::open(&self.settings, &context).await?;
        let answer = self.ask(&mut dialog, message, &context).await;
        dialog.milter.quit().await;
        answer
    }
}

impl MilterBridge {
    async fn ask(
        &self,
        dialog: &mut Dialog<'_>,
        message: &mut Message,
        context: &Context,
    ) -> anyhow::Result<Answer> {
        let (refused, decided) = envelope(dialog, context).await?;
        let left = context.recipients.len() - refused.len();
        let takes_copies = message.takes_copies();
        if decided.is_none() && left == 0 {
            message.stop_receiving().await?;
            return Ok(verdict::all_refused(refused, takes_copies));
        }
        if !refused.is_empty() && left > 0 && !takes_copies {
            bail!(
                "the milter refuses some of the recipients, and the processor takes one answer for all"
            );
        }
        let answer = match decided {
            Some(decision) => verdict::to_message(decision),
            None => self.content(dialog, message, context, &refused).await?,
        };
        message.stop_receiving().await?;
        Ok(verdict::with_refused(answer, refused))
    }

    /// Tells the milter the message, as it arrives.
    async fn content(
        &self,
        dialog: &mut Dialog<'_>,
        message: &mut Message,
        context: &Context,
        refused: &Refused,
    ) -> anyhow::Result<Answer> {
        let Head { structure, octets } = head(message).await?;
        let mut headers = Headers::default();
        if let Some(decision) = header(dialog, &structure, &octets, &mut headers).await? {
            return Ok(verdict::to_message(decision));
        }
        let start = usize::try_from(structure.header_end).unwrap_or(usize::MAX);
        let first = octets.get(start..).unwrap_or_default();
        let len = match body(dialog, message, octets.len() as u64, first).await? {
            Ok(len) => len,
            Err(decision) => return Ok(verdict::to_message(decision)),
        };
        let kept = context.recipients.iter().map(|to| to.address.clone());
        let kept = kept.filter(|address| !refused.iter().any(|(refused, _)| refused == address));
        let mut changes = Changes::new(headers, Recipients::new(kept), self.settings.body_size_max);
        let (macros, limit) = (&dialog.macros, self.settings.content_timeout);
        let end = dialog
            .milter
            .ask(&Said::EndOfMessage, macros, limit, |change| {
                changes.take(change)
            });
        match end.await? {
            Verdict::Continue | Verdict::Accept => {
                verdict::changed(message, &structure, len, changes).await
            }
            Verdict::Discard => Ok(Answer::discard()),
            Verdict::Refuse(refusal) => Ok(verdict::to_message(Decision::Refuse(refusal))),
        }
    }
}

/// The dialog up to `command`, and what the milter says to that.
async fn until(dialog: &mut Dialog<'_>, command: &Command) -> anyhow::Result<Option<Decision>> {
    let context = &command.context;
    let decided = dialog.connect(context).await?;
    if decided.is_some() || command.point == Point::Connect {
        return Ok(decided.map(at_greeting));
    }
    let parsed = parse_line(&command.line).context("the processor sent a malformed command")?;
    if let Parsed::Hello { argument, .. } = &parsed {
        return Ok(dialog.helo(argument).await?);
    }
    let decided = dialog.helo(&context.helo).await?;
    if decided.is_some() {
        return Ok(decided);
    }
    match parsed {
        Parsed::Mail { path, parameters } => Ok(dialog
            .mail(&address(path.as_str(), parameters.iter()))
            .await?),
        Parsed::Rcpt { path, parameters } => {
            let from = context.mail_from.clone().unwrap_or_default();
            let decided = dialog.mail(&from).await?;
            if decided.is_some() {
                return Ok(decided);
            }
            // The one in question only: that the others were accepted is settled.
            let to = address(path.as_str(), parameters.iter());
            Ok(Decision::of(dialog.rcpt(&to).await?))
        }
        Parsed::Data | Parsed::Bdat { .. } => {
            // Whom the milter refuses is settled at rcptTo, or else at content.
            let (_refused, decided) = envelope_and_data(dialog, context).await?;
            Ok(decided)
        }
        _ => bail!("the processor sent a command that does not fit its point"),
    }
}

/// RFC 5321 §4.3.2: of the refusals, a greeting can be 554; 421 closes the connection.
fn at_greeting(decision: Decision) -> Decision {
    match decision {
        Decision::Refuse(mut refusal) if refusal.is_permanent() => {
            refusal.code = 554;
            Decision::Refuse(refusal)
        }
        other => other,
    }
}

/// The whole dialog before the content, and who was refused in it.
async fn envelope(
    dialog: &mut Dialog<'_>,
    context: &Context,
) -> anyhow::Result<(Refused, Option<Decision>)> {
    match dialog.session(context).await? {
        None => envelope_and_data(dialog, context).await,
        decided => Ok((Refused::new(), decided)),
    }
}

/// From MAIL on.
async fn envelope_and_data(
    dialog: &mut Dialog<'_>,
    context: &Context,
) -> anyhow::Result<(Refused, Option<Decision>)> {
    if context.recipients.is_empty() {
        bail!("the processor names no recipient, and a milter wants one");
    }
    let mut refused = Refused::new();
    let from = context.mail_from.clone().unwrap_or_default();
    let mut decided = dialog.mail(&from).await?;
    for to in &context.recipients {
        if decided.is_some() {
            break;
        }
        match dialog.rcpt(to).await? {
            Verdict::Refuse(refusal) => refused.push((to.address.clone(), refusal)),
            verdict => decided = Decision::of(verdict),
        }
    }
    if decided.is_none() && refused.len() < context.recipients.len() {
        decided = dialog.data().await?;
    }
    Ok((refused, decided))
}

fn address<'a>(
    address: &str,
    parameters: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> Address {
    let parameters = parameters.map(|(keyword, value)| match value {
        Some(value) => format!("{keyword}={value}"),
        None => keyword.to_owned(),
    });
    Address {
        address: address.to_owned(),
        parameters: parameters.collect(),
    }
}

/// The header section, and what came with its last octets.
struct Head {
    structure: Structure,
    octets: BytesMut,
}

/// Bounded: the scanner ends a header section without end at its limit.
async fn head(message: &mut Message) -> anyhow::Result<Head> {
    let (mut scanner, mut octets) = (Scanner::new(), BytesMut::new());
    while !scanner.header_complete() {
        let Some(chunk) = message.chunk().await? else {
            break;
        };
        scanner.push(&chunk);
        octets.extend_from_slice(&chunk);
    }
    let structure = if scanner.header_complete() {
        scanner.so_far().clone()
    } else {
        scanner.finish()
    };
    if let Some(Limit::HeaderOctets | Limit::HeaderFields) = structure.truncated {
        bail!("the header section is too large to be shown to the milter as a whole");
    }
    Ok(Head { structure, octets })
}

/// Every field, and the end of the header section.
async fn header(
    dialog: &mut Dialog<'_>,
    structure: &Structure,
    octets: &[u8],
    headers: &mut Headers,
) -> anyhow::Result<Option<Decision>> {
    let slice = |range: &std::ops::Range<u64>| {
        let (from, to) = (usize::try_from(range.start), usize::try_from(range.end));
        let range = from.ok().zip(to.ok());
        range
            .and_then(|(from, to)| octets.get(from..to))
            .unwrap_or_default()
    };
    for field in &structure.fields {
        let name = slice(&field.name);
        headers.push(name);
        let value = slice(&field.value);
        let decided = dialog.show(&Said::Header { name, value }).await?;
        if decided.is_some() {
            return Ok(decided);
        }
    }
    Ok(dialog.show(&Said::EndOfHeader).await?)
}

/// The rest of the message, of which `first` is there; `read` octets were read before. The size of the whole message, if it goes on.
async fn body(
    dialog: &mut Dialog<'_>,
    message: &mut Message,
    read: u64,
    first: &[u8],
) -> anyhow::Result<Result<u64, Decision>> {
    if let Some(decision) = show(dialog, first).await? {
        return Ok(Err(decision));
    }
    let mut len = read;
    loop {
        let session = dialog.milter.session();
        // To replace a body one must know where it ends.
        if !session.wants_body() && !session.may(Actions::CHGBODY) {
            message.stop_receiving().await?;
            return Ok(Ok(len));
        }
        let Some(chunk) = message.chunk().await? else {
            break;
        };
        len += chunk.len() as u64;
        if let Some(decision) = show(dialog, &chunk).await? {
            return Ok(Err(decision));
        }
    }
    if message.is_whole() != Some(true) {
        bail!("a milter wants whole messages; the rule's `wants.content` must be all");
    }
    Ok(Ok(len))
}

async fn show(dialog: &mut Dialog<'_>, octets: &[u8]) -> anyhow::Result<Option<Decision>> {
    for piece in octets.chunks(BODY_OCTETS_MAX) {
        let decided = dialog.show(&Said::Body(piece)).await?;
        if decided.is_some() {
            return Ok(decided);
        }
    }
    Ok(None)
}
