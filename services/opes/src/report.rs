//! `opes report`: what the reporting service has kept, for people or as JSON.

mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use opes_reporting::{By, Config, DatabaseConfig, PostgresPlace, Query};

use crate::cli::{ReportArgs, ReportBy};
use crate::time;

/// The database in the state folder of `opes dev`.
pub(crate) const FILE: &str = "reporting.sqlite";

/// Reads and prints.
pub(crate) async fn run(args: ReportArgs) -> Result<ExitCode> {
    let query = query(&args)?;
    let config = config(&args)?;
    let report = opes_reporting::report(&config, &query)
        .await
        .map_err(remedied)?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&report)?)
    } else {
        table::report(&report)
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `opes report | head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(ExitCode::SUCCESS)
}

fn remedied(error: opes_reporting::ReportError) -> anyhow::Error {
    anyhow::Error::from(error).context(
        "no report\n  help: name the database with --database FILE or --database postgres://USER@HOST/DATABASE, or the service's --config FILE",
    )
}

fn query(args: &ReportArgs) -> Result<Query> {
    let at = |option: &str, text: &str| {
        time::parse(text).map_err(|error| anyhow::anyhow!("--{option}: {error}"))
    };
    let until_ms = match &args.until {
        Some(text) => at("until", text)?,
        None => time::now_ms(),
    };
    let since_ms = at("since", &args.since)?;
    if since_ms >= until_ms {
        bail!(
            "nothing is between --since {} and --until {}: the first is not before the second",
            args.since,
            args.until.as_deref().unwrap_or("now")
        );
    }
    let by = match args.by {
        None => vec![By::Service, By::Rule],
        Some(ReportBy::Service) => vec![By::Service],
        Some(ReportBy::Rule) => vec![By::Rule],
        Some(ReportBy::Domain) => vec![By::Domain],
        Some(ReportBy::Hour) => vec![By::Hour],
    };
    Ok(Query {
        since_ms,
        until_ms,
        by,
        rows_max: args.rows,
    })
}

fn config(args: &ReportArgs) -> Result<Config> {
    if let Some(path) = &args.config {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let json = serde_saphyr::from_str(&text).with_context(place)?;
        return Config::from_json(&json).with_context(place);
    }
    let database = match &args.database {
        Some(url) if url.starts_with("postgres:") || url.starts_with("postgresql:") => {
            DatabaseConfig {
                postgres: Some(PostgresPlace {
                    url: url.clone(),
                    password_file: args.password_file.clone(),
                }),
                sqlite: None,
            }
        }
        Some(file) => sqlite(Path::new(file)),
        None => sqlite(&dev()?),
    };
    Ok(Config {
        database,
        ..Config::default()
    })
}

fn sqlite(file: &Path) -> DatabaseConfig {
    DatabaseConfig {
        sqlite: Some(file.to_owned()),
        postgres: None,
    }
}

fn dev() -> Result<PathBuf> {
    let file = Path::new(".opes").join(FILE);
    if file.exists() {
        return Ok(file);
    }
    bail!(
        "which database?\n  help: give --database FILE, --database postgres://USER@HOST/DATABASE, or the reporting service's --config FILE"
    )
}
