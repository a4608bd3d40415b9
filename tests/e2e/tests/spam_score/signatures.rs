//! DKIM and DMARC: dkimpy signs, and what becomes of it is as the author's domain and the configuration say.

use anyhow::{Result, ensure};
use opes_e2e::trace::fields;
use serde_json::json;

use crate::dns::Nsd;
use crate::python::Key;
use crate::{CLIENT, behind, delivered, filter, message, ours, status};

const FROM: &str = "ann@example.org";

/// example.org wants what is not signed to be refused, example.net wants nothing.
async fn domains(key: &Key) -> Result<Nsd> {
    let mut records = vec![
        ("example.org", "TXT", "\"v=spf1 -all\""),
        ("_dmarc.example.org", "TXT", "\"v=DMARC1; p=reject\""),
        ("_dmarc.example.net", "TXT", "\"v=DMARC1; p=none\""),
    ];
    for name in ["sel._domainkey.example.org", "sel._domainkey.example.net"] {
        records.push((name, "TXT", &key.record));
    }
    Nsd::start(&records).await
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_another_program_make_up_for_spf() -> Result<()> {
    let key = Key::new()?;
    let dns = domains(&key).await?;
    let strict = behind(filter(&dns, &json!({ "dmarcReject": true }))?, "tempfail").await?;
    let good = key.sign("example.org", "From:To:Subject", &message(FROM, "good"))?;
    let arrival = delivered(&strict, FROM, &good).await?;
    let (said, found) = (status(&arrival)?, ours(&arrival)?);
    ensure!(
        said.contains("DKIM_PASS(-0.5)") && said.contains("DMARC_PASS(-1.0)"),
        "{said}"
    );
    ensure!(
        found["dkim"]["result"] == "pass" && found["dkim"]["header.d"] == "example.org",
        "{found}"
    );
    ensure!(
        found["dmarc"]["result"] == "pass" && found["dmarc"]["header.from"] == "example.org",
        "{found}"
    );
    ensure!(found["dmarc"]["policy.dmarc"] == "reject", "{found}");

    // A tail of white space is no part of a relaxed body (RFC 6376 §3.4.4): the signer leaves it out, and so do we.
    let tail = [&message(FROM, "tail")[..], b" \t\r\n\r\n \r\n"].concat();
    for content in [
        key.sign("example.org", "From:Subject", &tail)?,
        key.sign_by_hand("From:To:Subject", &message(FROM, "by-hand"))?,
    ] {
        let found = ours(&delivered(&strict, FROM, &content).await?)?;
        ensure!(found["dkim"]["result"] == "pass", "{found}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_vouches_for_is_refused_or_marked() -> Result<()> {
    let key = Key::new()?;
    let dns = domains(&key).await?;
    let strict = behind(filter(&dns, &json!({ "dmarcReject": true }))?, "tempfail").await?;
    let lenient = behind(filter(&dns, &json!({}))?, "tempfail").await?;
    let signed =
        |domain: &str, subject: &str| key.sign(domain, "From:To:Subject", &message(FROM, subject));
    // One octet of the body; then a signature of somebody else's domain; then one that leaves From open.
    let changed = String::from_utf8(signed("example.org", "changed")?)?
        .replace("\r\n\r\nbody", "\r\n\r\nbodi");
    let open = key.sign_by_hand("To:Subject", &message(FROM, "open"))?;
    for (content, dkim) in [
        (changed.into_bytes(), "fail"),
        (signed("example.net", "other")?, "pass"),
        (open, "permerror"),
        (message(FROM, "none"), "none"),
    ] {
        let said = strict.send_from(CLIENT, FROM, &content).await?;
        ensure!(
            said.starts_with("550 5.7.26 Not accepted because of the DMARC policy of example.org"),
            "{dkim}: {said}"
        );
        let arrival = delivered(&lenient, FROM, &content).await?;
        let (said, found) = (status(&arrival)?, ours(&arrival)?);
        ensure!(
            found["dkim"]["result"] == dkim && found["dmarc"]["result"] == "fail",
            "{found}"
        );
        ensure!(
            said.starts_with("Yes, ") && said.contains("DMARC_REJECT(6.0)"),
            "{said}"
        );
        let subject = fields(&arrival.content, "Subject")
            .pop()
            .unwrap_or_default();
        ensure!(subject.starts_with("[SPAM] "), "{subject}");
    }
    // A domain that asks for nothing is not refused.
    let other = message("ann@example.net", "asks-nothing");
    let arrival = delivered(&strict, "ann@example.net", &other).await?;
    ensure!(
        status(&arrival)?.contains("DMARC_FAIL(1.0)"),
        "{}",
        status(&arrival)?
    );
    Ok(())
}
