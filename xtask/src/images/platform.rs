//! What images are made for, and how programs are built for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use object::elf::{EM_AARCH64, EM_X86_64};

use crate::step;

/// Operating system and processor of nodes.
#[derive(Debug)]
pub(super) struct Platform {
    /// As Rust names it.
    pub(super) target: &'static str,
    /// As OCI names it.
    pub(super) architecture: &'static str,
    /// As ELF numbers it.
    pub(super) machine: u16,
    /// As Debian names folders and tools for it.
    triplet: &'static str,
    /// Debian's packages with linker and C library, where it is foreign.
    packages: &'static str,
}

/// In the order in which an index lists them.
pub(super) const PLATFORMS: &[Platform] = &[
    Platform {
        target: "x86_64-unknown-linux-gnu",
        architecture: "amd64",
        machine: EM_X86_64,
        triplet: "x86_64-linux-gnu",
        packages: "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
    },
    Platform {
        target: "aarch64-unknown-linux-gnu",
        architecture: "arm64",
        machine: EM_AARCH64,
        triplet: "aarch64-linux-gnu",
        packages: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    },
];

/// By Rust's name.
pub(super) fn named(target: &str) -> Result<&'static Platform> {
    let found = PLATFORMS.iter().find(|it| it.target == target);
    found.with_context(|| {
        let all: Vec<_> = PLATFORMS.iter().map(|it| it.target).collect();
        format!("--target {target}: images are for {}", all.join(", "))
    })
}

/// Of this machine.
pub(super) fn host() -> Result<&'static Platform> {
    let here = std::env::consts::ARCH;
    let found = PLATFORMS.iter().find(|it| it.is_of(here));
    found.with_context(|| format!("this machine is {here}; name a platform with --target"))
}

// === impl Platform ===

impl Platform {
    fn is_of(&self, processor: &str) -> bool {
        self.target.starts_with(&format!("{processor}-"))
    }

    fn is_host(&self) -> bool {
        self.is_of(std::env::consts::ARCH)
    }

    /// Where cargo puts programs for it. What is built for this machine is shared with everything else that is.
    pub(super) fn programs(&self, target: &Path) -> PathBuf {
        if self.is_host() {
            target.join("release")
        } else {
            target.join(self.target).join("release")
        }
    }

    /// Builds packages for it, or says what is missing for that. Build scripts do not see variables that are `secret`.
    pub(super) fn build(&self, target: &Path, packages: &[&str], secret: &[&OsStr]) -> Result<()> {
        let mut build = step::cargo_command(target);
        for variable in secret {
            build.env_remove(variable);
        }
        build.args(["build", "--release", "--locked"]);
        build.args(packages.iter().flat_map(|package| ["-p", package]));
        if !self.is_host() {
            self.check_tools()?;
            build.args(["--target", self.target]);
            let variable = self.target.replace('-', "_").to_uppercase();
            let linker = format!("CARGO_TARGET_{variable}_LINKER");
            if std::env::var_os(&linker).is_none() {
                build.env(linker, self.tool("gcc"));
            }
        }
        step::command(&format!("release build for {}", self.target), &mut build)
    }

    fn check_tools(&self) -> Result<()> {
        let target = self.target;
        let printed = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", target])
            .output()
            .context("rustc")?;
        let library = String::from_utf8_lossy(&printed.stdout);
        ensure!(
            printed.status.success() && Path::new(library.trim()).is_dir(),
            "Rust's standard library for {target} is not installed; `rustup target add {target}`"
        );
        let linker = Command::new(self.tool("gcc")).arg("--version").output();
        ensure!(
            linker.is_ok_and(|output| output.status.success()),
            "{} is missing; `apt-get install {}`",
            self.tool("gcc"),
            self.packages
        );
        Ok(())
    }

    /// The name of a tool of GCC or binutils for it.
    pub(super) fn tool(&self, name: &str) -> String {
        if self.is_host() {
            name.to_owned()
        } else {
            format!("{}-{name}", self.triplet)
        }
    }

    /// Debian's package with assembler, linker and `strip` for it.
    pub(super) fn binutils(&self) -> String {
        format!("binutils-{}", self.triplet.replace('_', "-"))
    }

    /// What to install for it.
    pub(super) fn advice(&self) -> String {
        if self.is_host() {
            "is it a program of this machine?".to_owned()
        } else {
            format!("`apt-get install {}`", self.packages)
        }
    }

    /// Where libraries for it are here, and where the loader looks for them in an image. In the order of the loader; Debian's
    /// packages for cross compilers come after those of another architecture, which are newer.
    pub(super) fn library_folders(&self) -> Vec<(String, String)> {
        let triplet = self.triplet;
        let same = [
            format!("lib/{triplet}"),
            format!("usr/lib/{triplet}"),
            "lib64".to_owned(),
            "usr/lib64".to_owned(),
            "lib".to_owned(),
            "usr/lib".to_owned(),
        ];
        let cross = (format!("/usr/{triplet}/lib"), format!("lib/{triplet}"));
        let same = same.map(|folder| (format!("/{folder}"), folder));
        same.into_iter().chain([cross]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_gets_a_list() {
        let error = named("riscv64gc-unknown-linux-gnu").err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("aarch64-unknown-linux-gnu"), "{error}");
        assert!(PLATFORMS.iter().all(|it| named(it.target).is_ok()));
    }

    #[test]
    fn a_target_without_standard_library_is_said_with_the_remedy() {
        let nowhere = Platform {
            target: "none-unknown-linux-gnu",
            architecture: "arm64",
            machine: EM_AARCH64,
            triplet: "none-linux-gnu",
            packages: "nothing",
        };
        let error = nowhere
            .build(Path::new("/nonexistent"), &["opes"], &[])
            .err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        let remedy = "rustup target add none-unknown-linux-gnu";
        assert!(error.contains(remedy), "{error}");
    }
}
