//! The spam filter without rspamd (RFC 4496 §4.2): senders are judged by a real name server, behind a real edge. dkimpy signs, authres reads.

mod dns;
mod python;
mod signatures;

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use dns::{BROKEN, Nsd};
use opes_e2e::behind::{Behind, Rule};
use opes_e2e::embedded::service;
use opes_e2e::hop::Arrival;
use opes_e2e::trace::fields;
use opes_edge::report::MessageOutcome;
use opes_spam_filter::SpamFilter;
use python::results;
use serde_json::{Value, json};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// `more`: fields of `engine.own`, and below `config` those beside it.
fn filter(dns: &Nsd, more: &Value) -> Result<SpamFilter> {
    let mut own = json!({
        "authservId": "mx.example.com", "nameservers": [dns.address()], "dnsTimeoutMs": 5000, "timeoutMs": 15_000,
    });
    let mut config = json!({});
    for (name, value) in more.as_object().context("an object")? {
        if name == "config" {
            config = value.clone();
        } else {
            own[name] = value.clone();
        }
    }
    config["engine"] = json!({ "own": own });
    SpamFilter::from_config(&config)
}

async fn behind(filter: SpamFilter, on_failure: &str) -> Result<Behind> {
    let rule = Rule {
        allow: "header, subject, reject, quarantine",
        on_failure,
        ..Rule::default()
    };
    let target = service(filter).await?;
    Behind::proxied(&rule.objects("tested", &target)).await
}

/// Nothing about it is odd but what the test makes so.
fn message(from: &str, subject: &str) -> Vec<u8> {
    let now = std::time::SystemTime::now();
    let date = httpdate::fmt_http_date(now).replace("GMT", "+0000");
    format!("Date: {date}\r\nMessage-ID: <{subject}@example.org>\r\nFrom: {from}\r\nTo: bob@example.com\r\nSubject: {subject}\r\n\r\nbody\r\n")
        .into_bytes()
}

/// Sends it as from its author, and waits for it.
async fn delivered(behind: &Behind, from: &str, content: &[u8]) -> Result<Arrival> {
    let before = behind.hop.arrivals().len();
    let said = behind.send_from(CLIENT, from, content).await?;
    ensure!(said.starts_with("250"), "{from}: {said}");
    opes_e2e::eventually("delivered", || behind.hop.arrivals().len() > before).await;
    let arrivals = behind.hop.arrivals();
    arrivals.into_iter().last().context("no arrival")
}

fn status(arrival: &Arrival) -> Result<String> {
    let mut found = fields(&arrival.content, "X-Spam-Status");
    ensure!(found.len() == 1, "{found:?}");
    found.pop().context("no field")
}

/// The topmost field, which is ours.
fn ours(arrival: &Arrival) -> Result<Value> {
    let found = results(&arrival.content)?;
    let first = found.into_iter().next().context("no field")?;
    ensure!(first["id"] == "mx.example.com", "{first}");
    Ok(first)
}

