//! Who is believed changes while pods run and mail flows.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use super::world::World;

/// Secret of the authority.
const AUTHORITY: &str = "opes-ca";
/// Between two steps of a rotation, by the operator's clock; the test does not wait for it, but makes the step that much older.
const SETTLE: Duration = Duration::from_hours(1);
/// The same for the last step.
const OVERLAP: Duration = Duration::from_hours(48);

/// Messages that show that mail flows.
const ENOUGH: usize = 20;

/// A pod's copy of what proves who it is, and whom it believes.
#[derive(Debug)]
struct Mounted {
    leaf: String,
    authorities: String,
}

/// Checklist 31: the authority is replaced in its three steps. At each, every pod gets the files by its kubelet; none starts anew, and
/// no message has to be sent again.
pub(crate) async fn the_authority_is_replaced_under_load_and_nothing_starts_anew(
    world: &World<'_>,
) -> Result<()> {
    let pods = starts(world)?;
    let old = authorities(world)?;
    let load = world
        .load("rotation", 10, Duration::from_millis(500))
        .await?;

    world.kubectl(&["annotate", "secret", AUTHORITY, "opes.dev/rotate=now"])?;
    reached(world, "announced").await?;
    let both = authorities(world)?;
    ensure!(
        count(&both) == 2 && both.contains(old.trim()),
        "believed: {both}"
    );
    arrived(world, &both, None).await?;

    step_is_older(world, SETTLE)?;
    reached(world, "switched").await?;
    let both = authorities(world)?;
    ensure!(count(&both) == 2, "believed: {both}");
    let issuer = world.node.folder().join("next-authority.pem");
    fs::write(&issuer, both.replace(old.trim(), ""))?;
    arrived(world, &both, Some(&issuer)).await?;
    world
        .eventually("every service shows a new certificate", |world| {
            let addresses = services(world)?;
            ensure!(!addresses.is_empty(), "no services");
            for address in addresses {
                ensure!(shows_one_of(world, &address, &issuer)?, "{address}");
            }
            Ok(Some(()))
        })
        .await?;

    step_is_older(world, OVERLAP)?;
    reached(world, "").await?;
    let new = authorities(world)?;
    ensure!(
        count(&new) == 1 && !new.contains(old.trim()),
        "believed: {new}"
    );
    arrived(world, &new, Some(&issuer)).await?;

    // Mail among those who believe nobody else.
    let before = world.hop.arrivals().len();
    world
        .eventually("mail flows", |world| {
            Ok((world.hop.arrivals().len() > before + ENOUGH).then_some(()))
        })
        .await?;
    let sent = world.finish("rotation", load).await?;
    let again: Vec<_> = sent.iter().filter(|it| !it.again.is_empty()).collect();
    ensure!(again.is_empty(), "had to be sent again: {again:?}");
    let now = starts(world)?;
    ensure!(now == pods, "before {pods:?}, now {now:?}");
    // Edges still hear of changes.
    let late = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: rotated }\nspec: { at: [content], action: { addHeader: { name: X-Rotated, value: 'yes' } } }\n";
    world.apply(late)?;
    world.wait_for("condition=Programmed", "opesrule/rotated")?;
    world.kubectl(&["delete", "opesrule", "rotated"])?;
    Ok(())
}

/// How often each pod's container has started, but for those of the pool that an HPA makes and removes meanwhile.
fn starts(world: &World<'_>) -> Result<BTreeMap<String, String>> {
    let path = "jsonpath={range .items[*]}{.metadata.name}={.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let running = "--field-selector=status.phase=Running";
    let listed = world.kubectl(&["get", "pods", running, "-o", path])?;
    let pods = listed.lines().filter_map(|line| line.split_once('='));
    Ok(pods
        .filter(|(name, _)| !name.starts_with("opes-stamper-"))
        .map(|(name, count)| (name.to_owned(), count.to_owned()))
        .collect())
}

