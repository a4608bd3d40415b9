//! What is not possible is done as the rule says, and a service that is killed costs nothing but the failure policy.

use anyhow::{Result, ensure};
use opes_e2e::behind::{ANN, BOB, Behind, Rule};
use opes_e2e::trace::fields;
use opes_e2e::{Daemon, opes};
use opes_secure_mail::SecureMail;

use super::{ADAPT, SIGN, behind};
use opes_e2e::gnupg::GnuPg;

const MAIL: &str =
    "From: ann@example.org\r\nTo: bob@example.com\r\nSubject: secret\r\n\r\nhello\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_keeps_the_message_or_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let strict = behind(
        folder.path(),
        SIGN,
        "{ operation: encrypt, format: openpgp }",
    )
    .await?;
    let said = strict.send(MAIL.as_bytes()).await?;
    ensure!(said.starts_with("550 5.7.5"), "{said}");
    let later = "{ operation: encrypt, format: smime, onMissingKey: tempfail }";
    let later = behind(folder.path(), SIGN, later).await?;
    let said = later.send(MAIL.as_bytes()).await?;
    ensure!(said.starts_with("451 4.7.5"), "{said}");
    let lenient = "{ operation: encrypt, format: openpgp, onMissingKey: accept }";
    let lenient = behind(folder.path(), SIGN, lenient).await?;
    let said = lenient.send(MAIL.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [clear] = lenient.delivered(["Subject: secret"]).await?;
    ensure!(fields(&clear.content, "X-Secure-Mail") == ["missing-key"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_gets_what_their_key_allows() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[BOB])?, tempfile::tempdir()?);
    ring.publish(BOB, folder.path())?;
    let parameters = "{ operation: encrypt, format: openpgp, onMissingKey: accept }";
    let behind = behind(folder.path(), SIGN, parameters).await?;
    let mut dialog = behind.dialog().await?;
    let both = [BOB, "carol@example.com"];
    let said = dialog.message(ANN, &both, MAIL.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    opes_e2e::eventually("both", || behind.hop.arrivals().len() == 2).await;
    for arrival in behind.hop.arrivals() {
        let text = String::from_utf8_lossy(&arrival.content).into_owned();
        let encrypted = text.contains("BEGIN PGP MESSAGE") && !text.contains("hello");
        ensure!(
            encrypted == (arrival.to == [BOB]),
            "{:?}: {text}",
            arrival.to
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_decrypt_stays_as_it_is_and_says_so() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[BOB])?, tempfile::tempdir()?);
    ring.hand_over(BOB, folder.path())?;
    let behind = behind(folder.path(), ADAPT, "{ operation: decrypt }").await?;
    let armor = ring.gpg(
        &["--armor", "--encrypt", "--recipient", BOB],
        b"\r\nhello\r\n",
    )?;
    let armor = String::from_utf8(armor.stdout)?.replace('\n', "\r\n");
    let lines: Vec<&str> = armor.lines().collect();
    let damaged = armor.replace(lines[4], &lines[4].chars().rev().collect::<String>());
    let mail = format!(
        "From: ann@example.org\r\nSubject: damaged\r\nContent-Type: multipart/encrypted; boundary=b\r\n\r\n--b\r\n\
         Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n{damaged}\r\n--b--\r\n"
    );
    let said = behind.send(mail.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [kept] = behind.delivered(["Subject: damaged"]).await?;
    ensure!(kept.content.ends_with(mail.as_bytes()), "octets differ");
    ensure!(fields(&kept.content, "X-Secure-Mail") == ["cannot-decrypt"]);
    Ok(())
}

#[test]
fn an_rsa_key_of_ours_is_refused_with_a_remedy() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[])?, tempfile::tempdir()?);
    ring.gpg(
        &["--quick-generate-key", ANN, "rsa2048", "default", "never"],
        b"",
    )?;
    ring.hand_over(ANN, folder.path())?;
    let config = serde_json::json!({ "keys": folder.path() });
    let error = SecureMail::from_config(&config).err();
    let text = error.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(text.contains("gpg --quick-generate-key"), "{text}");
    Ok(())
}

/// A service in a process of its own.
fn process(folder: &std::path::Path) -> Result<Daemon> {
    let config = folder.join("config");
    std::fs::create_dir_all(&config)?;
    let file = config.join("secure-mail.yaml");
    std::fs::write(&file, format!("keys: {}\n", folder.display()))?;
    let file = file.display().to_string();
    opes([
        "service",
        "secure-mail",
        "--config",
        &file,
        "--listen",
        "127.0.0.1:0",
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_killed_in_the_middle_costs_the_failure_policy() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[ANN])?, tempfile::tempdir()?);
    ring.hand_over(ANN, folder.path())?;
    for (policy, reply) in [("tempfail", "451"), ("accept", "250")] {
        let mut service = process(folder.path())?;
        let rule = Rule {
            on_failure: policy,
            parameters: "{ operation: sign, format: openpgp }",
            ..SIGN
        };
        let target = format!("http://{}", service.address("on"));
        let behind = Behind::rules(&rule.objects("signer", &target)).await?;
        let said = behind.send(MAIL.as_bytes()).await?;
        ensure!(said.starts_with("250"), "{said}");
        let [signed] = behind.delivered(["Subject: secret"]).await?;
        ensure!(String::from_utf8_lossy(&signed.content).contains("multipart/signed"));

        let mut dialog = behind.dialog().await?;
        dialog.envelope(ANN, &[BOB]).await?;
        let long = format!(
            "Subject: long\r\n\r\n{}",
            "0123456789abcde\r\n".repeat(20_000)
        );
        let (first, rest) = long.split_at(long.len() / 2);
        dialog.send(first.as_bytes()).await?;
        service.kill();
        dialog.send(rest.as_bytes()).await?;
        let said = dialog.command(".").await?;
        ensure!(said.starts_with(reply), "{policy}: {said}");
        if reply == "250" {
            opes_e2e::eventually("both", || behind.hop.arrivals().len() == 2).await;
            let arrivals = behind.hop.arrivals();
            let whole = arrivals
                .iter()
                .any(|arrival| arrival.content.ends_with(long.as_bytes()));
            ensure!(whole, "octets differ");
        }
    }
    Ok(())
}
