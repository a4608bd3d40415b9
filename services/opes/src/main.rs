//! `opes`: the edge, the built-in services and the tools in one program.

mod builtin;
mod cli;
mod demo;
mod dev;
mod edge;
mod line;
mod rules;
mod rulesets;

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use crate::cli::{Cli, Command, LogFormat, UserCommand};

/// Threads for file I/O and password hashing at once; more work waits.
const BLOCKING_THREADS_MAX: usize = 16;

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
        Command::User(UserCommand::Hash { name }) => hash(&name),
        Command::Dev(args) => runtime()?.block_on(dev::run(args)),
        Command::Edge { config } => runtime()?.block_on(edge::run(&config)),
        Command::Service(args) => runtime()?.block_on(builtin::run(args)),
    }
}

/// File reads and writes run on the blocking pool, each with a buffer; tokio's default of 512 threads would make that a
/// multiple of the memory budget.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
}

fn hash(name: &str) -> Result<ExitCode> {
    let mut password = String::new();
    std::io::stdin()
        .read_to_string(&mut password)
        .context("cannot read the password from standard input")?;
    println!(
        "{name}:{}",
        opes_edge::password_hash(password.trim_end_matches(['\r', '\n']))?
    );
    Ok(ExitCode::SUCCESS)
}
