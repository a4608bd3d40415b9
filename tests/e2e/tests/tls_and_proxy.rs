//! STARTTLS certificates that are replaced live, and the client's address by the PROXY protocol.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use opes_e2e::embedded::Embedded;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::tls::{handshake, shown, write_pair};
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol, TlsConfig};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The edge looks at certificate files every second (docs/operate/edge-config.md); the rest is for a busy machine.
const REPLACED_WITHIN: Duration = Duration::from_secs(20);

/// How long the edge may take to close a connection that it does not want; it waits 5 s for a PROXY header.
const CLOSED_WITHIN: Duration = Duration::from_secs(20);

async fn start(folder: &TempDir, listener: ListenerConfig, rules: &str) -> Result<(Embedded, Hop)> {
    let hop = Hop::start(Manners::default()).await?;
    let config = EdgeConfig {
        listeners: vec![listener],
        domains: vec!["example.com".into()],
        delivery: DeliveryConfig {
            next_hop: Some(hop.address.to_string()),
            ..DeliveryConfig::default()
        },
        ..EdgeConfig::new("mail.example.com", folder.path().join("spool"))
    };
    Ok((Embedded::start(config, rules).await?, hop))
}

fn listener() -> Result<ListenerConfig> {
    Ok(ListenerConfig::new(
        "mx",
        "127.0.0.1:0".parse()?,
        ListenerProtocol::Smtp,
    ))
}

/// A connection whose lines are read one by one.
struct Lines(BufReader<TcpStream>);

impl Lines {
    async fn connect(server: SocketAddr) -> Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(server).await?)))
    }

    async fn send(&mut self, octets: &[u8]) -> Result<()> {
        Ok(self.0.write_all(octets).await?)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        timeout(CLOSED_WITHIN, self.0.read_line(&mut line))
            .await
            .context("the server says nothing")??;
        Ok(line.trim_end().to_owned())
    }

    async fn command(&mut self, command: &str) -> Result<String> {
        self.send(format!("{command}\r\n").as_bytes()).await?;
        self.line().await
    }

    /// Everything up to the server's end; a reset is an end too.
    async fn rest(mut self) -> Result<Vec<u8>> {
        let mut rest = Vec::new();
        match timeout(CLOSED_WITHIN, self.0.read_to_end(&mut rest))
            .await
            .context("the server does not close")?
        {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.into()),
            Ok(_) | Err(_) => Ok(rest),
        }
    }
}

// === Certificates ===

async fn starttls(server: SocketAddr) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut lines = Lines::connect(server).await?;
    ensure!(lines.line().await?.starts_with("220"), "no greeting");
    ensure!(
        lines
            .command("HELO client.example.org")
            .await?
            .starts_with("250"),
        "HELO"
    );
    let reply = lines.command("STARTTLS").await?;
    ensure!(reply.starts_with("220"), "STARTTLS: {reply}");
    handshake(lines.0.into_inner()).await
}

