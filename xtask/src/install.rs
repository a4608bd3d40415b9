//! The foreign software that tests and bench run against, from Debian's packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::step;

/// Program that must be there → package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/sbin/postfix", "postfix"),
    ("/usr/sbin/smtp-source", "postfix"),
    ("/usr/bin/swaks", "swaks"),
    ("/usr/bin/openssl", "openssl"),
];

/// A file whose presence makes package scripts leave services stopped.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing.
pub(crate) fn packages() -> Result<()> {
    let mut missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !Path::new(program).exists())
        .map(|(_, package)| *package)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "these are missing and cannot be installed without apt-get: {}",
        missing.join(", ")
    );
    step::command("apt-get update", &mut apt(&["update", "-q"]))?;
    let stopped = StoppedServices::begin();
    let mut install = apt(&["install", "-q", "-y", "--no-install-recommends"]);
    let result = step::command(
        &format!("apt-get install {}", missing.join(" ")),
        install.args(&missing),
    );
    drop(stopped);
    result
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else {
        Command::new("sudo")
    };
    if !is_root() {
        command.args(["-n", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(arguments);
    command
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Keeps the machine's own mail server from being started by its installation, which would take port 25.
struct StoppedServices {
    ours: bool,
}

impl StoppedServices {
    fn begin() -> Self {
        let ours = is_root() && !Path::new(POLICY).exists();
        if ours {
            // Without it the installation still works; only a server runs that nobody asked for.
            let _ = std::fs::write(POLICY, "#!/bin/sh\nexit 101\n");
            let _ = std::fs::set_permissions(
                POLICY,
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            );
        }
        Self { ours }
    }
}

impl Drop for StoppedServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}
