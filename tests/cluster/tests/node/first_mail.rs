//! From `kubectl apply` to an adapted message.

use anyhow::{Context as _, Result, ensure};

use opes_cluster::node::OUTSIDE_IP;

use super::world::{self, World};

/// An executable under another name, as the demo has it.
const EXECUTABLE: &[u8] =
    b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0\xb8\0\0\0\0\0\0\0@\0\0\0\0\0\0\0";

const BAD_SYNTAX: &str = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: bad }\nspec: { at: [content], \
     action: { reject: { text: nope }, accept: {} } }\n";

/// Nothing that CEL of the API server could find.
const BAD_CONDITION: &str = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: bad }\nspec: { at: [content], \
     match: { cel: 'mail.nosuch == 1' }, action: { reject: { text: nope } } }\n";

/// The example of docs/operate/kubernetes/first-rule.md: `Programmed`, pods ready, and a mail through the NodePort is adapted by them.
pub(crate) async fn example_rules_are_programmed_and_adapt_mail(world: &World<'_>) -> Result<()> {
    let example = world::example("kubernetes/first-rule.yaml");
    world.kubectl(&["apply", "-f", example.to_str().unwrap_or_default()])?;
    world.wait_for("condition=Programmed", "opesrule/scan-content")?;
    world.wait_for("condition=Ready", "calloutservice/security-filter")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("beach.jpg");
    std::fs::write(&file, EXECUTABLE)?;
    let attachment = format!("@{}", file.display());
    let arrival = world
        .mail(&["--attach-type", "image/jpeg", "--attach", &attachment])
        .await?;
    let content = String::from_utf8_lossy(&arrival.content).into_owned();
    ensure!(
        content.contains("X-Opes-Security: ") && !content.contains("TVqQAAMAAAA"),
        "not adapted:\n{content}"
    );
    ensure!(content.contains("OPES-Via: "), "no trace:\n{content}");
    let clean = world.mail(&["--body", "hello"]).await?;
    ensure!(String::from_utf8_lossy(&clean.content).contains("hello"));
    Ok(())
}

/// Checklist 29.
pub(crate) async fn the_clients_address_is_kept_by_the_local_policy(
    world: &World<'_>,
) -> Result<()> {
    let arrival = world.mail(&[]).await?;
    let content = String::from_utf8_lossy(&arrival.content).into_owned();
    let received = content
        .lines()
        .find(|line| line.starts_with("Received:"))
        .context("no Received")?;
    let address = format!("[{OUTSIDE_IP}]");
    ensure!(
        content.contains(&address),
        "the client is {address}: {received}\n{content}"
    );
    Ok(())
}

/// Checklist 3, 8, 25: what CEL can say is refused at apply; what it cannot is a condition that names the field, and mail goes on.
pub(crate) async fn a_bad_rule_is_refused_or_isolated_and_changes_nothing_else(
    world: &World<'_>,
) -> Result<()> {
    let refused = world
        .apply(BAD_SYNTAX)
        .err()
        .context("two actions were taken")?;
    ensure!(format!("{refused:#}").contains("action"), "{refused:#}");
    world.apply(BAD_CONDITION)?;
    let message = world
        .eventually("Accepted=False", |world| {
            let rule = world.get(&["opesrule/bad"])?;
            let conditions = rule["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let accepted = conditions
                .iter()
                .find(|c| c["type"] == "Accepted" && c["status"] == "False");
            Ok(accepted
                .and_then(|c| c["message"].as_str())
                .map(str::to_owned))
        })
        .await?;
    ensure!(
        message.contains("spec.match.cel") && message.contains("nosuch"),
        "{message}"
    );
    let good = world.get(&["opesrule/scan-content"])?;
    let programmed = good["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    ensure!(
        programmed
            .clone()
            .any(|c| c["type"] == "Programmed" && c["status"] == "True"),
        "{good}"
    );
    world.mail(&[]).await?;
    world.kubectl(&["delete", "opesrule", "bad"])?;
    Ok(())
}
