//! One message through seven services: normalise → spam ‖ virus ‖ words → links → reroute → encrypt → report. Every use case fits with every other.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opes_attachment_links::AttachmentLinks;
use opes_content_block::ContentBlock;
use opes_e2e::behind::{ANN, BOB, Behind};
use opes_e2e::embedded::service;
use opes_e2e::gnupg::GnuPg;
use opes_e2e::trace::fields;
use opes_e2e::{eventually, opes_program, run};
use opes_normalizer::Normalizer;
use opes_reporting::Reporting;
use opes_rerouting::Rerouting;
use opes_secure_mail::SecureMail;
use opes_security_filter::SecurityFilter;
use opes_spam_filter::SpamFilter;
use serde_json::{Value, json};

/// In the order of the plan. Analysers run side by side before the adapters, whatever their priority.
const PLAN: [&str; 8] = [
    "reporting",
    "spam",
    "virus",
    "words",
    "normalizer",
    "links",
    "rerouting",
    "encrypt",
];

/// The recipient after rerouting, whose key we have.
const ROB: &str = "rob@fr.example.com";

/// A rule with its service.
struct Step {
    name: &'static str,
    class: &'static str,
    priority: u32,
    allow: &'static str,
    parameters: &'static str,
    target: String,
}

impl Step {
    fn objects(&self) -> String {
        let Self {
            name,
            class,
            priority,
            allow,
            parameters,
            target,
        } = self;
        let at = if *class == "observe" {
            "answered, delivered"
        } else {
            "content"
        };
        let allow = match *allow {
            "" => String::new(),
            allow => format!("allow: [{allow}], onFailure: tempfail, "),
        };
        format!(
            "---\napiVersion: opes.dev/v1alpha1\nkind: CalloutService\nmetadata: {{ name: {name} }}\nspec: {{ class: {class}, endpoint: '{target}', limits: {{ connectTimeout: 20s }} }}\n\
             ---\napiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: {{ name: {name} }}\nspec:\n  at: [{at}]\n  priority: {priority}\n  \
             callout: {{ serviceRef: {{ name: {name} }}, {allow}timeout: 20s, parameters: {parameters} }}\n"
        )
    }
}

#[expect(clippy::too_many_lines, reason = "a list")]
async fn steps(folder: &std::path::Path) -> Result<Vec<Step>> {
    let own = json!({ "own": { "authservId": "mail.example.com", "nameservers": ["127.0.0.1:9"], "authenticationResults": false } });
    let quiet = json!({ "engine": own, "header": "", "subjectMark": "" });
    let database = json!({ "database": { "sqlite": folder.join("reporting.sqlite") } });
    let store = json!({ "baseUrl": "https://files.example.com", "store": { "folder": folder.join("attachments") }, "sizeMin": 100_000 });
    let map = json!({ "map": { BOB: ROB } });
    let words = json!({ "words": ["casino bonus"] });
    let step = |name, class, priority, allow, parameters, target| Step {
        name,
        class,
        priority,
        allow,
        parameters,
        target,
    };
    let encrypt = "{ operation: encrypt, format: openpgp, sign: true }";
    let virus = "{ onViolation: reject }";
    Ok(vec![
        step(
            "normalizer",
            "adapt",
            10,
            "body",
            "{}",
            service(Normalizer::from_config(&json!({}))?).await?,
        ),
        step(
            "spam",
            "analyze",
            20,
            "reject, quarantine",
            "{}",
            service(SpamFilter::from_config(&quiet)?).await?,
        ),
        step(
            "virus",
            "analyze",
            20,
            "reject, quarantine",
            virus,
            service(SecurityFilter::from_config(&json!({}))?).await?,
        ),
        step(
            "words",
            "analyze",
            20,
            "reject",
            "{}",
            service(ContentBlock::from_config(&words)?).await?,
        ),
        step(
            "links",
            "adapt",
            30,
            "replacePart, body",
            "{}",
            service(AttachmentLinks::from_config(&store)?).await?,
        ),
        step(
            "rerouting",
            "adapt",
            40,
            "recipients, route",
            "{}",
            service(Rerouting::from_config(&map)?).await?,
        ),
        step(
            "encrypt",
            "sign",
            50,
            "rewrite, header, reject",
            encrypt,
            service(SecureMail::from_config(
                &json!({ "keys": folder.join("keys") }),
            )?)
            .await?,
        ),
        step(
            "reporting",
            "observe",
            60,
            "",
            "{}",
            service(Reporting::from_config(&database)?).await?,
        ),
    ])
}

