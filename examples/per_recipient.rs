//! One message, something else for each recipient domain: recipients at `example.org` get a mark in the subject, those at
//! `example.net` a text in front of the message, all others the message as it came.
//!
//! Run it with `cargo run -p opes-examples --bin per-recipient -- --listen 127.0.0.1:4037`. The rule must allow `subject` and
//! `rewrite`.

use opes_callout_server::{Answer, Description, Message, Service};
use opes_proto::smtp::ContextField;

struct PerRecipient;

impl Service for PerRecipient {
    /// Who the recipients are, and how large the message is. Not one octet of the message itself.
    fn describe(&self) -> Description {
        Description::new("per-recipient/0.1")
            .message_context([ContextField::Recipients, ContextField::Size])
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let marked = recipients_at(message, "@example.org");
        let noted = recipients_at(message, "@example.net");
        let mut answer = Answer::accept();
        // A processor without this would refuse the answer; then everybody gets the same: the message as it came.
        if !message.takes_copies() {
            return Ok(answer.reason("this processor gives one answer to all recipients"));
        }
        if !marked.is_empty() {
            // Edits are enough: a few octets.
            answer = answer.for_recipients(marked, Answer::accept().mark_subject("[partner]"));
        }
        if !noted.is_empty() {
            // A whole message of their own: what is new is sent, the original is named and stays where it is.
            let mut adapted = message.adapt();
            adapted
                .use_mine("Subject: a message for you\r\n\r\nIt came as follows.\r\n\r\n")
                .await?;
            adapted
                .use_yours(0..message.size().unwrap_or_default())
                .await?;
            let own = adapted.end_message();
            adapted.finish().await?;
            answer = answer.for_recipients(noted, Answer::accept().with_message(own));
        }
        // Whoever no answer names gets this one: it has no message of its own, so it stands for the original.
        Ok(answer)
    }
}

fn recipients_at(message: &Message, domain: &str) -> Vec<String> {
    let all = message.context().recipients.iter().map(|to| &to.address);
    all.filter(|address| address.to_ascii_lowercase().ends_with(domain))
        .cloned()
        .collect()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    opes_callout_server::run(PerRecipient).await
}
