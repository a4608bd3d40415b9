//! `opes rules check` and `opes rules explain`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use opes_edge::HeaderFields;
use opes_rules::{Bypass, Facts, Point, Recipient, Sender, explain};

use crate::cli::{ExplainArgs, RulesCommand};
use crate::rulesets;

pub(crate) fn run(command: RulesCommand) -> Result<ExitCode> {
    match command {
        RulesCommand::Check { files } => check(&files),
        RulesCommand::Explain(args) => explain(&args),
    }
}

fn check(files: &[std::path::PathBuf]) -> Result<ExitCode> {
    match rulesets::compile(&rulesets::read(files)?) {
        Ok(table) => {
            println!(
                "ok: {} rules, {} services, revision {}",
                table.rules.len(),
                table.services.len(),
                table.revision
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(diagnostics) => {
            eprintln!("{}", rulesets::listed(&diagnostics));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// None if nothing is named.
fn bypass(services: &[String]) -> Option<Bypass> {
    if services.iter().any(|name| name == "*") {
        Some(Bypass::All)
    } else {
        let named = services.iter().cloned().collect();
        (!services.is_empty()).then_some(Bypass::Services(named))
    }
}

fn explain(args: &ExplainArgs) -> Result<ExitCode> {
    let table = rulesets::load(&args.rules)?;
    let message = match &args.message {
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => None,
    };
    let structure = message.as_deref().map(opes_mime::scan);
    let header = structure.as_ref().zip(message.as_deref());
    let header = header.map(|(structure, message)| HeaderFields::new(structure, message));
    let recipients: Vec<_> = args
        .to
        .iter()
        .map(|address| Recipient {
            address,
            parameters: &[],
        })
        .collect();
    let bypass = bypass(&args.bypass);
    let facts = Facts {
        bypass: bypass.as_ref(),
        dialog_id: "explain",
        listener: &args.listener,
        client_ip: Some(args.client),
        helo: Some(&args.helo),
        auth: args.auth.as_deref(),
        mail_from: Some(Sender {
            address: &args.from,
            parameters: &[],
        }),
        recipients: &recipients,
        size: message.as_ref().map(|message| message.len() as u64),
        headers: header
            .as_ref()
            .map(|header| header as &dyn opes_rules::Headers),
        ..Facts::at(Point::Content)
    };
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&explain::explain(&table, &facts))?
        );
    } else {
        print!("{}", explain::text(&table, &facts));
    }
    Ok(ExitCode::SUCCESS)
}
