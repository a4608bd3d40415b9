//! Trace and bypass end to end (RFC 3897, RFC 4902): C-59 to C-63 of docs/ocp-smtp.md.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use opes_callout_server::{Answer, Command, CommandAnswer, Description, Message, Service};
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::hop::{Arrival, Hop, Manners};
use opes_e2e::smtp::Dialog;
use opes_e2e::trace::{fields, without_trace};
use opes_e2e::{eventually, tls};
use opes_edge::config::{
    BypassConfig, DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol,
};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

const MESSAGE: &[u8] = b"From: a@example.org\r\nSubject: a\r\n\r\nbody\r\n";
const SYSTEM: &str = "https://mail.example.com/opes";
const CLAIM: &str = "OPES-System: https://mail.example.com/opes; id=forged\r\n";

/// Does what the rule's parameters say.
struct Tested;

impl Service for Tested {
    fn describe(&self) -> Description {
        Description::new("tested").whole_content()
    }

    async fn command(&self, command: Command) -> Result<CommandAnswer> {
        Ok(match command.parameters.json.contains("refuse") {
            true => CommandAnswer::reply(550, "5.7.1", "Not from there"),
            false => CommandAnswer::proceed(),
        })
    }

    async fn message(&self, message: &mut Message) -> Result<Answer> {
        let seen = message.read_all(1 << 20).await?;
        let parameters = message.parameters().json.clone();
        let answer = Answer::accept();
        Ok(if parameters.contains("refuse") {
            Answer::reject(550, "5.7.1", "Not this")
        } else if parameters.contains("delete") {
            answer
                .delete_headers("OPES-System")
                .delete_headers("OPES-Via")
        } else if parameters.contains("forge") {
            answer
                .add_header("OPES-Via", format!("{SYSTEM}/service/default/forged"))
                .append_header("opes-system", format!("{SYSTEM}; id=forged"))
        } else if parameters.contains("nothing") {
            answer
        } else {
            let first = seen.split(|octet| *octet == b'\n').next();
            let traced = first.is_some_and(|line| line.starts_with(b"OPES-System: "));
            answer.add_header("X-Seen", if traced { "traced" } else { "bare" })
        })
    }
}

struct Setup {
    folder: tempfile::TempDir,
    edge: Embedded,
    hop: Hop,
}

