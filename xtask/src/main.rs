//! Project tasks: `cargo xtask test` is the whole gate, the same on a developer's machine and in CI.
//!
//! Needs Rust, a C compiler and, for what is missing, root on a Debian or Ubuntu. Depends on next to nothing, so that it is
//! compiled in seconds.

mod cache;
mod deny;
mod gate;
mod shell;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask TASK

Tasks:
  test [STEP…]   everything that must pass before a merge; with steps, only those:
                 tools fmt clippy build test deny
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments
        .split_first()
        .map(|(task, rest)| (task.as_str(), rest))
    {
        Some(("test", steps)) => gate::run(steps),
        Some(("help" | "--help" | "-h", _)) => {
            print!("{USAGE}");
            Ok(())
        }
        Some((unknown, _)) => Err(anyhow::anyhow!("unknown task `{unknown}`\n\n{USAGE}")),
        None => Err(anyhow::anyhow!("{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
