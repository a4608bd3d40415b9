//! The callout service: from a point of the dialog to a request, from the response to an answer.

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_http::Engine;
use opes_proto::smtp::{Context, ContextField, Point};
use opes_smtp::command::{Command as Parsed, parse_line};

use crate::config::Config;
use crate::request::{Address, Request, Stage};
use crate::response::{Response, Shown};

/// What a request says of the session.
const SESSION: [ContextField; 5] = [
    ContextField::Client,
    ContextField::Listener,
    ContextField::Helo,
    ContextField::Tls,
    ContextField::Auth,
];
const ENVELOPE: [ContextField; 2] = [ContextField::MailFrom, ContextField::Recipients];

/// An MTA Hooks scanner as a callout service.
#[derive(Debug, Clone)]
pub struct MtaHooks {
    scanner: Engine,
    message_size_max: usize,
}

// === impl MtaHooks ===

impl MtaHooks {
    /// From the `config` of a `CalloutService`.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("mta-hooks")?;
        let scanner = config.engine().context("mta-hooks")?;
        Ok(Self {
            scanner,
            message_size_max: config.message_size_max,
        })
    }

    async fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        let body = self
            .scanner
            .ask("application/json", &[], request.to_json()?)
            .await
            .context("the scanner")?;
        Ok(Response::parse(&body)?)
    }
}

impl Service for MtaHooks {
    fn describe(&self) -> Description {
        Description::new(concat!("mta-hooks/", env!("CARGO_PKG_VERSION")))
            .command_context(SESSION.into_iter().chain(ENVELOPE))
            .message_context(SESSION.into_iter().chain(ENVELOPE))
            .whole_content()
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        let Some(stage) = Stage::of(command.point) else {
            return Ok(CommandAnswer::proceed());
        };
        let request = Request::new(stage, &command.context);
        let request = match envelope(&command)? {
            Some((from, to)) => request.with_envelope(from, to),
            None => request,
        };
        Ok(self.ask(&request).await?.command_answer()?)
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let octets = message.read_all(self.message_size_max).await?;
        if message.is_whole() != Some(true) {
            bail!("the scanner wants whole messages; the rule's `content` must not say less");
        }
        let structure = opes_mime::scan(&octets);
        let context = message.context();
        let (from, to) = known_envelope(context);
        let request = Request::new(Stage::Data, context)
            .with_envelope(from, to)
            .with_message(&octets, &structure);
        let recipients = context.recipients.iter();
        let recipients: Vec<_> = recipients.map(|to| to.address.clone()).collect();
        let response = self.ask(&request).await?;
        Ok(response.answer(&Shown {
            octets: &octets,
            structure: &structure,
            recipients: &recipients,
        })?)
    }
}

/// With what the command itself adds.
fn envelope(command: &Command) -> anyhow::Result<Option<(Address, Vec<Address>)>> {
    if !matches!(command.point, Point::MailFrom | Point::RcptTo) {
        return Ok(None);
    }
    let parsed = parse_line(&command.line).context("the processor sent a malformed command")?;
    let (known_from, mut to) = known_envelope(&command.context);
    Ok(Some(match parsed {
        Parsed::Mail { path, parameters } => {
            (Address::new(path.as_str(), parameters.iter()), Vec::new())
        }
        Parsed::Rcpt { path, parameters } => {
            let accepted = command.context.recipients.len().saturating_sub(1);
            // The one in question is the last one, and the line says what it says.
            to.truncate(accepted);
            to.push(Address::new(path.as_str(), parameters.iter()));
            (known_from, to)
        }
        _ => bail!("the processor sent a command that does not fit its point"),
    }))
}

fn known_envelope(context: &Context) -> (Address, Vec<Address>) {
    let from = context.mail_from.clone().unwrap_or_default();
    let to = context.recipients.iter().map(Address::of).collect();
    (Address::of(&from), to)
}
