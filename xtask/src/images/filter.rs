//! What programs of the system make of octets. This command is not compiled with optimisation, and images are large.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// `sha256:` and the hash in hexadecimal.
pub(super) fn digest(octets: &[u8]) -> Result<String> {
    let printed = String::from_utf8(run(&mut Command::new("sha256sum"), octets)?)?;
    let hash = printed.split_whitespace().next();
    Ok(format!("sha256:{}", hash.context("sha256sum")?))
}

/// With gzip, without name and time.
pub(super) fn compress(octets: &[u8]) -> Result<Vec<u8>> {
    run(Command::new("gzip").args(["-n", "-6"]), octets)
}

/// What a program prints that reads `octets`; an error has what it complained of.
pub(super) fn run(command: &mut Command, octets: &[u8]) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.clone())?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || stdin.write_all(octets));
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{program}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        written.join().ok().context("a thread panicked")??;
        Ok(output.stdout)
    })
}