#[tokio::test(flavor = "multi_thread")]
async fn spf_says_who_may_send() -> Result<()> {
    let deep: Vec<_> = (0..11)
        .map(|n| {
            (
                format!("deep{n}.example.org"),
                format!("\"v=spf1 include:deep{}.example.org -all\"", n + 1),
            )
        })
        .collect();
    let mut records = vec![
        (
            "pass.example.org",
            "TXT",
            "\"v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all\"",
        ),
        ("fail.example.org", "TXT", "\"v=spf1 ip4:192.0.2.2 -all\""),
        ("soft.example.org", "TXT", "\"v=spf1 mx ~all\""),
        ("soft.example.org", "MX", "10 ns.example.net."),
        (
            "neutral.example.org",
            "TXT",
            "\"v=spf1 a:ns.example.net ?all\"",
        ),
        (
            "voids.example.org",
            "TXT",
            "\"v=spf1 a:v1.example.org a:v2.example.org a:v3.example.org ~all\"",
        ),
        (
            "twovoids.example.org",
            "TXT",
            "\"v=spf1 a:v1.example.org mx:v2.example.org exists:v3.example.org ip4:192.0.2.1 -all\"",
        ),
        ("client.example.org", "TXT", "\"v=spf1 ip4:192.0.2.1 -all\""),
    ];
    records.extend(
        deep.iter()
            .map(|(name, value)| (name.as_str(), "TXT", value.as_str())),
    );
    let dns = Nsd::start(&records).await?;
    let behind = behind(filter(&dns, &json!({}))?, "tempfail").await?;
    let broken = format!("ann@{BROKEN}");
    for (from, result, shown) in [
        ("ann@pass.example.org", "pass", "SPF_PASS(-0.5)"),
        ("ann@fail.example.org", "fail", "SPF_FAIL(3.5)"),
        ("ann@soft.example.org", "softfail", "SPF_SOFTFAIL(1.5)"),
        ("ann@neutral.example.org", "neutral", "SPF_NEUTRAL(0.5)"),
        ("ann@none.example.org", "none", "SPF_NONE(0.5)"),
        ("ann@voids.example.org", "permerror", "SPF_PERMERROR(1.0)"),
        ("ann@twovoids.example.org", "pass", "SPF_PASS(-0.5)"),
        ("ann@deep0.example.org", "permerror", "SPF_PERMERROR(1.0)"),
        (&broken, "temperror", "SPF_TEMPERROR(0.0)"),
    ] {
        let arrival = delivered(&behind, from, &message(from, "spf")).await?;
        let (status, ours) = (status(&arrival)?, ours(&arrival)?);
        ensure!(status.contains(shown), "{from}: {status}");
        let spf = &ours["spf"];
        ensure!(spf["result"] == result, "{from}: {ours}");
        ensure!(spf["smtp.mailfrom"] == from, "{from}: {ours}");
        ensure!(ours["dkim"]["result"] == "none", "{from}: {ours}");
    }
    // A notification: HELO counts. And by IPv6.
    let arrival = delivered(&behind, "", &message("ann@client.example.org", "null")).await?;
    let ours_ = ours(&arrival)?;
    ensure!(
        ours_["spf"] == json!({ "result": "pass", "smtp.helo": "client.example.org" }),
        "{ours_}"
    );
    let six = message("ann@pass.example.org", "six");
    let said = behind.send_from("2001:db8::2".parse()?, "ann@pass.example.org", &six);
    ensure!(said.await?.starts_with("250"));
    let report = behind.edge.reports().pop().context("no report")?;
    ensure!(report.client.is_ipv6());
    opes_e2e::eventually("delivered", || behind.hop.arrivals().len() == 11).await;
    let six = behind.hop.arrivals().pop().context("no arrival")?;
    ensure!(status(&six)?.contains("SPF_FAIL(3.5)"), "{}", status(&six)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_thresholds_mark_hold_and_refuse() -> Result<()> {
    let dns = Nsd::start(&[
        ("1.2.0.192.l.example.net", "A", "127.0.0.2"),
        ("9.2.0.192.l.example.net", "A", "127.0.0.9"),
        ("1.2.0.192.quota.example.net", "A", "127.255.255.254"),
        ("*.dead.example.net", "A", "127.0.0.2"),
        (
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.l.example.net",
            "A",
            "127.0.0.2",
        ),
    ])
    .await?;
    let lists = json!([
        { "zone": "l.example.net", "name": "L", "codes": { "127.0.0.2": 2.5, "127.0.0.9": 9 } },
        { "zone": "quota.example.net", "name": "Q" }, { "zone": "dead.example.net", "name": "DEAD" },
        { "zone": BROKEN, "name": "B" },
    ]);
    let from = "ann@example.org";
    let config = |thresholds: Value| json!({ "dnsbl": lists, "thresholds": thresholds, "config": { "spamQueue": "spam" } });

    let marks = config(json!({ "mark": 2, "queue": 8, "reject": 20 }));
    let marks = behind(filter(&dns, &marks)?, "tempfail").await?;
    let arrival = delivered(&marks, from, &message(from, "marked")).await?;
    // No SPF record, no signature, and the list.
    let expected = "Yes, score=3.5 required=2.0 tests=SPF_NONE(0.5),DKIM_NONE(0.5),DNSBL_L(2.5), \
         DNSBL_Q_TEMPERROR(0.0),DNSBL_DEAD_TEMPERROR(0.0),DNSBL_B_TEMPERROR(0.0)";
    let said = status(&arrival)?;
    ensure!(said.replace(' ', "") == expected.replace(' ', ""), "{said}");

    let said = marks
        .send_from("2001:db8::2".parse()?, from, &message(from, "six"))
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    opes_e2e::eventually("delivered", || marks.hop.arrivals().len() == 2).await;
    let six = marks.hop.arrivals().pop().context("no arrival")?;
    ensure!(status(&six)?.contains("DNSBL_L(2.5)"), "{}", status(&six)?);

    let said = marks
        .send_from("192.0.2.9".parse()?, from, &message(from, "held"))
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    let report = marks.edge.reports().pop().context("no report")?;
    ensure!(
        matches!(report.outcomes[..], [MessageOutcome::Quarantined(_)]),
        "{report:?}"
    );

    let refuses = behind(
        filter(&dns, &config(json!({ "mark": 2, "reject": 9 })))?,
        "tempfail",
    )
    .await?;
    let said = refuses
        .send_from("192.0.2.9".parse()?, from, &message(from, "refused"))
        .await?;
    ensure!(
        said.starts_with("550 5.7.1 This message looks like spam"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_is_compared_and_forged_results_go() -> Result<()> {
    let dns = Nsd::start(&[("_dmarc.example.org", "TXT", "\"v=DMARC1; p=none\"")]).await?;
    let trusted =
        json!({ "trustedNetworks": ["198.51.100.0/24"], "config": { "messageSizeMax": 100_000 } });
    let behind = behind(filter(&dns, &trusted)?, "tempfail").await?;
    let forged = "Authentication-Results: mx.example.com; dkim=pass header.d=bank.example.net\r\n\
        Authentication-Results: other.example.net; spf=pass\r\n\
        AUTHENTICATION-RESULTS: (hm) \"MX.example.com\" 1; dmarc=pass\r\n\
        X-Spam-Status: No, score=-100\r\n";
    let odd = format!(
        "{forged}From: \"service@bank.example.net\" <ann@mail.example.org>\r\nReply-To: eve@example.net\r\nTo: you@example.com\r\n\
         Date: Tue, 24 Nov 2020 05:05:30 +0000\r\nSubject: odd\r\n\r\nbody\r\n"
    );
    let arrival = delivered(&behind, "bounce@lists.example.net", odd.as_bytes()).await?;
    let said = status(&arrival)?;
    for symbol in [
        "FROM_NAME_ADDRESS(3.0)",
        "ENVELOPE_FROM_DIFFERS(0.5)",
        "REPLY_TO_DIFFERS(0.5)",
        "RECIPIENT_NOT_NAMED(0.5)",
        "DATE_FAR(1.5)",
        "MESSAGE_ID_MISSING(1.0)",
    ] {
        ensure!(said.contains(symbol), "{symbol}: {said}");
    }
    let found = results(&arrival.content)?;
    let ids: Vec<_> = found
        .iter()
        .map(|field| field["id"].as_str().unwrap_or_default())
        .collect();
    ensure!(ids == ["mx.example.com", "other.example.net"], "{found:?}");
    ensure!(
        found[0]["dkim"]["result"] == "none" && found[0]["dmarc"]["result"] == "fail",
        "{found:?}"
    );

    // What a trusted relay says stays; SPF and lists would judge the relay.
    let before = behind.hop.arrivals().len();
    let said = behind
        .send_from(
            "198.51.100.7".parse()?,
            "bounce@lists.example.net",
            odd.as_bytes(),
        )
        .await?;
    ensure!(said.starts_with("250"), "{said}");
    opes_e2e::eventually("delivered", || behind.hop.arrivals().len() > before).await;
    let relayed = behind.hop.arrivals().pop().context("no arrival")?;
    let found = fields(&relayed.content, "Authentication-Results");
    ensure!(
        found.len() == 4
            && found
                .first()
                .is_some_and(|field| field == "mx.example.com; none"),
        "{found:?}"
    );
    ensure!(!status(&relayed)?.contains("SPF_"), "{}", status(&relayed)?);

    // Larger than is looked at: everything but signatures.
    let field =
        "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=sel; h=From; b=AAAA; bh=AAAA\r\n";
    let mut large = [field.as_bytes(), &message("ann@example.org", "large")].concat();
    large.extend_from_slice(&b"0123456789\r\n".repeat(20_000));
    let arrival = delivered(&behind, "ann@example.org", &large).await?;
    ensure!(arrival.content.ends_with(&large), "octets differ");
    let found = fields(&arrival.content, "Authentication-Results").join("|");
    ensure!(
        found.contains("dkim=neutral reason=\"not all of the message was seen\""),
        "{found}"
    );
    ensure!(
        found.contains("spf=none") && !found.contains("dmarc="),
        "{found}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_dns_mail_flows_or_the_policy_decides() -> Result<()> {
    let dns = Nsd::start(&[("example.org", "TXT", "\"v=spf1 -all\"")]).await?;
    let lists = json!([{ "zone": "l.example.net", "name": "L" }]);
    // Three times asked in vain is within the time for all questions, twice.
    let ignores = json!({ "dnsbl": lists, "dnsTimeoutMs": 1000 });
    let ignores = behind(filter(&dns, &ignores)?, "tempfail").await?;
    let fails = json!({ "dnsbl": lists, "dnsFailure": "fail", "dnsTimeoutMs": 1000 });
    let tempfails = behind(filter(&dns, &fails)?, "tempfail").await?;
    let accepts = behind(filter(&dns, &fails)?, "accept").await?;
    let from = "ann@example.org";
    let content = message(from, "dns");
    for each in [&ignores, &tempfails, &accepts] {
        let arrival = delivered(each, from, &content).await?;
        ensure!(
            status(&arrival)?.contains("SPF_FAIL(3.5)"),
            "{}",
            status(&arrival)?
        );
    }

    drop(dns);
    let arrival = delivered(&ignores, from, &content).await?;
    let said = status(&arrival)?;
    for symbol in [
        "SPF_TEMPERROR(0.0)",
        "DMARC_TEMPERROR(0.0)",
        "DNSBL_L_TEMPERROR(0.0)",
    ] {
        ensure!(said.contains(symbol), "{symbol}: {said}");
    }
    ensure!(said.starts_with("No, "), "{said}");
    ensure!(
        ours(&arrival)?["spf"]["result"] == "temperror",
        "{}",
        ours(&arrival)?
    );

    let said = tempfails.send_from(CLIENT, from, &content).await?;
    ensure!(said.starts_with("451"), "{said}");
    let arrival = delivered(&accepts, from, &content).await?;
    ensure!(arrival.content.ends_with(&content), "octets differ");
    ensure!(fields(&arrival.content, "X-Spam-Status").is_empty());
    Ok(())
}

/// Rules of a later stage go by what an analyser found; it changes nothing itself.
const SUSPICIOUS: &str = r#"---
apiVersion: opes.dev/v1alpha1
kind: OpesRule
metadata: { name: suspicious }
spec:
  at: [content]
  match: { cel: 'annotation("auth.spf") == "fail" && annotation("auth.dmarc") == "none" && annotation("spam.score") > 3' }
  action: { addHeader: { name: X-Suspicious, value: "yes" } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_analyser_annotates_and_rules_decide() -> Result<()> {
    let dns = Nsd::start(&[
        ("fail.example.org", "TXT", "\"v=spf1 -all\""),
        ("pass.example.org", "TXT", "\"v=spf1 ip4:192.0.2.1 -all\""),
    ])
    .await?;
    let quiet =
        json!({ "authenticationResults": false, "config": { "header": "", "subjectMark": "" } });
    let target = service(filter(&dns, &quiet)?).await?;
    let rule = Rule {
        class: "analyze",
        allow: "reject",
        ..Rule::default()
    };
    let rules = rule.objects("tested", &target) + SUSPICIOUS;
    let behind = Behind::proxied(&rules).await?;
    for (from, suspicious) in [
        ("ann@fail.example.org", true),
        ("ann@pass.example.org", false),
    ] {
        let content = message(from, "annotated");
        let arrival = delivered(&behind, from, &content).await?;
        ensure!(arrival.content.ends_with(&content), "octets differ");
        let marked = fields(&arrival.content, "X-Suspicious") == ["yes"];
        ensure!(marked == suspicious, "{from}");
        ensure!(fields(&arrival.content, "Authentication-Results").is_empty());
    }
    Ok(())
}
