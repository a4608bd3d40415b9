//! `opes`: the edge, the built-in services and the tools in one program.

mod builtin;
mod cli;
mod columns;
mod conform;
mod demo;
mod dev;
mod edge;
mod line;
mod live;
mod quarantine;
mod report;
mod rules;
mod rulesets;
mod runtime;
mod time;
mod user;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::cli::{Cli, Command, LogFormat, UserCommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("opes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    // The one TLS provider of the process; fails only if another was installed before, which nothing here does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let format = match cli.log_format {
        LogFormat::Human => opes_telemetry::Format::Human,
        LogFormat::Json => opes_telemetry::Format::Json,
    };
    opes_telemetry::init_logs(format, &cli.log)?;
    match cli.command {
        Command::Rules(command) => rules::run(command),
        Command::User(UserCommand::Hash { name }) => user::hash(&name),
        Command::Conform(args) => runtime::start()?.block_on(conform::run(args)),
        Command::Dev(args) => runtime::start()?.block_on(dev::run(args)),
        Command::Edge(args) => runtime::start()?.block_on(edge::run(args)),
        Command::Quarantine(args) => runtime::start()?.block_on(quarantine::run(args)),
        Command::Report(args) => runtime::start()?.block_on(report::run(args)),
        Command::Service(args) => runtime::start()?.block_on(builtin::run(args)),
    }
}
