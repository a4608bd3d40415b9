//! More that the harness's callout service can be told to do, by the rule's parameter `do`.

use anyhow::{Context as _, bail};
use opes_callout_server::{Answer, CommandAnswer, Message};
use opes_proto::smtp::{NextHop, RecipientChange};
use serde_json::Value;

pub(crate) fn command(what: &str) -> anyhow::Result<CommandAnswer> {
    Ok(match what {
        "fail" => bail!("this service is told to fail"),
        "archive" => CommandAnswer::proceed().recipient(RecipientChange {
            address: "archive@example.org".into(),
            ..RecipientChange::default()
        }),
        "remove" => CommandAnswer::proceed().recipient(RecipientChange {
            remove: true,
            ..RecipientChange::default()
        }),
        _ => CommandAnswer::proceed(),
    })
}

pub(crate) async fn message(
    what: &str,
    parameters: &Value,
    message: &mut Message,
) -> anyhow::Result<Answer> {
    Ok(match what {
        "fail" => bail!("this service is told to fail"),
        "discard" => Answer::discard(),
        "reject" => Answer::reject(550, "5.7.1", "no"),
        "reject-late" => {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            Answer::reject(550, "5.7.1", "no").reason("as told")
        }
        "spam" => Answer::accept().quarantine_in("spam", "scored 9"),
        "too-much" => Answer::reject(550, "5.7.1", "no")
            .add_header("X-Probe", "seen")
            .splice(0, 0, "X-Spliced: yes\r\n")
            .quarantine("look"),
        "routes" => routes(parameters)?,
        "flows" => flows(message).await?,
        _ => Answer::accept(),
    })
}

/// `a@` and `b@` get next hops of their own, on the ports that the parameters name.
fn routes(parameters: &Value) -> anyhow::Result<Answer> {
    let mut answer = Answer::accept();
    for to in ["a", "b"] {
        let port = parameters[to].as_u64().context("no port")?;
        let hop = NextHop {
            host: "127.0.0.1".into(),
            port: u32::try_from(port)?,
            lmtp: false,
        };
        let address = format!("{to}@example.org");
        let routed = Answer::accept().route(address.as_str(), hop);
        answer = answer.for_recipients([address.as_str()], routed);
    }
    Ok(answer)
}

/// Two messages in one flow: one for `a@` in front of the original, one of its own for `b@`, which gets a field besides.
async fn flows(message: &mut Message) -> anyhow::Result<Answer> {
    anyhow::ensure!(message.takes_copies());
    let original = message.read_all(1 << 20).await?;
    let mut adapted = message.adapt();
    adapted.use_mine("X-For: a\r\n").await?;
    adapted.use_yours(0..original.len() as u64).await?;
    let a = adapted.end_message();
    adapted.use_mine("Subject: b\r\n\r\nof its own\r\n").await?;
    let b = adapted.end_message();
    adapted.finish().await?;
    let field = Answer::accept().add_header("X-Probe", "b");
    Ok(Answer::accept()
        .for_recipients(["a@example.org"], Answer::accept().with_message(a))
        .for_recipients(["b@example.org"], field.with_message(b)))
}
