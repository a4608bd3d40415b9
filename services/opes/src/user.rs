//! `opes user hash`: lines for user files.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// Prints the line; the password comes from standard input, so that it stands in no process list.
pub(crate) fn hash(name: &str) -> Result<ExitCode> {
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