/// New handshakes until one shows `certificate`.
async fn until_shown(
    server: SocketAddr,
    certificate: &rustls::pki_types::CertificateDer<'_>,
) -> Result<()> {
    let started = Instant::now();
    while shown(&starttls(server).await?)? != *certificate {
        ensure!(
            started.elapsed() < REPLACED_WITHIN,
            "the old certificate is still shown"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_without_restart_and_open_sessions_live_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (pair, first) = write_pair(folder.path())?;
    let (edge, _hop) = start(
        &folder,
        ListenerConfig {
            tls: Some(pair),
            ..listener()?
        },
        "",
    )
    .await?;
    let server = edge.address("mx")?;
    let mut open = starttls(server).await?;
    ensure!(shown(&open)? == first, "not the first certificate");

    let (_, second) = write_pair(folder.path())?;
    ensure!(first != second, "two pairs alike");
    until_shown(server, &second).await?;

    open.write_all(b"NOOP\r\n").await?;
    let mut reply = [0; 3];
    open.read_exact(&mut reply).await?;
    ensure!(
        reply == *b"250",
        "the session under the old certificate: {}",
        reply.escape_ascii()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_pair_leaves_the_last_good_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (pair, first) = write_pair(folder.path())?;
    let (edge, _hop) = start(
        &folder,
        ListenerConfig {
            tls: Some(pair.clone()),
            ..listener()?
        },
        "",
    )
    .await?;
    let server = edge.address("mx")?;

    std::fs::write(&pair.certificate, "-----BEGIN CERTIFICATE-----\nbroken\n")?;
    let started = Instant::now();
    // Longer than the interval, so that the edge has looked.
    while started.elapsed() < Duration::from_secs(5) {
        ensure!(
            shown(&starttls(server).await?)? == first,
            "another certificate than the last good one"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    let (_, repaired) = write_pair(folder.path())?;
    until_shown(server, &repaired).await
}

// === TLS from the first octet on ===

#[tokio::test(flavor = "multi_thread")]
async fn implicit_tls_greets_under_tls_and_offers_no_starttls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (pair, certificate) = write_pair(folder.path())?;
    let tls = Some(TlsConfig {
        implicit: true,
        ..pair
    });
    let (edge, _hop) = start(&folder, ListenerConfig { tls, ..listener()? }, "").await?;
    let stream = handshake(TcpStream::connect(edge.address("mx")?).await?).await?;
    ensure!(shown(&stream)? == certificate, "another certificate");
    let mut lines = BufReader::new(stream);
    let mut dialog = String::new();
    lines.read_line(&mut dialog).await?;
    ensure!(dialog.starts_with("220 "), "{dialog}");
    lines
        .write_all(b"EHLO client.example.org\r\nSTARTTLS\r\nQUIT\r\n")
        .await?;
    timeout(CLOSED_WITHIN, lines.read_to_string(&mut dialog)).await??;
    ensure!(!dialog.contains("250-STARTTLS"), "{dialog}");
    ensure!(dialog.contains("\r\n503 "), "{dialog}");

    // Who does not speak TLS gets nothing.
    let mut plain = Lines::connect(edge.address("mx")?).await?;
    plain.send(b"EHLO client.example.org\r\n").await?;
    let said = plain.rest().await?;
    ensure!(!said.starts_with(b"220"), "{}", said.escape_ascii());
    Ok(())
}

// === PROXY protocol ===

/// Clients of 192.0.2.0/24 and of 2001:db8::/32 are refused; the balancer on loopback is not in them.
const REFUSED_NETWORKS: &str = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: refused-networks }\nspec:\n  at: [mailFrom]\n  \
    match: { clientNetworks: [192.0.2.0/24, '2001:db8::/32'] }\n  action: { reject: { text: not from this network } }\n";

const TRUSTED: &str = "127.0.0.0/8";

async fn behind_balancer(proxy_from: &str) -> Result<(Embedded, Hop, TempDir)> {
    let folder = tempfile::tempdir()?;
    let listener = ListenerConfig {
        proxy_from: vec![proxy_from.parse()?],
        ..listener()?
    };
    let (edge, hop) = start(&folder, listener, REFUSED_NETWORKS).await?;
    Ok((edge, hop, folder))
}

/// Version 2 (binary) for a TCP connection.
fn version_2(source: &str, destination: &str) -> Result<Vec<u8>> {
    let mut addresses = Vec::new();
    let (source, destination): (SocketAddr, SocketAddr) = (source.parse()?, destination.parse()?);
    let family = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            addresses.extend(source.ip().octets());
            addresses.extend(destination.ip().octets());
            0x11
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            addresses.extend(source.ip().octets());
            addresses.extend(destination.ip().octets());
            0x21
        }
        _ => bail!("addresses of two families"),
    };
    addresses.extend(source.port().to_be_bytes());
    addresses.extend(destination.port().to_be_bytes());
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, family]);
    header.extend(u16::try_from(addresses.len())?.to_be_bytes());
    header.extend(addresses);
    Ok(header)
}

