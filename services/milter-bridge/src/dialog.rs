//! The dialog so far, told to a milter: commands and macros from what the processor says of a session.

use std::net::IpAddr;

use opes_milter::{ClientAddress, Command, Macros, Refusal, Verdict};
use opes_proto::smtp::{Address, Context};

use crate::config::Settings;
use crate::connection::{Connection, MilterError};

/// What ends a dialog with a milter before its last command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Passes.
    Accept,
    /// Taken, and delivered to nobody.
    Discard,
    /// Client or message are refused.
    Refuse(Refusal),
}

/// A dialog with a milter on behalf of a client.
pub(crate) struct Dialog<'s> {
    pub(crate) milter: Connection,
    pub(crate) macros: Macros,
    settings: &'s Settings,
}

// === impl Decision ===

impl Decision {
    /// `None`: go on.
    pub(crate) fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Continue => None,
            Verdict::Accept => Some(Self::Accept),
            Verdict::Discard => Some(Self::Discard),
            Verdict::Refuse(refusal) => Some(Self::Refuse(refusal)),
        }
    }
}

// === impl Dialog ===

impl<'s> Dialog<'s> {
    /// Connects to the milter. Nothing is said of the client yet.
    pub(crate) async fn open(
        settings: &'s Settings,
        context: &Context,
    ) -> Result<Self, MilterError> {
        Ok(Self {
            milter: Connection::open(settings).await?,
            macros: session_macros(settings, context),
            settings,
        })
    }

    async fn say(&mut self, command: &Command<'_>) -> Result<Verdict, MilterError> {
        let limit = self.settings.command_timeout;
        self.milter.say(command, &self.macros, limit).await
    }

    /// The same for the message itself, with its longer time limit.
    pub(crate) async fn show(
        &mut self,
        command: &Command<'_>,
    ) -> Result<Option<Decision>, MilterError> {
        let limit = self.settings.content_timeout;
        self.milter
            .say(command, &self.macros, limit)
            .await
            .map(Decision::of)
    }

    /// The client has connected.
    pub(crate) async fn connect(
        &mut self,
        context: &Context,
    ) -> Result<Option<Decision>, MilterError> {
        let client = context.client.clone().unwrap_or_default();
        let port = u16::try_from(client.port).unwrap_or_default();
        let ip: Option<IpAddr> = client.ip.parse().ok();
        let address = ip.map(|ip| ClientAddress::Inet((ip, port).into()));
        let command = Command::Connect {
            name: &client_name(context),
            address: address.unwrap_or(ClientAddress::Unknown),
        };
        self.say(&command).await.map(Decision::of)
    }

    /// HELO or EHLO; a client can do without, and so nothing is said if `argument` is empty.
    pub(crate) async fn helo(&mut self, argument: &str) -> Result<Option<Decision>, MilterError> {
        if argument.is_empty() {
            return Ok(None);
        }
        self.say(&Command::Helo(argument)).await.map(Decision::of)
    }

    /// MAIL.
    pub(crate) async fn mail(&mut self, from: &Address) -> Result<Option<Decision>, MilterError> {
        self.macros.set("mail_addr", from.address.as_str());
        self.macros.set("mail_host", domain(&from.address));
        self.macros.set("mail_mailer", "smtp");
        let command = Command::Mail {
            path: &path(from),
            parameters: &from.parameters,
        };
        let verdict = self.say_configured(&command).await?;
        Ok(Decision::of(verdict))
    }

    /// RCPT. A refusal is about this recipient.
    pub(crate) async fn rcpt(&mut self, to: &Address) -> Result<Verdict, MilterError> {
        self.macros.set("rcpt_addr", to.address.as_str());
        self.macros.set("rcpt_host", domain(&to.address));
        self.macros.set("rcpt_mailer", "smtp");
        let command = Command::Rcpt {
            path: &path(to),
            parameters: &to.parameters,
        };
        self.say_configured(&command).await
    }

    /// What the administrator set counts before what the command brought.
    async fn say_configured(&mut self, command: &Command<'_>) -> Result<Verdict, MilterError> {
        configured(self.settings, &mut self.macros);
        self.say(command).await
    }

    /// DATA.
    pub(crate) async fn data(&mut self) -> Result<Option<Decision>, MilterError> {
        self.say(&Command::Data).await.map(Decision::of)
    }

    /// Connect and HELO, as the context has them.
    pub(crate) async fn session(
        &mut self,
        context: &Context,
    ) -> Result<Option<Decision>, MilterError> {
        match self.connect(context).await? {
            None => self.helo(&context.helo).await,
            decided => Ok(decided),
        }
    }
}

fn path(address: &Address) -> String {
    format!("<{}>", address.address)
}

fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// The edge asks no DNS: a client has no other name than its address, in Sendmail's form.
fn client_name(context: &Context) -> String {
    match &context.client {
        Some(client) if !client.ip.is_empty() => format!("[{}]", client.ip),
        _ => "unknown".to_owned(),
    }
}

fn session_macros(settings: &Settings, context: &Context) -> Macros {
    let name = client_name(context);
    let mut macros = Macros::default()
        .with("j", settings.hostname.as_str())
        .with("v", concat!("OPES ", env!("CARGO_PKG_VERSION")))
        .with("i", context.dialog_id.as_str())
        .with("daemon_name", context.listener.as_str())
        .with("_", name.as_str())
        .with("client_name", name);
    if let Some(client) = &context.client {
        macros.set("client_addr", client.ip.as_str());
        macros.set("client_port", client.port.to_string());
    }
    if let Some(tls) = &context.tls {
        macros.set("tls_version", tls.version.as_str());
        macros.set("cipher", tls.cipher.as_str());
    }
    if let Some(auth) = &context.auth {
        macros.set("auth_type", auth.mechanism.as_str());
        macros.set("auth_authen", auth.identity.as_str());
    }
    configured(settings, &mut macros);
    macros
}

fn configured(settings: &Settings, macros: &mut Macros) {
    for (name, value) in &settings.macros {
        macros.set(name, value.as_str());
    }
}