/// A file in a Secret.
fn file(world: &World<'_>, secret: &str, key: &str) -> Result<String> {
    let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
    world.kubectl(&["get", "secret", secret, "-o", &template])
}

fn authorities(world: &World<'_>) -> Result<String> {
    file(world, AUTHORITY, "ca.crt")
}

fn count(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

/// Waits for a step of the rotation; empty: there is none.
async fn reached(world: &World<'_>, step: &str) -> Result<()> {
    let path = "jsonpath={.metadata.annotations.opes\\.dev/rotation}";
    let asked = "jsonpath={.metadata.annotations.opes\\.dev/rotate}";
    let annotation = |path| world.kubectl(&["get", "secret", AUTHORITY, "-o", path]);
    world
        .eventually(&format!("the rotation is `{step}`"), |_| {
            let there = annotation(path)?.trim() == step && annotation(asked)?.trim().is_empty();
            Ok(there.then_some(()))
        })
        .await
}

/// Says that the step was taken so long before now.
fn step_is_older(world: &World<'_>, by: Duration) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let since = format!(
        "opes.dev/rotation-since={}",
        now.saturating_sub(by).as_secs()
    );
    world.kubectl(&["annotate", "--overwrite", "secret", AUTHORITY, &since])?;
    Ok(())
}

/// Every pod has the files: believes exactly `authorities`, and shows a certificate of `issuer` if one is given.
async fn arrived(world: &World<'_>, authorities: &str, issuer: Option<&Path>) -> Result<()> {
    world
        .eventually("the files are in every pod", |world| {
            let mounted = mounted(world)?;
            ensure!(
                mounted.len() > 2,
                "{} pods with certificates",
                mounted.len()
            );
            for it in &mounted {
                let of_it = match issuer {
                    Some(issuer) => is_issued(&it.leaf, issuer)?,
                    None => true,
                };
                if it.authorities != authorities || !of_it {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
}

/// As the kubelet has them; our images have no shell to look from inside.
fn mounted(world: &World<'_>) -> Result<Vec<Mounted>> {
    let pods = world.node.folder().join("kubelet/pods");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = world.node.enter(&command).output().context("nsenter")?;
        ensure!(output.status.success(), "{program}: {}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    };
    let pods = pods.display().to_string();
    let is_secret = "*/volumes/kubernetes.io~secret/*/ca.crt";
    let found = run("find", &[&pods, "-path", is_secret])?;
    found
        .lines()
        .map(|path| {
            Ok(Mounted {
                leaf: run("cat", &[&path.replace("/ca.crt", "/tls.crt")])?,
                authorities: run("cat", &[path])?,
            })
        })
        .collect()
}

/// Whether a certificate is of this authority.
fn is_issued(leaf: &str, issuer: &Path) -> Result<bool> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), leaf)?;
    let mut verify = Command::new("openssl");
    verify.arg("verify").arg("-CAfile").arg(issuer);
    let output = verify.arg(file.path()).output().context("openssl")?;
    Ok(output.status.success())
}

/// Where the pods of services listen.
fn services(world: &World<'_>) -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.status.podIP}:{.spec.containers[0].ports[?(@.name==\"ocp\")].containerPort}{\"\\n\"}{end}";
    let listed = world.kubectl(&[
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component=callout-service",
        "--field-selector=status.phase=Running",
        "-o",
        path,
    ])?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// Whether a server shows a certificate of this authority. It hangs up on us, who show none, after that.
fn shows_one_of(world: &World<'_>, address: &str, issuer: &Path) -> Result<bool> {
    let mut client = Command::new("timeout");
    client
        .args([
            "10", "openssl", "s_client", "-brief", "-connect", address, "-CAfile",
        ])
        .arg(issuer);
    let mut client = world.node.enter(&client);
    let output = client.stdin(Stdio::null()).output().context("openssl")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(said.contains("Verification: OK"))
}