/// The reply to MAIL of a client that the balancer announces with `header`.
async fn reply_to_mail(server: SocketAddr, header: &[u8]) -> Result<String> {
    let mut lines = Lines::connect(server).await?;
    lines.send(header).await?;
    let greeting = lines.line().await?;
    ensure!(greeting.starts_with("220"), "greeting: {greeting:?}");
    ensure!(
        lines
            .command("HELO client.example.org")
            .await?
            .starts_with("250"),
        "HELO"
    );
    lines.command("MAIL FROM:<steve@example.org>").await
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_see_the_client_behind_the_balancer() -> Result<()> {
    let (edge, _hop, _folder) = behind_balancer(TRUSTED).await?;
    let server = edge.address("mx")?;
    for (header, reply) in [
        (
            b"PROXY TCP4 192.0.2.138 203.0.113.1 49152 25\r\n".to_vec(),
            "550",
        ),
        (
            b"PROXY TCP4 198.51.100.7 203.0.113.1 49152 25\r\n".to_vec(),
            "250",
        ),
        (
            b"PROXY TCP6 2001:db8::138 2001:db8::1 49152 25\r\n".to_vec(),
            "550",
        ),
        (version_2("192.0.2.138:49152", "203.0.113.1:25")?, "550"),
        (version_2("198.51.100.7:49152", "203.0.113.1:25")?, "250"),
        (
            version_2("[2001:db8::138]:49152", "[2001:db8::1]:25")?,
            "550",
        ),
    ] {
        let said = reply_to_mail(server, &header).await?;
        ensure!(
            said.starts_with(reply),
            "{}: expected {reply}, got {said}",
            header.escape_ascii()
        );
    }
    let refused = edge
        .reports()
        .into_iter()
        .map(|report| report.client.to_string())
        .collect::<Vec<_>>();
    ensure!(
        refused
            == [
                "192.0.2.138",
                "2001:db8::138",
                "192.0.2.138",
                "2001:db8::138"
            ],
        "reports name {refused:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_in_pieces_is_read_and_the_trace_field_names_the_client() -> Result<()> {
    let (edge, hop, _folder) = behind_balancer(TRUSTED).await?;
    let mut lines = Lines::connect(edge.address("mx")?).await?;
    lines.0.get_ref().set_nodelay(true)?;
    for octet in b"PROXY TCP4 198.51.100.7 203.0.113.1 49152 25\r\n" {
        lines.send(&[*octet]).await?;
    }
    ensure!(lines.line().await?.starts_with("220"), "no greeting");
    for command in [
        "HELO client.example.org",
        "MAIL FROM:<steve@example.org>",
        "RCPT TO:<paul@example.com>",
    ] {
        let reply = lines.command(command).await?;
        ensure!(reply.starts_with("250"), "{command}: {reply}");
    }
    ensure!(lines.command("DATA").await?.starts_with("354"), "DATA");
    let reply = lines.command("Subject: x\r\n\r\ny\r\n.").await?;
    ensure!(reply.starts_with("250"), "{reply}");
    opes_e2e::eventually("delivered", || hop.arrivals().len() == 1).await;
    let arrivals = hop.arrivals();
    let content =
        String::from_utf8_lossy(&arrivals.first().context("no arrival")?.content).into_owned();
    ensure!(
        content.contains("[198.51.100.7]") && !content.contains("127.0.0.1"),
        "{content}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_listed_is_closed_without_a_word() -> Result<()> {
    let (edge, _hop, _folder) = behind_balancer("203.0.113.0/24").await?;
    let mut lines = Lines::connect(edge.address("mx")?).await?;
    // The edge may close before it has read this.
    let _ = lines
        .send(b"PROXY TCP4 198.51.100.7 203.0.113.1 49152 25\r\n")
        .await;
    let rest = lines.rest().await?;
    ensure!(rest.is_empty(), "the server said {}", rest.escape_ascii());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_a_broken_one_and_silence_are_closed_without_a_word() -> Result<()> {
    let (edge, _hop, _folder) = behind_balancer(TRUSTED).await?;
    let server = edge.address("mx")?;
    for first in [
        "EHLO client.example.org\r\n",
        "PROXY TCP4 nonsense\r\n",
        "PROXY TCP4 198.51.100.7",
        "",
    ] {
        let mut lines = Lines::connect(server).await?;
        lines.send(first.as_bytes()).await?;
        let rest = lines
            .rest()
            .await
            .with_context(|| format!("after {first:?}"))?;
        ensure!(
            rest.is_empty(),
            "after {first:?} the server said {}",
            rest.escape_ascii()
        );
    }
    Ok(())
}
