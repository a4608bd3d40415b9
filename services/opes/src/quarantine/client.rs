//! `opes quarantine`: the operator's commands, over the API of an edge.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use opes_edge::config::EdgeConfig;
use opes_quarantine::{Client, Endpoint, Filter, ReleaseRequest};
use serde::Serialize;

use super::{SOCKET, secret, table};
use crate::cli::{ListArgs, QuarantineArgs, QuarantineCommand, WhereArgs};
use crate::time;

/// Runs one command.
pub(crate) async fn run(args: QuarantineArgs) -> Result<ExitCode> {
    let client = Client::new(endpoint(&args.edge)?, &operator(args.edge.operator));
    let json = args.edge.json;
    match args.command {
        QuarantineCommand::List(list) => {
            let page = client.list(&filter(list)?).await?;
            print(json, &page, || table::page(&page))?;
        }
        QuarantineCommand::Show { id, eml: false } => {
            let detail = client.show(&id).await?;
            print(json, &detail, || table::detail(&detail))?;
        }
        QuarantineCommand::Show { id, eml: true } => {
            client.content(&id, &mut tokio::io::stdout()).await?;
        }
        QuarantineCommand::Release { id, to, again } => {
            let recipients = (!to.is_empty()).then_some(to);
            let request = ReleaseRequest { recipients, again };
            let released = client.release(&id, &request).await?;
            print(json, &released, || {
                format!("released to {}\n", released.recipients.join(", "))
            })?;
        }
        QuarantineCommand::Delete { ids } => {
            for id in &ids {
                client.delete(id).await?;
                print(json, &serde_json::json!({ "deleted": id }), || {
                    format!("deleted {id}\n")
                })?;
            }
        }
        QuarantineCommand::Expire => {
            let expired = client.expire().await?;
            print(json, &expired, || {
                format!("{} expired messages removed\n", expired.expired)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn endpoint(place: &WhereArgs) -> Result<Endpoint> {
    if let (Some(url), Some(file)) = (&place.url, &place.token_file) {
        let authority = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|authority| !authority.is_empty() && !authority.contains('/'));
        let authority = authority.with_context(|| {
            format!("--url {url}: write http://HOST:PORT; the API speaks no TLS, so go through `kubectl port-forward` or `ssh -L`")
        })?;
        return Ok(Endpoint::Tcp {
            authority: authority.to_owned(),
            token: secret(file)?,
        });
    }
    if let Some(socket) = &place.socket {
        return Ok(Endpoint::Socket(socket.clone()));
    }
    if let Some(config) = &place.config {
        return Ok(Endpoint::Socket(
            EdgeConfig::load(config)?.spool.join(SOCKET),
        ));
    }
    let dev = PathBuf::from(".opes/spool").join(SOCKET);
    if dev.exists() {
        return Ok(Endpoint::Socket(dev));
    }
    bail!(
        "which edge?\n  help: give its --config edge.yaml, or --socket SPOOL/{SOCKET}, or --url http://HOST:PORT --token-file FILE"
    )
}

/// As whom: told, or the name that the system has for us.
fn operator(told: Option<String>) -> String {
    told.or_else(|| std::env::var("USER").ok())
        .unwrap_or_default()
}

fn filter(args: ListArgs) -> Result<Filter> {
    let at = |time: Option<String>| {
        time.map(|text| time::parse(&text))
            .transpose()
            .map_err(anyhow::Error::msg)
    };
    Ok(Filter {
        queue: args.queue,
        sender: args.from,
        recipient: args.to,
        domain: args.domain,
        since_ms: at(args.since)?,
        until_ms: at(args.until)?,
        reason: args.reason,
        cursor: args.cursor,
        limit: args.limit,
    })
}

fn print<T: Serialize>(json: bool, value: &T, human: impl FnOnce() -> String) -> Result<()> {
    use std::io::Write as _;
    let text = if json {
        format!("{}\n", serde_json::to_string(value)?)
    } else {
        human()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `opes quarantine list | head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
