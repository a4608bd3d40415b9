//! Servers of the SDK to judge, with services that use more and less of the protocol.

use std::sync::Arc;
use std::time::Duration;

use opes_callout_server::{
    Answer, Command, CommandAnswer, Description, Listener, Message, ServerConfig, Service, serve,
};
use opes_conform::{Options, Report, check};
use opes_proto::smtp::ContextField;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; only what is broken waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// For servers that are broken: they use it up, over and over.
pub(crate) const LITTLE_PATIENCE: Duration = Duration::from_millis(400);

/// What services do with mail data.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Does {
    /// Looks at nothing and accepts.
    Nothing,
    /// Reads everything and adds a field.
    Edit,
    /// Sends everything back, changed.
    Rewrite,
    /// Adds a line in front of the original.
    Prefix,
    /// Something else for one recipient.
    Copies,
}

pub(crate) struct Probe(pub(crate) Does);

impl Service for Probe {
    fn describe(&self) -> Description {
        let description = Description::new(format!("{:?}", self.0))
            .command_context([ContextField::Client, ContextField::Recipients]);
        match self.0 {
            Does::Nothing => description,
            Does::Prefix => description.header_section(),
            Does::Edit | Does::Rewrite => description.message_headers(["Subject"]).whole_content(),
            Does::Copies => description
                .message_context([ContextField::Recipients, ContextField::Size])
                .content_prefix(1000),
        }
    }

    async fn command(&self, _command: Command) -> anyhow::Result<CommandAnswer> {
        Ok(CommandAnswer::rewrite("RCPT TO:<robert@example.org>"))
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        match self.0 {
            Does::Nothing => Ok(Answer::accept()),
            Does::Edit => {
                message.read_all(1 << 20).await?;
                Ok(Answer::accept().add_header("X-Read", "yes"))
            }
            Does::Rewrite => {
                let mut adapted = message.adapt();
                while let Some(chunk) = message.chunk().await? {
                    adapted.use_mine(chunk.to_ascii_uppercase()).await?;
                }
                adapted.finish().await?;
                Ok(Answer::accept())
            }
            Does::Prefix => {
                let mut adapted = message.adapt();
                adapted.use_mine("X-First: of all fields\r\n").await?;
                adapted.finish_with_rest(0).await?;
                Ok(Answer::accept())
            }
            Does::Copies => copies(message).await,
        }
    }
}

async fn copies(message: &mut Message) -> anyhow::Result<Answer> {
    if !message.takes_copies() {
        return Ok(Answer::accept());
    }
    let mut adapted = message.adapt();
    adapted.use_mine("Subject: for ann\r\n\r\n").await?;
    let ann = adapted.end_message();
    adapted.finish().await?;
    let ann = Answer::accept().with_message(ann);
    Ok(Answer::accept().for_recipients(["ann@example.com"], ann))
}

/// Serves as long as the test's runtime lives.
pub(crate) async fn start(does: Does, listen: &str) -> String {
    let listener = Listener::bind(listen).await.unwrap();
    let address = listener.address();
    let serving = serve(
        Arc::new(Probe(does)),
        listener,
        ServerConfig::default(),
        CancellationToken::new(),
    );
    tokio::spawn(serving);
    address
}

pub(crate) async fn judge(address: &str, patience: Duration) -> Report {
    let options = Options {
        patience,
        ..Options::default()
    };
    check(address, &options).await.unwrap()
}
