//! A real slapd behind rerouting behind a real edge (RFC 4496 §4.7).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use opes_e2e::behind::Rule;
use opes_e2e::embedded::{Embedded, service};
use opes_e2e::eventually;
use opes_e2e::hop::{Hop, Manners};
use opes_e2e::slapd::{BASE, READER, Slapd, person};
use opes_e2e::smtp::Dialog;
use opes_edge::config::{DeliveryConfig, EdgeConfig, ListenerConfig, ListenerProtocol};
use opes_rerouting::Rerouting;
use serde_json::{Value, json};

/// Of one look-up. Longer than a busy machine takes for a real one.
const TIMEOUT_MS: u64 = 10_000;

/// An edge for example.org before one next hop, with rerouting at RCPT.
struct Office {
    edge: Embedded,
    hop: Hop,
    _folder: tempfile::TempDir,
}

impl Office {
    async fn open(config: &Value, on_failure: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let hop = Hop::start(Manners::default()).await?;
        let rule = Rule {
            at: "rcptTo",
            allow: "recipients, route, reject",
            on_failure,
            ..Rule::default()
        };
        let target = service(Rerouting::from_config(config)?).await?;
        let listener = ListenerConfig::new("mx", "127.0.0.1:0".parse()?, ListenerProtocol::Smtp);
        let config = EdgeConfig {
            listeners: vec![listener],
            domains: vec!["example.org".into()],
            delivery: DeliveryConfig {
                next_hop: Some(hop.address.to_string()),
                ..DeliveryConfig::default()
            },
            ..EdgeConfig::new("mail.example.org", folder.path().join("spool"))
        };
        let edge = Embedded::start(config, &rule.objects("rerouting", &target)).await?;
        Ok(Self {
            edge,
            hop,
            _folder: folder,
        })
    }

    /// The reply to RCPT.
    async fn rcpt(&self, address: &str) -> Result<String> {
        let mut dialog = Dialog::open(self.edge.address("mx")?, false).await?;
        dialog.command("MAIL FROM:<steve@example.net>").await?;
        dialog.command(&format!("RCPT TO:<{address}>")).await
    }

    async fn send(&self, address: &str) -> Result<()> {
        let mut dialog = Dialog::open(self.edge.address("mx")?, false).await?;
        let content = b"Subject: hello\r\n\r\nbody\r\n";
        let reply = dialog
            .message("steve@example.net", &[address], content)
            .await?;
        ensure!(reply.starts_with("250"), "{reply}");
        Ok(())
    }
}

/// `count` messages have come to `hop`, all for `address`.
async fn came(hop: &Hop, count: usize, address: &str) -> Result<()> {
    eventually("delivered", || hop.arrivals().len() >= count).await;
    for arrival in hop.arrivals() {
        ensure!(arrival.to == [address], "{:?}", arrival.to);
    }
    ensure!(hop.arrivals().len() == count, "too many");
    Ok(())
}

