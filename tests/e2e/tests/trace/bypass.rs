use std::net::SocketAddr;

use anyhow::{Result, ensure};
use opes_e2e::smtp::Dialog;
use opes_e2e::tls;
use opes_e2e::trace::{fields, without_trace};
use opes_edge::config::{BypassConfig, EdgeConfig};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::setup::{BYPASSABLE, MESSAGE, SYSTEM, only, start};

fn bypassing(config: &mut EdgeConfig) -> Result<()> {
    config.bypass = Some(BypassConfig {
        identities: vec!["tim".into()],
        networks: vec!["127.0.0.0/8".parse()?],
    });
    Ok(())
}

fn identities_only(config: &mut EdgeConfig) {
    config.bypass = Some(BypassConfig {
        identities: vec!["tim".into()],
        networks: Vec::new(),
    });
}

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
    let setup = start(&rules, |config| {
        identities_only(config);
        Ok(())
    })
    .await?;
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
        identities_only(config);
        Ok(())
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
