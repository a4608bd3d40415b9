//! Programs that the tests talk to, from Debian: installed when missing, configured by nobody, not left running.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::gate::Passed;
use crate::shell::{command, output, run, succeeds};

/// A program and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        program: "smtp-source",
        package: "postfix",
    },
    Tool {
        program: "smtp-sink",
        package: "postfix",
    },
    Tool {
        program: "swaks",
        package: "swaks",
    },
    Tool {
        program: "python3",
        package: "python3",
    },
];

/// Daemons stay in the folders that distributions give them even where `PATH` has none of them.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Installs without a question, and without starting or enabling a mail server on the machine of a developer: as long as
/// `policy-rc.d` says 101, `invoke-rc.d` starts nothing. Postfix gets no configuration; the tests write their own.
const INSTALL: &str = r#"
set -e
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
case " $* " in *" postfix "*)
    echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections ;;
esac
apt-get install --yes --no-install-recommends "$@" || {
    apt-get update
    apt-get install --yes --no-install-recommends "$@"
}
case " $* " in *" postfix "*)
    if [ -d /run/systemd/system ]; then systemctl disable --now postfix.service || true; fi ;;
esac
"#;

/// Installs what is missing.
pub(crate) fn install() -> anyhow::Result<Passed> {
    let packages = missing_packages(is_installed);
    if packages.is_empty() {
        return Ok(Passed::Checked);
    }
    println!("xtask: installing {}", packages.join(" "));
    run(&mut as_root(&packages)?)?;
    let still = missing_packages(is_installed);
    ensure!(
        still.is_empty(),
        "{} installed, but their programs are not in PATH",
        still.join(" ")
    );
    Ok(Passed::Checked)
}

fn missing_packages(is_installed: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let missing = TOOLS.iter().filter(|tool| !is_installed(tool.program));
    let mut packages: Vec<_> = missing.map(|tool| tool.package).collect();
    packages.dedup();
    packages
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(SYSTEM_FOLDERS.split(':'))
        .any(|folder| Path::new(folder).join(program).is_file())
}

fn as_root(packages: &[&str]) -> anyhow::Result<Command> {
    let advice = || {
        let packages = packages.join(" ");
        format!(
            "the tests need Debian's {packages}; `apt-get install {packages}` as root, then run this again"
        )
    };
    ensure!(
        succeeds(&mut command("apt-get", ["--version"])),
        "no apt-get here: {}",
        advice()
    );
    let script = ["sh", "-c", INSTALL, "install"]
        .into_iter()
        .chain(packages.iter().copied());
    let id = output(&mut command("id", ["-u"])).context("who am I")?;
    if id.trim_ascii() == b"0" {
        return Ok(command("env", script));
    }
    ensure!(
        succeeds(&mut command("sudo", ["-n", "true"])),
        "neither root nor sudo without a password: {}",
        advice()
    );
    Ok(command("sudo", ["-n"].into_iter().chain(script)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        assert_eq!(missing_packages(|_| false), ["postfix", "swaks", "python3"]);
        assert_eq!(
            missing_packages(|program| program != "smtp-sink"),
            ["postfix"]
        );
        assert!(missing_packages(|_| true).is_empty());
    }

    #[test]
    fn programs_are_looked_for_where_daemons_live() {
        assert!(is_installed("sh"));
        assert!(!is_installed("no-such-program-anywhere"));
    }
}