fn config(slapd: &Slapd, url: &str, more: Value) -> Value {
    let mut config = json!({ "directory": {
        "ldap": {
            "url": url,
            "bindDn": READER,
            "bindPasswordFile": slapd.password_file(),
            "base": BASE,
            "filter": "(&(objectClass=inetLocalMailRecipient)(mailLocalAddress=%s))",
        },
        "timeoutMs": TIMEOUT_MS,
    }});
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_says_which_server_and_which_address() -> Result<()> {
    let other = Hop::start(Manners::default()).await?;
    // The two variants of RFC 4496 §4.7, and both at once.
    let entries = [
        person(
            "joe",
            &format!(
                "mailLocalAddress: joe@example.org\nmailHost: {}",
                other.address
            ),
        ),
        person(
            "ann",
            "mailLocalAddress: ann@example.org\nmailRoutingAddress: ann@fr.example.org",
        ),
        person("here", "mailLocalAddress: here@example.org"),
        person("a", "mailLocalAddress: twice@example.org"),
        person("b", "mailLocalAddress: twice@example.org"),
        person(
            "c",
            "mailLocalAddress: many@example.org\nmailHost: a.example.org\nmailHost: b.example.org",
        ),
        person(
            "d",
            "mailLocalAddress: d@example.org\nmailRoutingAddress: no address",
        ),
    ];
    let slapd = Slapd::start(&entries.concat()).await?;
    let office = Office::open(&config(&slapd, &slapd.url(), json!({})), "tempfail").await?;

    // Delivered to another server, with its address; the directory is asked once for all of them.
    for _ in 0..10 {
        office.send("joe@example.org").await?;
    }
    came(&other, 10, "joe@example.org").await?;
    ensure!(slapd.searches() == 1, "{} searches", slapd.searches());

    // Another address, by the usual way; the detail goes along.
    office.send("Ann@example.org").await?;
    came(&office.hop, 1, "ann@fr.example.org").await?;
    office.send("ann+news@example.org").await?;
    eventually("delivered", || office.hop.arrivals().len() == 2).await;
    let arrivals = office.hop.arrivals();
    ensure!(
        arrivals
            .iter()
            .any(|arrival| arrival.to == ["ann+news@fr.example.org"])
    );

    for (address, reply) in [
        ("here@example.org", "250"),
        ("nobody@example.org", "250"),
        ("*@example.org", "250"),
        ("\")(objectClass=*\"@example.org", "250"),
        ("twice@example.org", "451"),
        ("many@example.org", "451"),
        ("d@example.org", "451"),
    ] {
        let said = office.rcpt(address).await?;
        ensure!(said.starts_with(reply), "{address}: {said}");
    }
    let strict = config(&slapd, &slapd.url(), json!({ "onUnknown": "reject" }));
    let strict = Office::open(&strict, "tempfail").await?;
    for (address, reply) in [
        ("joe@example.org", "250"),
        ("here@example.org", "250"),
        ("postmaster@example.org", "250"),
        ("nobody@example.org", "550 5.1.1"),
        ("\")(objectClass=*\"@example.org", "550 5.1.1"),
    ] {
        let said = strict.rcpt(address).await?;
        ensure!(said.starts_with(reply), "{address}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_to_whom_the_authority_vouches_for() -> Result<()> {
    let entry = person(
        "ann",
        "mailLocalAddress: ann@example.org\nmailRoutingAddress: ann@fr.example.org",
    );
    let slapd = Slapd::start(&entry).await?;
    let stranger = Slapd::start("").await?;
    let ldap = |url: String, more: Value| {
        let mut config = config(&slapd, &url, json!({ "onUnknown": "reject" }));
        if let (Some(ldap), Value::Object(more)) =
            (config["directory"]["ldap"].as_object_mut(), more)
        {
            ldap.extend(more);
        }
        config
    };
    let wrong_password = slapd.ca_file();
    for (config, reply) in [
        (ldap(slapd.socket_url(), json!({})), "250"),
        (
            ldap(slapd.tls_url(), json!({ "caFile": slapd.ca_file() })),
            "250",
        ),
        (
            ldap(
                slapd.named_url(),
                json!({ "caFile": slapd.ca_file(), "startTls": true }),
            ),
            "250",
        ),
        (
            ldap(slapd.tls_url(), json!({ "caFile": stranger.ca_file() })),
            "451",
        ),
        (
            ldap(
                slapd.named_url(),
                json!({ "caFile": stranger.ca_file(), "startTls": true }),
            ),
            "451",
        ),
        // The certificate is for another name.
        (
            ldap(
                slapd.tls_url().replace("localhost", "127.0.0.1"),
                json!({ "caFile": slapd.ca_file() }),
            ),
            "451",
        ),
        (
            ldap(slapd.url(), json!({ "bindPasswordFile": wrong_password })),
            "451",
        ),
        (
            ldap(
                slapd.url(),
                json!({ "bindDn": null, "bindPasswordFile": null }),
            ),
            "451",
        ),
    ] {
        let office = Office::open(&config, "tempfail").await?;
        let said = office.rcpt("ann@example.org").await?;
        ensure!(said.starts_with(reply), "{config}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_silent_or_gone_is_the_policys_matter_until_it_is_back() -> Result<()> {
    let entry = person(
        "ann",
        "mailLocalAddress: ann@example.org\nmailRoutingAddress: ann@fr.example.org",
    );
    let mut slapd = Slapd::start(&entry).await?;
    let uncached = |slapd: &Slapd| {
        let mut config = config(slapd, &slapd.url(), json!({}));
        config["directory"]["timeoutMs"] = 500.into();
        config["directory"]["cache"] = json!({ "foundSeconds": 0, "missingSeconds": 0 });
        config
    };
    let strict = Office::open(&uncached(&slapd), "tempfail").await?;
    let lenient = Office::open(&uncached(&slapd), "accept").await?;
    for office in [&strict, &lenient] {
        answers(office).await?;
    }

    // Silent: the time of a look-up, not the rule's 20 s; then it is left alone, which takes no time at all.
    slapd.stop().await?;
    for _ in 0..5 {
        let asked = Instant::now();
        let said = strict.rcpt("ann@example.org").await?;
        ensure!(said.starts_with("451"), "{said}");
        ensure!(
            asked.elapsed() < Duration::from_secs(10),
            "{:?}",
            asked.elapsed()
        );
    }
    slapd.go_on()?;
    answers(&strict).await?;

    // Gone in the middle: both policies.
    slapd.kill();
    let said = strict.rcpt("ann@example.org").await?;
    ensure!(said.starts_with("451"), "{said}");
    let before = lenient.hop.arrivals().len();
    lenient.send("ann@example.org").await?;
    eventually("delivered", || lenient.hop.arrivals().len() > before).await;
    let unchanged = |office: &Office| {
        office
            .hop
            .arrivals()
            .iter()
            .any(|arrival| arrival.to == ["ann@example.org"])
    };
    ensure!(unchanged(&lenient), "accept did not keep the address");

    slapd.run().await?;
    for office in [&strict, &lenient] {
        answers(office).await?;
    }
    ensure!(!unchanged(&strict), "tempfail let a message through");
    Ok(())
}

/// As soon as the directory is asked again: mail for Ann goes to France.
async fn answers(office: &Office) -> Result<()> {
    let abroad = || {
        let arrivals = office.hop.arrivals();
        arrivals
            .iter()
            .filter(|arrival| arrival.to == ["ann@fr.example.org"])
            .count()
    };
    let before = abroad();
    let given_up = Instant::now() + opes_e2e::DEADLINE;
    while abroad() == before {
        ensure!(
            Instant::now() < given_up,
            "the directory is not asked again"
        );
        // Refused while it is left alone.
        let _maybe = office.send("ann@example.org").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