/// No Date and no Message-ID, raw octets in the Subject, and an attachment that is too large.
fn message() -> Vec<u8> {
    let data = STANDARD.encode(vec![7_u8; 150_000]);
    let lines: Vec<&str> = data
        .as_bytes()
        .chunks(76)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: Größe\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"mix\"\r\n\r\n\
         --mix\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nThe film is attached.\r\n--mix\r\nContent-Type: video/mp4\r\n\
         Content-Disposition: attachment; filename=\"film.mp4\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--mix--\r\n",
        lines.join("\r\n")
    )
    .into_bytes()
}

/// The services of the rules that run at `content` and `answered`, as `opes rules explain` has it.
fn predicted(folder: &std::path::Path, rules: &str) -> Result<Vec<String>> {
    let (file, mail) = (folder.join("rules.yaml"), folder.join("mail.eml"));
    std::fs::write(&file, rules)?;
    std::fs::write(&mail, message())?;
    let mut explain = Command::new(opes_program());
    let explain = explain
        .args([
            "rules", "explain", "--json", "--from", ANN, "--to", BOB, "-f",
        ])
        .args([&file, &mail]);
    let said: Value = serde_json::from_slice(&run(explain, b"")?.stdout)?;
    let points = said["points"].as_array().context("points")?;
    let looked_at = |point: &&Value| point["point"] == "content" || point["point"] == "answered";
    let rules = points.iter().filter(looked_at);
    let rules = rules
        .filter_map(|point| point["rules"].as_array())
        .flatten();
    let runs = |rule: &&Value| rule["verdicts"][0]["runs"] == true;
    let mut named: Vec<String> = rules
        .filter(runs)
        .filter_map(|rule| rule["service"].as_str().map(str::to_owned))
        .collect();
    named.sort();
    Ok(named)
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_services_and_the_recipient_reads_it_with_gnupg() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys");
    std::fs::create_dir(&keys)?;
    let ring = GnuPg::of(&[ANN, ROB])?;
    ring.hand_over(ANN, &keys)?;
    ring.publish(ROB, &keys)?;
    let rules: String = steps(folder.path())
        .await?
        .iter()
        .map(Step::objects)
        .collect();
    let behind = Behind::rules(&rules).await?;
    let said = behind.send(&message()).await?;
    ensure!(said.starts_with("250"), "{said}");
    eventually("delivered", || behind.hop.arrivals().len() == 1).await;
    let arrivals = behind.hop.arrivals();
    let arrival = arrivals.first().context("delivered")?;
    ensure!(arrival.to == [ROB], "{:?}", arrival.to);
    let text = String::from_utf8(arrival.content.clone())?;

    // Normalised, and then everything else on top.
    ensure!(fields(&arrival.content, "Date").len() == 1, "{text}");
    ensure!(
        fields(&arrival.content, "Subject") == ["=?UTF-8?Q?Gr=C3=B6=C3=9Fe?="]
            || fields(&arrival.content, "Subject")[0].starts_with("=?"),
        "{text}"
    );

    // Encrypted for the recipient that rerouting chose, signed by the sender; with the link inside and without the film.
    let armor = text.find("-----BEGIN PGP MESSAGE").context("no OpenPGP")?;
    let (inside, status) = ring.decrypt(&text[armor..])?;
    ensure!(
        status.contains("GOODSIG") && status.contains("DECRYPTION_OKAY"),
        "{status}"
    );
    ensure!(inside.contains("https://files.example.com/"), "{inside}");
    ensure!(inside.len() < 10_000, "the film is still there");

    // The trace names all of them, and `explain` said so before.
    let via = fields(&arrival.content, "OPES-Via").join(", ");
    for name in PLAN {
        ensure!(
            via.contains(&format!("/service/default/{name}")),
            "{name}: {via}"
        );
    }
    let mut plan = PLAN.map(|name| format!("default/{name}")).to_vec();
    plan.sort();
    ensure!(predicted(folder.path(), &rules)? == plan);

    // The report has one message, accepted and delivered.
    let database = folder.path().join("reporting.sqlite");
    let mut report = Value::Null;
    eventually("reported", || {
        let mut command = Command::new(opes_program());
        let command = command
            .args(["report", "--json", "--database"])
            .arg(&database);
        let output = run(command, b"").map(|output| output.stdout);
        report = output
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default();
        let attempts = report["attempts"].as_array().into_iter().flatten();
        attempts
            .filter(|row| row["outcome"] == "delivered" && row["attempts"] == 1)
            .count()
            == 1
    })
    .await;
    Ok(())
}
