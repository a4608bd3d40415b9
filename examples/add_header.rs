//! The smallest useful callout service: it reads every message to its end and adds one header field.
//!
//! Run it with `cargo run -p opes-examples --bin add-header -- --listen 127.0.0.1:4037` and name it in a
//! `CalloutService` as `endpoint: http://127.0.0.1:4037`. Everything that is not about mail (the protocol, flow control,
//! health checks, a clean end on SIGTERM) is `opes-callout-server`'s.

use opes_callout_server::{Answer, Description, Message, Service};

/// A service is any type; its fields are its configuration and whatever it shares between messages.
struct AddHeader;

impl Service for AddHeader {
    /// What is not asked for is not sent: this service wants all of the content and nothing else.
    fn describe(&self) -> Description {
        Description::new("add-header/0.1").whole_content()
    }

    /// Called once for each message, many at a time. An error (or a panic) concerns this message only: the edge still has
    /// the original and does what the rule says about failures.
    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        // By chunks as they arrive, so that a message of any size needs little memory here.
        let mut octets = 0;
        while let Some(chunk) = message.chunk().await? {
            octets += chunk.len();
        }
        // An edit, not a new message: a few octets go back, and everything else stays as it is, signatures included.
        Ok(Answer::accept().add_header("X-Scanned-Octets", octets.to_string()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    opes_callout_server::run(AddHeader).await
}
