//! `opes conform`: judges a callout server; exit code 1 if it breaks a rule.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use opes_conform::Options;

use crate::cli::ConformArgs;

/// Prints the report.
pub(crate) async fn run(args: ConformArgs) -> Result<ExitCode> {
    let options = Options {
        patience: Duration::from_secs(args.patience),
        parameters: args.parameters,
    };
    let report = opes_conform::check(&args.address, &options).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table(args.transcript));
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