/// `rules`: name, class of the service, point, what it does, more of the service's object.
async fn start(
    rules: &[(&str, &str, &str, &str, &str)],
    change: impl FnOnce(&mut EdgeConfig) -> Result<()>,
) -> Result<Setup> {
    let folder = tempfile::tempdir()?;
    let hop = Hop::start(Manners::default()).await?;
    let endpoint = service(Tested).await?;
    let objects = rules.iter().map(|(name, class, point, does, more)| {
        let allow = match *class {
            "adapt" => "header",
            "analyze" => "reject",
            _ => "",
        };
        format!(
            "---\napiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\n\
             spec: {{ class: {class}, endpoint: '{endpoint}'{more} }}\n\
             ---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec:\n  at: [{point}]\n  \
             callout: {{ serviceRef: {{ name: {name} }}, allow: [{allow}], parameters: {{ do: {does} }} }}\n"
        )
    });
    let mut config = EdgeConfig {
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
    change(&mut config)?;
    let edge = Embedded::start(config, &objects.collect::<String>()).await?;
    Ok(Setup { folder, edge, hop })
}

impl Setup {
    fn address(&self) -> Result<SocketAddr> {
        self.edge.address("mx")
    }

    /// Sends from the client that tests have, with what MAIL has behind the path.
    async fn send(&self, parameters: &str, content: &[u8]) -> Result<Arrival> {
        let before = self.hop.arrivals().len();
        let mut dialog = Dialog::open(self.address()?, false).await?;
        let mail = format!("MAIL FROM:<a@example.org>{parameters}");
        for command in [&mail, "RCPT TO:<b@example.com>"] {
            let reply = dialog.command(command).await?;
            ensure!(reply.starts_with("250"), "{command}: {reply}");
        }
        dialog.command("DATA").await?;
        dialog.send(content).await?;
        let reply = dialog.command(".").await?;
        ensure!(reply.starts_with("250"), "{reply}");
        self.arrived(before).await
    }

    async fn arrived(&self, before: usize) -> Result<Arrival> {
        eventually("delivered", || self.hop.arrivals().len() > before).await;
        let arrivals = self.hop.arrivals();
        arrivals.get(before).cloned().context("no arrival")
    }

    /// What the report says of the rule's step.
    fn verdict(&self, rule: &str) -> Result<String> {
        let reports = self.edge.reports();
        let report = reports.last().context("no report")?;
        let step = report.steps.iter().find(|step| step.rule == rule);
        Ok(step.context("no such step")?.verdict.clone())
    }
}

/// The one field of this name.
fn only(arrival: &Arrival, name: &str) -> Result<String> {
    let mut found = fields(&arrival.content, name);
    let text = String::from_utf8_lossy(&arrival.content);
    ensure!(found.len() == 1, "{} {name} fields in\n{text}", found.len());
    found.pop().context("no field")
}

/// Our one `OPES-System`; its trace id.
fn trace_id(arrival: &Arrival) -> Result<String> {
    let system = only(arrival, "OPES-System")?;
    let id = system
        .strip_prefix(&format!("{SYSTEM}; id="))
        .and_then(|rest| rest.split(';').next());
    Ok(id.with_context(|| system.clone())?.to_owned())
}

const BYPASSABLE: &str = ", bypass: { allowed: true, uri: 'https://translate.example.net/' }";

fn bypassing(config: &mut EdgeConfig) -> Result<()> {
    config.bypass = Some(BypassConfig {
        identities: vec!["tim".into()],
        networks: vec!["127.0.0.0/8".parse()?],
    });
    Ok(())
}

fn identities_only(config: &mut EdgeConfig) -> Result<()> {
    config.bypass = Some(BypassConfig {
        identities: vec!["tim".into()],
        networks: Vec::new(),
    });
    Ok(())
}

// === trace ===

#[tokio::test(flavor = "multi_thread")]
async fn c_59_every_message_names_system_processor_and_services() -> Result<()> {
    let rules = [
        ("entry", "analyze", "rcptTo", "nothing", ""),
        ("watch", "observe", "content", "nothing", ""),
        ("mark", "adapt", "content", "look", BYPASSABLE),
    ];
    let setup = start(&rules, |_| Ok(())).await?;
    let arrival = setup.send("", MESSAGE).await?;
    let id = trace_id(&arrival)?;
    ensure!(
        only(&arrival, "Received")?.contains(&format!("id {id};"))
            || only(&arrival, "Received")?.contains(&format!("id {id} ")),
        "Received has another id"
    );
    ensure!(
        setup
            .edge
            .reports()
            .last()
            .is_some_and(|report| report.session == id),
        "the report has another id"
    );
    let via = only(&arrival, "OPES-Via")?;
    let expected = format!(
        "{SYSTEM}/processor/mail.example.com; id={id}, {SYSTEM}/service/default/entry, {SYSTEM}/service/default/watch, https://translate.example.net/"
    );
    ensure!(via == expected, "{via}");
    // The service saw our field as the first line.
    ensure!(
        only(&arrival, "X-Seen")? == "traced",
        "a service saw a message without trace"
    );
    ensure!(arrival.content.ends_with(MESSAGE), "octets differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_there_is_no_trace() -> Result<()> {
    let setup = start(&[], |_| Ok(())).await?;
    let arrival = setup.send("", MESSAGE).await?;
    ensure!(
        fields(&arrival.content, "OPES-System").is_empty()
            && fields(&arrival.content, "OPES-Via").is_empty(),
        "trace without rules"
    );
    ensure!(without_trace(&arrival.content) == MESSAGE, "octets differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_60_no_service_takes_our_trace_out_or_writes_in_our_name() -> Result<()> {
    for does in ["delete", "forge"] {
        let setup = start(&[("bad", "adapt", "content", does, "")], |_| Ok(())).await?;
        let arrival = setup.send("", MESSAGE).await?;
        let id = trace_id(&arrival)?;
        let via = only(&arrival, "OPES-Via")?;
        ensure!(
            via == format!(
                "{SYSTEM}/processor/mail.example.com; id={id}, {SYSTEM}/service/default/bad"
            ),
            "{does}: {via}"
        );
        ensure!(
            without_trace(&arrival.content) == MESSAGE,
            "{does}: octets differ"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_name_is_believed_of_our_own_only_and_others_keep_theirs() -> Result<()> {
    let other = "OPES-System: https://mail.example.net/opes; id=1\r\nOPES-Via: https://mail.example.net/x\r\n";
    let theirs = [CLAIM.as_bytes(), other.as_bytes(), MESSAGE].concat();
    let rules = [("look", "adapt", "content", "look", "")];
    let setup = start(&rules, |_| Ok(())).await?;
    let arrival = setup.send("", &theirs).await?;
    ensure!(
        arrival
            .content
            .ends_with(&[other.as_bytes(), MESSAGE].concat()),
        "fields of others were touched"
    );
    let systems = fields(&arrival.content, "OPES-System");
    ensure!(
        systems.len() == 2 && !systems[0].contains("forged"),
        "{systems:?}"
    );
    let relay = |config: &mut EdgeConfig| {
        config.relay_networks = vec!["127.0.0.0/8".parse()?];
        Ok(())
    };
    let setup = start(&rules, relay).await?;
    let arrival = setup.send("", &theirs).await?;
    ensure!(
        arrival.content.ends_with(&theirs),
        "a peer's fields were touched"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_61_refusals_say_who_refused() -> Result<()> {
    let setup = start(&[("guard", "analyze", "rcptTo", "refuse", "")], |_| Ok(())).await?;
    let mut dialog = Dialog::open(setup.address()?, false).await?;
    dialog.command("MAIL FROM:<a@example.org>").await?;
    let reply = dialog.command("RCPT TO:<b@example.com>").await?;
    let session = setup
        .edge
        .reports()
        .last()
        .context("no report")?
        .session
        .clone();
    ensure!(
        reply == format!("550 5.7.1 Not from there ({SYSTEM}; id={session})"),
        "{reply}"
    );
    // What no rule refuses keeps its text.
    let reply = dialog.command("RCPT TO:<b@example.net>").await?;
    ensure!(
        reply.starts_with("550") && !reply.contains(SYSTEM),
        "{reply}"
    );
    for (protocol, lmtp) in [
        (ListenerProtocol::Smtp, false),
        (ListenerProtocol::Lmtp, true),
    ] {
        let rules = [("guard", "analyze", "content", "refuse", "")];
        let setup = start(&rules, |config| {
            config.listeners[0].protocol = protocol;
            Ok(())
        })
        .await?;
        let mut dialog = Dialog::open(setup.address()?, lmtp).await?;
        let to = ["b@example.com", "c@example.com"];
        let mut replies = vec![dialog.message("a@example.org", &to, MESSAGE).await?];
        if lmtp {
            replies.push(dialog.reply().await?);
        }
        for reply in replies {
            ensure!(
                reply.starts_with(&format!("550 5.7.1 Not this ({SYSTEM}; id=")),
                "{reply}"
            );
        }
    }
    Ok(())
}

// === bypass ===

#[tokio::test(flavor = "multi_thread")]
async fn c_62_header_field_and_parameter_bypass_what_may_be_bypassed() -> Result<()> {
    let rules = [
        ("scan", "analyze", "content", "nothing", ""),
        ("translate", "adapt", "content", "look", BYPASSABLE),
    ];
    let setup = start(&rules, bypassing).await?;
    let field = [b"OPES-Bypass: https://translate.example.net/\r\n", MESSAGE].concat();
    let parameter = " OPESBYPASS=https://translate.example.net/";
    for (parameter, content) in [(parameter, MESSAGE), ("", &field)] {
        let arrival = setup.send(parameter, content).await?;
        ensure!(
            without_trace(&arrival.content) == content,
            "the message was changed"
        );
        let via = only(&arrival, "OPES-Via")?;
        ensure!(
            via.ends_with(&format!(
                "{SYSTEM}/service/default/scan, https://translate.example.net/; bypass=granted"
            )),
            "{via}"
        );
        ensure!(
            setup.verdict("default/translate")? == "bypassed",
            "not reported"
        );
        ensure!(
            setup.verdict("default/scan")? == "accept",
            "the scanner did not run"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_63_what_is_not_to_be_bypassed_runs_and_the_trace_says_so() -> Result<()> {
    let rules = [
        ("scan", "analyze", "content", "nothing", ""),
        ("translate", "adapt", "content", "look", BYPASSABLE),
    ];
    let setup = start(&rules, bypassing).await?;
    // A URI that nobody here has asks for everything.
    for parameter in [" OPESBYPASS=*", " OPESBYPASS=urn:example:unknown"] {
        let arrival = setup.send(parameter, MESSAGE).await?;
        let via = only(&arrival, "OPES-Via")?;
        ensure!(
            via.contains("/scan; bypass=refused; reason=required, https://translate.example.net/; bypass=granted"),
            "{via}"
        );
        ensure!(
            setup.verdict("default/scan")? == "accept",
            "the scanner did not run"
        );
    }
    let mut dialog = Dialog::open(setup.address()?, false).await?;
    let reply = dialog
        .command("MAIL FROM:<a@example.org> OPESBYPASS=please")
        .await?;
    ensure!(reply.starts_with("501 5.5.4"), "{reply}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_62_strangers_bypass_nothing() -> Result<()> {
    let rules = [("translate", "adapt", "content", "look", BYPASSABLE)];
    let field = [b"OPES-Bypass: *\r\n", MESSAGE].concat();
    let setup = start(&rules, identities_only).await?;
    for (parameter, content) in [(" OPESBYPASS=*", MESSAGE), ("", &field)] {
        let arrival = setup.send(parameter, content).await?;
        ensure!(
            only(&arrival, "X-Seen")? == "traced",
            "the service did not run"
        );
        let via = only(&arrival, "OPES-Via")?;
        ensure!(
            via.contains("; bypass=refused; reason=unauthorized, https://"),
            "{via}"
        );
        ensure!(arrival.content.ends_with(content), "octets differ");
    }
    // Nothing is offered where nobody may ask.
    let setup = start(&rules, |_| Ok(())).await?;
    let mut dialog = Dialog::open(setup.address()?, false).await?;
    let reply = dialog
        .command("MAIL FROM:<a@example.org> OPESBYPASS=*")
        .await?;
    ensure!(reply.starts_with("555"), "{reply}");
    Ok(())
}

/// A client over TLS.
struct Encrypted(BufReader<tokio_rustls::client::TlsStream<TcpStream>>);

impl Encrypted {
    async fn open(server: SocketAddr) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(server).await?);
        for command in ["", "EHLO client.example.org\r\n", "STARTTLS\r\n"] {
            stream.write_all(command.as_bytes()).await?;
            reply(&mut stream).await?;
        }
        let mut dialog = Self(BufReader::new(tls::handshake(stream.into_inner()).await?));
        dialog.command("EHLO client.example.org").await?;
        Ok(dialog)
    }

    async fn command(&mut self, line: &str) -> Result<String> {
        self.0.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.0.flush().await?;
        reply(&mut self.0).await
    }
}

async fn reply(stream: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<String> {
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line).await? > 0, "closed");
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c_62_who_has_authenticated_may_bypass() -> Result<()> {
    let rules = [("translate", "adapt", "content", "look", BYPASSABLE)];
    let keys = tempfile::tempdir()?;
    let setup = start(&rules, |config| {
        let users = keys.path().join("users");
        let hash = opes_edge::password_hash("sesame")?;
        std::fs::write(&users, format!("tim:{hash}\nann:{hash}\n"))?;
        config.listeners[0].users = Some(users);
        config.listeners[0].tls = Some(tls::write_pair(keys.path())?.0);
        identities_only(config)
    })
    .await?;
    ensure!(setup.folder.path().exists(), "the spool is gone");
    // tim and ann, both with the password sesame.
    for (count, (credentials, bypassed)) in
        [("AHRpbQBzZXNhbWU=", true), ("AGFubgBzZXNhbWU=", false)]
            .into_iter()
            .enumerate()
    {
        let mut dialog = Encrypted::open(setup.address()?).await?;
        for command in [
            &format!("AUTH PLAIN {credentials}"),
            "MAIL FROM:<a@example.org> OPESBYPASS=*",
            "RCPT TO:<b@example.com>",
            "DATA",
        ] {
            let reply = dialog.command(command).await?;
            ensure!(reply.starts_with(['2', '3']), "{command}: {reply}");
        }
        dialog.command("Subject: a\r\n\r\nbody\r\n.").await?;
        let arrival = setup.arrived(count).await?;
        let seen = fields(&arrival.content, "X-Seen");
        ensure!(seen.is_empty() == bypassed, "bypassed {bypassed}, {seen:?}");
    }
    Ok(())
}
