//! PGP/MIME in both directions.

use anyhow::{Result, ensure};
use opes_e2e::behind::{ANN, BOB};
use opes_e2e::trace::{fields, without_trace};

use super::{ADAPT, SIGN, behind, two_parts};
use opes_e2e::gnupg::GnuPg;

const MAIL: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: secret\r\nMIME-Version: 1.0\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nX-Last: kept\r\n\r\nGrüße, Bob\r\n.\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn gnupg_reads_and_verifies_what_we_sign() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[ANN])?, tempfile::tempdir()?);
    ring.hand_over(ANN, folder.path())?;
    let parameters = "{ operation: sign, format: openpgp }";
    let behind = behind(folder.path(), SIGN, parameters).await?;
    let said = behind.send(MAIL.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [signed] = behind.delivered(["Subject: secret"]).await?;
    let message = without_trace(&signed.content);
    let expected = "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: secret\r\nMIME-Version: 1.0\r\n\
                    X-Last: kept\r\nContent-Type: multipart/signed; micalg=pgp-sha512;\r\n";
    let text = String::from_utf8_lossy(message);
    ensure!(text.starts_with(expected), "{text}");
    let [content, signature] = two_parts(message)?;
    // 8bit would not survive every server on the way.
    ensure!(
        content.contains("Content-Transfer-Encoding: base64") && content.is_ascii(),
        "{content}"
    );
    let armor = signature
        .split_once("\r\n\r\n")
        .map_or("", |(_, body)| body);
    let status = ring.verify(&content, armor)?;
    ensure!(status.contains("GOODSIG"), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gnupg_reads_and_verifies_what_we_encrypt() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[ANN, BOB])?, tempfile::tempdir()?);
    ring.hand_over(ANN, folder.path())?;
    ring.publish(BOB, folder.path())?;
    let parameters = "{ operation: encrypt, format: openpgp, sign: true }";
    let behind = behind(folder.path(), SIGN, parameters).await?;
    let said = behind.send(MAIL.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [sent] = behind.delivered(["Subject: secret"]).await?;
    ensure!(
        fields(&sent.content, "X-Last") == ["kept"],
        "a field was lost"
    );
    let [version, encrypted] = two_parts(without_trace(&sent.content))?;
    ensure!(version.ends_with("Version: 1\r\n"), "{version}");
    let armor = encrypted
        .split_once("\r\n\r\n")
        .map_or("", |(_, body)| body);
    let (inside, status) = ring.decrypt(armor)?;
    ensure!(
        inside
            == "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße, Bob\r\n.\r\n",
        "{inside}"
    );
    ensure!(
        status.contains("GOODSIG") && status.contains("DECRYPTION_OKAY"),
        "{status}"
    );
    Ok(())
}

/// What Ann's mail program makes with GnuPG.
fn multipart(kind: &str, protocol: &str, parts: [&str; 2]) -> String {
    let [first, second] = parts;
    format!(
        "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: from Ann\r\nX-Secure-Mail: verified; signature=good\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/{kind}; protocol=\"{protocol}\"; boundary=\"b\"\r\n\r\n--b\r\n{first}\r\n--b\r\n{second}\r\n--b--\r\n"
    )
}

fn encrypted(armor: &[u8]) -> String {
    let armor = String::from_utf8_lossy(armor).replace('\n', "\r\n");
    let second = format!("Content-Type: application/octet-stream\r\n\r\n{armor}");
    let first = "Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n";
    multipart("encrypted", "application/pgp-encrypted", [first, &second])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gnupg_encrypts_is_decrypted_and_verified() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[ANN, BOB])?, tempfile::tempdir()?);
    ring.publish(ANN, folder.path())?;
    ring.hand_over(BOB, folder.path())?;
    let behind = behind(folder.path(), ADAPT, "{ operation: decrypt }").await?;
    let inside = "Content-Type: text/html\r\n\r\n<p>hello\r\n";
    let arguments = [
        "--armor",
        "--sign",
        "--local-user",
        ANN,
        "--encrypt",
        "--recipient",
        BOB,
    ];
    let armor = ring.gpg(&arguments, inside.as_bytes())?.stdout;
    let said = behind.send(encrypted(&armor).as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [opened] = behind.delivered(["Subject: from Ann"]).await?;
    let text = String::from_utf8_lossy(&opened.content);
    ensure!(
        text.ends_with("MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<p>hello\r\n"),
        "{text}"
    );
    ensure!(
        fields(&opened.content, "X-Secure-Mail")
            == ["decrypted; signature=good; signer=ann@example.org"],
        "{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gnupg_signs_is_verified_and_a_changed_octet_is_refused() -> Result<()> {
    let (ring, folder) = (GnuPg::of(&[ANN])?, tempfile::tempdir()?);
    ring.publish(ANN, folder.path())?;
    let parameters = "{ operation: verify, onBadSignature: reject, onUnsigned: { verdict: accept, subjectMark: '[unsigned] ' } }";
    let behind = behind(folder.path(), ADAPT, parameters).await?;
    let content = "Content-Type: text/plain\r\n\r\nhello\r\n";
    let arguments = ["--armor", "--detach-sign", "--local-user", ANN];
    let armor = ring.gpg(&arguments, content.as_bytes())?.stdout;
    let armor = String::from_utf8(armor)?.replace('\n', "\r\n");
    let second = format!("Content-Type: application/pgp-signature\r\n\r\n{armor}");
    let mail = multipart("signed", "application/pgp-signature", [content, &second]);
    let said = behind.send(mail.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let said = behind
        .send(mail.replace("hello", "hallo").as_bytes())
        .await?;
    ensure!(said.starts_with("550 5.7.7"), "{said}");
    let unsigned = "From: ann@example.org\r\nSubject: plain\r\n\r\nhello\r\n";
    let said = behind.send(unsigned.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [verified, marked] = behind
        .delivered(["Subject: from Ann", "Subject: [unsigned] plain"])
        .await?;
    ensure!(
        fields(&verified.content, "X-Secure-Mail")
            == ["verified; signature=good; signer=ann@example.org"],
        "the forged field is still there"
    );
    let body = |text: &[u8]| {
        text.windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map(|at| text[at..].to_vec())
    };
    ensure!(
        body(&verified.content) == body(mail.as_bytes()),
        "octets differ"
    );
    ensure!(
        fields(&marked.content, "X-Secure-Mail") == ["unsigned"],
        "no field"
    );
    Ok(())
}
