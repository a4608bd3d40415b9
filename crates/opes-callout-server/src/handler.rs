//! Runs a service's method for one transaction in a task of its own, so that neither its work nor its panic is anybody
//! else's. Dropping the [`Running`] handler cancels it at its next `.await`.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use opes_proto::smtp::{Outcome, Point};
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use crate::command::Command;
use crate::copies;
use crate::link::{Ending, Said};
use crate::message::{Message, Outbox};
use crate::service::Service;

/// A handler at work.
#[derive(Debug)]
pub(crate) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a handler gets.
#[derive(Debug)]
pub(crate) enum Work {
    Command(Box<Command>),
    Message(Box<Message>),
}

pub(crate) fn start<S: Service>(
    service: Arc<S>,
    work: Work,
    outbox: Outbox,
    span: tracing::Span,
) -> Running {
    let task = async move {
        let said = match AssertUnwindSafe(answer(&*service, work))
            .catch_unwind()
            .await
        {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "the handler failed");
                Said::Failed(format!("{error:#}"))
            }
            Err(panic) => {
                let text = panic_text(&*panic);
                tracing::error!(panic = text, "the handler panicked");
                Said::Failed(format!("the handler panicked: {text}"))
            }
        };
        // If the connection is gone, so is whoever waited.
        let _gone = outbox.say(said).await;
    };
    Running(tokio::spawn(task.instrument(span)).abort_handle())
}

async fn answer<S: Service>(service: &S, work: Work) -> anyhow::Result<Said> {
    match work {
        Work::Command(command) => {
            let recipient = recipient_in_question(&command);
            let (mut outcome, payload) = service.command(*command).await?.into_parts();
            name_recipient(&mut outcome, recipient);
            let ending = if payload.is_some() {
                Ending::Whole
            } else {
                Ending::Rest(0)
            };
            Ok(Said::Done {
                outcome: Box::new(outcome),
                payload,
                ending,
            })
        }
        Work::Message(mut message) => {
            let mut outcome = service.message(&mut message).await?.into_outcome();
            let ending = adapted_ending(&message)?;
            let original = copies::name_original(&mut outcome, &message)?;
            copies::check(&outcome, message.takes_copies())?;
            if let Some(size) = original {
                let original = Said::UseYours { offset: 0, size };
                message.outbox.say(original).await?;
            }
            Ok(Said::Done {
                outcome: Box::new(outcome),
                payload: None,
                ending,
            })
        }
    }
}

fn adapted_ending(message: &Message) -> anyhow::Result<Ending> {
    let shared = message.link.lock();
    match (shared.adapting, shared.ending) {
        (false, _) => Ok(Ending::Rest(0)),
        (true, Some(ending)) => Ok(ending),
        (true, None) => {
            anyhow::bail!("the handler returned without finish() of its adapted message")
        }
    }
}

/// With RCPT, the last one of the context.
fn recipient_in_question(command: &Command) -> Option<String> {
    match command.point {
        Point::RcptTo => command.context.recipients.last().map(|r| r.address.clone()),
        _ => None,
    }
}

/// `CommandAnswer::next_hop` leaves the name to us: an empty one would mean a recipient to add.
fn name_recipient(outcome: &mut Outcome, recipient: Option<String>) {
    let (Some(envelope), Some(recipient)) = (&mut outcome.envelope, recipient) else {
        return;
    };
    for change in &mut envelope.recipients {
        if change.original.is_empty() && change.address.is_empty() {
            change.original.clone_from(&recipient);
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}
