//! S/MIME in both directions.

use anyhow::{Result, ensure};
use opes_e2e::behind::{ANN, BOB};
use opes_e2e::trace::{fields, without_trace};

use super::openssl::Authority;
use super::{ADAPT, SIGN, behind};

const MAIL: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: secret\r\nX-Last: kept\r\n\r\nhello, Bob\r\n";
const INSIDE: &str = "Content-Type: text/plain\r\n\r\nhello, Bob\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn openssl_verifies_what_we_sign() -> Result<()> {
    let (authority, folder) = (Authority::of(&[ANN])?, tempfile::tempdir()?);
    authority.hand_over(ANN, folder.path())?;
    let parameters = "{ operation: sign, format: smime }";
    let behind = behind(folder.path(), SIGN, parameters).await?;
    let said = behind.send(MAIL.as_bytes()).await?;
    ensure!(said.starts_with("250"), "{said}");
    let [signed] = behind.delivered(["Subject: secret"]).await?;
    let mail = authority.path().join("mail");
    std::fs::write(&mail, without_trace(&signed.content))?;
    let verify = "cms -verify -in mail -CAfile ca.crt -purpose smimesign";
    let inside = authority.openssl(verify)?;
    ensure!(String::from_utf8_lossy(&inside) == INSIDE, "{inside:?}");
    let changed = String::from_utf8(signed.content)?.replace("hello", "hallo");
    std::fs::write(&mail, changed)?;
    ensure!(authority.openssl(verify).is_err(), "it verifies anything");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_decrypts_and_verifies_what_we_encrypt() -> Result<()> {
    let (authority, folder) = (Authority::of(&[ANN, BOB])?, tempfile::tempdir()?);
    authority.hand_over(ANN, folder.path())?;
    authority.publish(BOB, folder.path())?;
    for cipher in ["aes256Cbc", "aes256Gcm"] {
        let parameters =
            format!("{{ operation: encrypt, format: smime, sign: true, cipher: {cipher} }}");
        let behind = behind(folder.path(), SIGN, &parameters).await?;
        let said = behind.send(MAIL.as_bytes()).await?;
        ensure!(said.starts_with("250"), "{said}");
        let [sent] = behind.delivered(["X-Last: kept"]).await?;
        std::fs::write(authority.path().join("mail"), without_trace(&sent.content))?;
        let decrypt = format!("cms -decrypt -in mail -recip {BOB}.crt -inkey {BOB}.key");
        let signed = authority.openssl(&decrypt)?;
        std::fs::write(authority.path().join("mail"), signed)?;
        let verify = "cms -verify -in mail -CAfile ca.crt -purpose smimesign";
        let inside = authority.openssl(verify)?;
        ensure!(String::from_utf8_lossy(&inside) == INSIDE, "{inside:?}");
    }
    Ok(())
}

/// What Ann's mail program sends with this around INSIDE.
fn from_ann(authority: &Authority, commands: &[&str]) -> Result<String> {
    std::fs::write(authority.path().join("text"), INSIDE)?;
    for command in commands {
        let made = authority.openssl(command)?;
        std::fs::write(authority.path().join("text"), made)?;
    }
    let made = std::fs::read_to_string(authority.path().join("text"))?;
    let made = made.replace("\r\n", "\n").replace('\n', "\r\n");
    Ok(format!(
        "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: from Ann\r\n{made}"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_openssl_makes_is_decrypted_and_verified() -> Result<()> {
    let (authority, folder) = (Authority::of(&[ANN, BOB])?, tempfile::tempdir()?);
    authority.publish_authority(folder.path())?;
    authority.hand_over(BOB, folder.path())?;
    let sign = format!("cms -sign -in text -signer {ANN}.crt -inkey {ANN}.key");
    let opaque = format!("{sign} -nodetach");
    let encrypt = format!("cms -encrypt -in text -aes-256-cbc -recip {BOB}.crt");
    let behind = behind(folder.path(), ADAPT, "{ operation: decrypt }").await?;
    for commands in [
        &[sign.as_str(), &encrypt][..],
        &[&opaque, &encrypt],
        &[&sign],
    ] {
        let said = behind
            .send(from_ann(&authority, commands)?.as_bytes())
            .await?;
        ensure!(said.starts_with("250"), "{said}");
    }
    let changed = from_ann(&authority, &[&sign])?.replace("hello", "hallo");
    behind.send(changed.as_bytes()).await?;
    // Without a signature anybody on the way could have changed what CBC encrypts: it stays as it is.
    behind
        .send(from_ann(&authority, &[&encrypt])?.as_bytes())
        .await?;
    opes_e2e::eventually("delivered", || behind.hop.arrivals().len() == 5).await;
    let mut said: Vec<_> = behind
        .hop
        .arrivals()
        .iter()
        .flat_map(|arrival| fields(&arrival.content, "X-Secure-Mail"))
        .collect();
    said.sort();
    ensure!(
        said == [
            "bad-signature; signature=bad",
            "cannot-decrypt",
            "decrypted; signature=good; signer=ann@example.org",
            "decrypted; signature=good; signer=ann@example.org",
            "verified; signature=good; signer=ann@example.org",
        ],
        "{said:?}"
    );
    Ok(())
}
