//! What the Python example runs in: a virtual environment with its pinned packages and the code that grpcio-tools makes of `proto/`,
//! kept in the cache per user under a hash of both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::step::{self, root};
use crate::{cache, install};

const REQUIREMENTS: &str = "examples/python/requirements.txt";
const PROTOS: [&str; 2] = ["opes/ocp/v1/callout.proto", "opes/smtp/v1/profile.proto"];

/// Debian's own, for which python3-venv is: one further up the path may lack it.
const PYTHON: &str = "/usr/bin/python3";

/// Written last: without it the folder is a half-made one.
const COMPLETE: &str = ".opes-complete";

/// The environment, made if it is not there. Tests find it by `OPES_PYTHON`.
pub(crate) fn environment() -> Result<PathBuf> {
    let mut key = Vec::new();
    let protos = PROTOS.map(|proto| format!("proto/{proto}"));
    for path in protos.iter().map(String::as_str).chain([REQUIREMENTS]) {
        key.extend(fs::read(root().join(path)).with_context(|| path.to_owned())?);
    }
    let folder = cache::keyed("python", &key)?;
    if !folder.join(COMPLETE).exists() {
        step::timed("python environment", || make(&folder))?;
    }
    Ok(folder)
}

/// For people, who run the example by hand.
pub(crate) fn print() -> Result<()> {
    install::packages()?;
    println!("OPES_PYTHON={}", environment()?.display());
    Ok(())
}

fn make(folder: &Path) -> Result<()> {
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(root());
        step::command(&format!("python {}", arguments.join(" ")), &mut command)
    };
    let text = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .context("a cache folder that is no text")
    };
    run(
        Path::new(PYTHON),
        &["-m", "venv", "--clear", &text(folder)?],
    )?;
    let python = folder.join("bin/python");
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        REQUIREMENTS,
    ];
    run(&python, &install)?;
    let generated = folder.join("generated");
    fs::create_dir_all(&generated).context("cannot write the cache folder")?;
    let out = text(&generated)?;
    let (messages, stubs) = (
        format!("--python_out={out}"),
        format!("--grpc_python_out={out}"),
    );
    let mut arguments = vec!["-m", "grpc_tools.protoc", "-I", "proto", &messages, &stubs];
    arguments.extend(PROTOS);
    run(&python, &arguments)?;
    fs::write(folder.join(COMPLETE), b"").context("cannot write the cache folder")
}
