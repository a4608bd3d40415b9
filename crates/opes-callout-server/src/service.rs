//! What a callout service implements: [`Service`], and what it says of itself: [`Description`].
//!
//! Everything else (negotiation, credit, preservation, health, drain) is the harness. A handler that returns an error
//! or panics ends its own transaction with 400; the processor then applies the failure policy of its rule.

use std::future::Future;
use std::sync::Arc;

use opes_proto::smtp::{ContentWant, ContextField, Wants};
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::command::{Command, CommandAnswer};
use crate::message::Message;

/// A callout service. Each transaction calls one method once; the future is dropped when the transaction ends early
/// (client gone, time budget spent), so nothing after an `.await` may be relied on for clean-up.
pub trait Service: Send + Sync + 'static {
    /// Asked once per connection, during negotiation.
    fn describe(&self) -> Description;

    /// An SMTP command, at the points before the content. Default: proceed.
    fn command(
        &self,
        _command: Command,
    ) -> impl Future<Output = anyhow::Result<CommandAnswer>> + Send {
        async { Ok(CommandAnswer::proceed()) }
    }

    /// Mail data. Default: accept unchanged.
    fn message(
        &self,
        _message: &mut Message,
    ) -> impl Future<Output = anyhow::Result<Answer>> + Send {
        async { Ok(Answer::accept()) }
    }

    /// What the service does besides answering: a server of its own, cleaning up. Started once, with the first call still to come; told to
    /// end by `stop`, and dropped at the end of the drain time. An error ends the whole service. Default: nothing.
    fn background(
        self: Arc<Self>,
        _stop: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }

    /// Called once when the server has been told to go and its last transaction is over: what is still to be written can be written, for at
    /// most [`STOP_TIMEOUT`](crate::STOP_TIMEOUT). Default: nothing.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What a service says of itself and what it wants to be sent. What it does not ask for is not sent.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// Name of the implementation for the processor's logs, e.g. `security-filter/0.1`.
    pub product: String,
    /// Context wanted with commands.
    pub command: Wants,
    /// Context and content wanted with mail data.
    pub message: Wants,
}

impl Description {
    /// A service that wants neither context nor content until told otherwise.
    pub fn new(product: impl Into<String>) -> Self {
        let nothing = Wants {
            content: ContentWant::None.into(),
            ..Wants::default()
        };
        Self {
            product: product.into(),
            command: nothing.clone(),
            message: nothing,
        }
    }

    /// Wants these context fields with commands.
    #[must_use]
    pub fn command_context(mut self, fields: impl IntoIterator<Item = ContextField>) -> Self {
        self.command.context = fields.into_iter().map(i32::from).collect();
        self
    }

    /// Wants these context fields with mail data.
    #[must_use]
    pub fn message_context(mut self, fields: impl IntoIterator<Item = ContextField>) -> Self {
        self.message.context = fields.into_iter().map(i32::from).collect();
        self
    }

    /// Wants these header fields in the context of mail data; asks for `CONTEXT_FIELD_HEADERS` too.
    #[must_use]
    pub fn message_headers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.message.headers = names.into_iter().map(Into::into).collect();
        let headers = i32::from(ContextField::Headers);
        if !self.message.context.contains(&headers) {
            self.message.context.push(headers);
        }
        self
    }

    /// Wants the whole content. A rule can still ask for less.
    #[must_use]
    pub fn whole_content(mut self) -> Self {
        self.message.content = ContentWant::All.into();
        self
    }

    /// Wants the header section with its empty line.
    #[must_use]
    pub fn header_section(mut self) -> Self {
        self.message.content = ContentWant::Header.into();
        self
    }

    /// Wants the first `octets` octets.
    #[must_use]
    pub fn content_prefix(mut self, octets: u64) -> Self {
        self.message.content = ContentWant::Prefix.into();
        self.message.prefix = octets;
        self
    }
}
