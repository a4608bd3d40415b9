//! The callout service: an observer that takes what it is told and answers at once.

use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_proto::smtp::{ContextField, Point};

use crate::address::Addresses;
use crate::config::Config;
use crate::event::Reader;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::text::hexadecimal;
use crate::writer::{Writer, now_ms};

/// Reporting as a callout service.
#[derive(Debug)]
pub struct Reporting {
    config: Config,
    reader: Reader,
    store: Arc<Store>,
    metrics: Metrics,
    /// Started when the first edge comes.
    writer: OnceLock<Writer>,
}

// === impl Reporting ===

impl Reporting {
    /// From the `config` of a `CalloutService`. Must be called where tokio runs.
    pub fn from_config(json: &serde_json::Value) -> anyhow::Result<Self> {
        Self::with_metrics(json, Metrics::default())
    }

    /// The same, counting where it can be seen.
    pub fn with_metrics(json: &serde_json::Value, metrics: Metrics) -> anyhow::Result<Self> {
        let config = Config::from_json(json).context("reporting")?;
        // The folder of a file is made here, and the key is beside the file.
        let store = Store::open(&config).context("reporting")?;
        let addresses = Addresses::open(&config).context("reporting")?;
        Ok(Self {
            reader: Reader {
                addresses,
                outbound_listeners: config.outbound_listeners.clone(),
            },
            store: Arc::new(store),
            config,
            metrics,
            writer: OnceLock::new(),
        })
    }

    fn writer(&self) -> &Writer {
        self.writer
            .get_or_init(|| Writer::start(&self.config, Arc::clone(&self.store), &self.metrics))
    }
}

impl Service for Reporting {
    fn describe(&self) -> Description {
        self.writer();
        Description::new(concat!("reporting/", env!("CARGO_PKG_VERSION"))).message_context([
            ContextField::Auth,
            ContextField::MailFrom,
            ContextField::Recipients,
            ContextField::Size,
            ContextField::Listener,
            ContextField::Delivery,
            ContextField::Answer,
        ])
    }

    async fn command(&self, command: Command) -> anyhow::Result<CommandAnswer> {
        bail!(wrong_point(command.point))
    }

    async fn message(&self, message: &mut Message) -> anyhow::Result<Answer> {
        let (point, context) = (message.point(), message.context());
        let Some(mut event) = self.reader.event(point, context, now_ms()) else {
            bail!(wrong_point(point));
        };
        if event.id.is_empty() {
            // A processor that names no events: each transaction counts.
            event.id = random_id();
        }
        self.writer().queue.push(event);
        Ok(Answer::accept())
    }

    async fn stop(&self) {
        if let Some(writer) = self.writer.get() {
            writer.stop().await;
        }
    }
}

fn wrong_point(point: Point) -> String {
    format!(
        "nothing is reported at {}: write `at: [answered, delivered, deferred, bounced]` in the rule",
        point.as_str_name()
    )
}

/// 128 random bits, in hexadecimal digits.
pub(crate) fn random_id() -> String {
    let mut octets = [0; 16];
    // The system has randomness, or TLS would not work either; and an id that is not unique drops a row of a report.
    let _filled = aws_lc_rs::rand::fill(&mut octets);
    hexadecimal(&octets)
}
