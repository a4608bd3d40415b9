//! Lines of the profile's checklist that need a whole edge: C-56, C-57 and C-65 of docs/ocp-smtp.md.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{Answer, Description, Message, Service};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::eventually;
use opes_e2e::hop::{Arrival, Hop, Manners};
use opes_e2e::smtp::{Dialog, sample};
use opes_e2e::trace::{as_services_see_it, fields, without_trace};
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_proto::smtp::ContextField;

/// Keeps all that it is shown.
#[derive(Clone, Default)]
struct Keeper(Arc<Mutex<Vec<Vec<u8>>>>);

impl Keeper {
    fn seen(&self) -> Vec<Vec<u8>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Service for Keeper {
    fn describe(&self) -> Description {
        Description::new("keeper").whole_content()
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let octets = message.read_all(4 << 20).await?;
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(octets.to_vec());
        Ok(Answer::accept())
    }
}

/// Maps the names of an internal domain, in the envelope and wherever they stand in the header section.
struct Mapper;

const MAPPED: [&str; 4] = ["From", "Sender", "Reply-To", "Resent-From"];

impl Service for Mapper {
    fn describe(&self) -> Description {
        Description::new("mapper")
            .message_context([ContextField::MailFrom, ContextField::Headers])
            .message_headers(MAPPED)
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let outside = |text: &str| text.replace("@internal.example.com", "@example.com");
        let context = message.context();
        let sender = context.mail_from.as_ref().context("no reverse-path")?;
        let mut answer = Answer::accept().mail_from(outside(&sender.address));
        for name in MAPPED {
            let named = context.headers.iter().filter(|field| field.name == name);
            for (index, field) in named.enumerate() {
                let value = outside(&String::from_utf8_lossy(&field.value));
                answer =
                    answer.replace_header(name, u32::try_from(index)?, value.trim().to_owned());
            }
        }
        Ok(answer)
    }
}

struct Setup {
    _folder: tempfile::TempDir,
    edge: Embedded,
    hop: Hop,
}

async fn start(tested: impl Service, class: &str, allow: &str) -> Result<Setup> {
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(Manners::default()).await?;
    let endpoint = service(tested).await?;
    let rules = format!(
        "apiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: tested }}\nspec: {{ class: {class}, endpoint: '{endpoint}', limits: {{ connectTimeout: 20s }} }}\n---\n\
         apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: tested }}\nspec:\n  at: [content]\n  \
         callout: {{ serviceRef: {{ name: tested }}, allow: [{allow}] }}\n"
    );
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
    let edge = Embedded::start(config, &rules).await?;
    Ok(Setup {
        _folder: folder,
        edge,
        hop,
    })
}

impl Setup {
    async fn dialog(&self) -> Result<Dialog> {
        Dialog::open(self.edge.address("mx")?, false).await
    }

    async fn arrived(&self, number: usize) -> Result<Arrival> {
        eventually("delivered", || self.hop.arrivals().len() > number).await;
        self.hop
            .arrivals()
            .get(number)
            .cloned()
            .context("nothing arrived")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c_56_services_see_no_framing() -> Result<()> {
    let content = b"Subject: dots\r\n\r\n.\r\n..two\r\n.one\r\nend.\r\n";
    let keeper = Keeper::default();
    let setup = start(keeper.clone(), "analyze", "").await?;
    let mut dialog = setup.dialog().await?;
    // Doubled dots on the way in.
    let reply = dialog
        .message("a@example.org", &["b@example.com"], content)
        .await?;
    ensure!(reply.starts_with("250"), "{reply}");
    // Two that are on their way at the same time may arrive in either order.
    setup.arrived(0).await?;
    // Chunks, cut in the middle of a line and behind a dot.
    for command in ["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"] {
        dialog.command(command).await?;
    }
    let (first, second) = content.split_at(18);
    for (chunk, last) in [(first, ""), (second, " LAST")] {
        dialog
            .send(format!("BDAT {}{last}\r\n", chunk.len()).as_bytes())
            .await?;
        dialog.send(chunk).await?;
        let reply = dialog.reply().await?;
        ensure!(reply.starts_with("250"), "{reply}");
    }
    for number in 0..2 {
        let arrival = setup.arrived(number).await?;
        ensure!(without_trace(&arrival.content) == content, "octets differ");
        let seen = keeper.seen();
        let seen = seen.get(number).context("not seen")?;
        ensure!(
            seen == as_services_see_it(&arrival.content),
            "message {number}: the service saw {}",
            seen.escape_ascii()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_57_every_message_goes_to_its_services() -> Result<()> {
    let keeper = Keeper::default();
    let setup = start(keeper.clone(), "analyze", "").await?;
    let large = sample("large", 2 << 20);
    let messages: [&[u8]; 6] = [
        b"",
        b"\r\n",
        b"Subject: no empty line\r\n",
        b"no field at all\r\n",
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xa4\xff\r\n",
        &large,
    ];
    let mut dialog = setup.dialog().await?;
    for (number, message) in messages.into_iter().enumerate() {
        let reply = dialog.message("", &["b@example.com"], message).await?;
        ensure!(reply.starts_with("250"), "{reply}");
        let seen = keeper.seen();
        ensure!(
            seen.len() == number + 1,
            "message {number} was kept from the service"
        );
        let shown = without_trace(seen.last().context("nothing")?);
        ensure!(
            shown == message,
            "message {number}: {}",
            shown.escape_ascii()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_65_a_mapped_address_changes_wherever_it_stands() -> Result<()> {
    let content = b"Resent-From: ann@internal.example.com\r\nFrom: Ann <ann@internal.example.com>,\r\n Bob <bob@internal.example.com>\r\n\
        Sender: ann@internal.example.com\r\nReply-To: team@internal.example.com\r\nTo: c@example.org\r\n\r\nann@internal.example.com\r\n";
    let setup = start(Mapper, "adapt", "header, sender").await?;
    let mut dialog = setup.dialog().await?;
    let reply = dialog
        .message("ann@internal.example.com", &["b@example.com"], content)
        .await?;
    ensure!(reply.starts_with("250"), "{reply}");
    let arrival = setup.arrived(0).await?;
    ensure!(arrival.from == "ann@example.com", "{}", arrival.from);
    for name in MAPPED {
        let found = fields(&arrival.content, name);
        ensure!(
            found.len() == 1 && found[0].contains("@example.com") && !found[0].contains("internal"),
            "{name}: {found:?}"
        );
    }
    // The body is none of the mapping's business.
    ensure!(
        arrival
            .content
            .ends_with(b"\r\n\r\nann@internal.example.com\r\n"),
        "the body changed"
    );
    Ok(())
}
