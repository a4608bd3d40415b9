//! An edge, a service that judges by subject, a next hop, and the reporting service that watches.

use std::time::Instant;

use anyhow::Result;
use opes_callout_server::{Answer, Description, Message, Service};
use opes_e2e::DEADLINE;
use opes_e2e::behind::ANN;
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_reporting::{By, Config, Query, Report, report};
use serde_json::Value;

/// Decides by the subject.
struct Judge;

impl Service for Judge {
    fn describe(&self) -> Description {
        Description::new("judge").message_headers(["Subject"])
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let subject = message.context().headers.first();
        let subject = subject.map(|field| String::from_utf8_lossy(&field.value).into_owned());
        Ok(match subject.as_deref().map(str::trim) {
            Some("refuse") => Answer::reject(550, "5.7.1", "No"),
            Some("later") => Answer::tempfail(451, "4.7.1", "Later"),
            _ => Answer::accept(),
        })
    }
}

pub(crate) struct Setup {
    pub(crate) edge: Embedded,
    pub(crate) hop: Hop,
    _folder: tempfile::TempDir,
}

impl Setup {
    pub(crate) async fn start(reporting: impl Service) -> Result<Self> {
        Self::with(reporting, 1).await
    }

    /// With so many rules that call the reporting service.
    pub(crate) async fn with(reporting: impl Service, rules: usize) -> Result<Self> {
        Self::at(&service(reporting).await?, rules).await
    }

    /// With a reporting service that is somewhere.
    pub(crate) async fn at(reporting: &str, rules: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let replies = [
            ("busy@example.com", "450 4.2.0 mailbox busy"),
            ("gone@example.com", "550 5.1.1 no such mailbox"),
        ];
        let hop = Hop::start(Manners {
            recipients: replies
                .map(|(to, reply)| (to.to_owned(), reply.to_owned()))
                .into(),
            ..Manners::default()
        })
        .await?;
        let config = EdgeConfig {
            listeners: vec![ListenerConfig::new(
                "mx",
                "127.0.0.1:0".parse()?,
                ListenerProtocol::Smtp,
            )],
            domains: vec!["example.com".into()],
            delivery: DeliveryConfig {
                next_hop: Some(hop.address.to_string()),
                ..DeliveryConfig::default()
            },
            ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
        };
        let judge = service(Judge).await?;
        let edge = Embedded::start(config, &objects(&judge, reporting, rules)).await?;
        Ok(Self {
            edge,
            hop,
            _folder: folder,
        })
    }

    pub(crate) async fn dialog(&self) -> Result<Dialog> {
        Dialog::open(self.edge.address("mx")?, false).await
    }

    pub(crate) async fn send(&self, subject: &str, to: &str) -> Result<String> {
        let mut dialog = self.dialog().await?;
        dialog.message(ANN, &[to], &message(subject)).await
    }
}

fn objects(judge: &str, reporting: &str, rules: usize) -> String {
    let head = "---\napiVersion: opes.dev/v1alpha1\nkind:";
    let mut text = format!(
        "{head} CalloutService\nmetadata: {{ name: judge }}\nspec: {{ class: analyze, endpoint: '{judge}', limits: {{ connectTimeout: 20s }} }}\n\
         {head} OpesRule\nmetadata: {{ name: judge }}\nspec:\n  at: [content]\n  callout: {{ serviceRef: {{ name: judge }}, allow: [reject] }}\n\
         {head} OpesRule\nmetadata: {{ name: nobody-is-blocked }}\nspec:\n  at: [rcptTo]\n  match: {{ cel: 'rcpt == \"blocked@example.com\"' }}\n  \
         action: {{ reject: {{ code: 550, enhanced: 5.1.1, text: nobody }} }}\n\
         {head} CalloutService\nmetadata: {{ name: reporting }}\nspec: {{ class: observe, endpoint: '{reporting}', idempotent: true, limits: {{ connectTimeout: 20s }} }}\n"
    );
    for number in 0..rules {
        text.push_str(&format!(
            "{head} OpesRule\nmetadata: {{ name: report-{number} }}\nspec:\n  at: [answered, delivered, deferred, bounced]\n  \
             callout: {{ serviceRef: {{ name: reporting }}, timeout: 20s }}\n"
        ));
    }
    text
}

fn message(subject: &str) -> Vec<u8> {
    format!("From: {ANN}\r\nSubject: {subject}\r\n\r\nbody of {subject}\r\n").into_bytes()
}

/// Of all messages of the counting test.
pub(crate) fn octets_sent() -> u64 {
    let all = [
        "fine", "fine", "fine", "refuse", "refuse", "later", "fine", "fine",
    ];
    all.iter()
        .map(|subject| message(subject).len() as u64)
        .sum()
}

/// Everything that is in the database; an empty report while there is none.
pub(crate) async fn read(config: &Value) -> Report {
    let query = Query {
        since_ms: 0,
        until_ms: u64::MAX,
        by: vec![By::Service, By::Rule, By::Domain, By::Hour],
        rows_max: 1000,
    };
    let config = Config::from_json(config).expect("the service took it");
    let empty = Report {
        since_ms: 0,
        until_ms: 0,
        volume: Vec::new(),
        fates: Vec::new(),
        attempts: Vec::new(),
        services: None,
        rules: None,
        domains: None,
        hours: None,
        losses: Vec::new(),
    };
    report(&config, &query).await.unwrap_or(empty)
}

/// As soon as it is as it should be.
pub(crate) async fn report_of(config: &Value, is_done: impl Fn(&Report) -> bool) -> Report {
    let started = Instant::now();
    loop {
        let report = read(config).await;
        if is_done(&report) {
            return report;
        }
        assert!(started.elapsed() < DEADLINE, "{report:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
