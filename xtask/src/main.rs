//! `cargo xtask`: the project's own commands. `test` is the gate; `bench` makes the figures that the documents quote.

mod bench;
mod cache;
mod deny;
mod images;
mod install;
mod kubernetes;
mod python;
mod step;
mod test;
mod versions;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask test              the gate: install, format, lints, build, tests, licences
cargo xtask test --fast       without lints and end-to-end tests
cargo xtask bench             CPU of a callout; Postfix + milter against edge + callout, one table (--quick: one round)
cargo xtask images            an OCI archive for each program, without a container engine ([--target TARGET]… [--registry HOST/PATH]
                              [--sign KEY] [--out DIR] [--no-build] [NAME…]; or --node, for tests)
cargo xtask kubernetes        make the programs of Kubernetes that tests start, print where they are
cargo xtask kubernetes keda   make KEDA's programs, for the test that the gate leaves out, print where they are
cargo xtask kubernetes oldest what the gate runs on the oldest supported version
cargo xtask kubernetes test   all tests of the cluster in their long form, on the oldest and on the newest supported version
cargo xtask python            make what the Python example runs in, print where it is
cargo xtask soak [MINUTES]    the tests with random input and kill -9, over and over";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => test::run(false),
        ["test", "--fast"] => test::run(true),
        ["bench"] => bench::command(false),
        ["bench", "--quick"] => bench::command(true),
        ["images", rest @ ..] => images::command(rest),
        ["kubernetes", rest @ ..] => kubernetes::command(rest),
        ["python"] => python::print(),
        ["soak"] => test::soak(10),
        ["soak", minutes] => test::soak(minutes.parse()?),
        ["noop-milter", socket] => bench::serve_milter(&PathBuf::from(socket)),
        _ => bail!("what to do?\n{USAGE}"),
    }
}
