//! A callout service that takes its time for each message and stamps it with its pod: to see a pool grow (examples/kubernetes/own-image.yaml has
//! what such a service needs in a cluster).

use std::time::Duration;

use clap::Parser;
use opes_callout_server::{Answer, Description, ListenOptions, Message, Service, run_on};

/// Longest message that is read.
const CONTENT_MAX: usize = 1 << 20;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    listen: ListenOptions,
    /// What a message takes, in milliseconds.
    #[arg(long, default_value_t = 0)]
    work: u64,
}

struct Stamper {
    work: Duration,
    /// The pod's name.
    name: String,
}

impl Service for Stamper {
    fn describe(&self) -> Description {
        Description::new("stamper").whole_content()
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        message.read_all(CONTENT_MAX).await?;
        tokio::time::sleep(self.work).await;
        Ok(Answer::accept().add_header("X-Stamp", self.name.clone()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let service = Stamper {
        work: Duration::from_millis(arguments.work),
        name: std::env::var("HOSTNAME").unwrap_or_default(),
    };
    run_on(service, &arguments.listen).await
}
