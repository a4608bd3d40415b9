//! Images of the test bed, not of the project, made of what Debian has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::oci::{Part, Settings};
use super::platform::{self, PLATFORMS, Platform};
use super::{REGISTRY, libraries, with_libraries, write_image};

/// Debian's busybox, which also does nothing when asked to (`pause`).
const BUSYBOX: &str = "/bin/busybox";

/// Source, C library and loader of a program for each platform.
const SOURCES: &[(&str, &str, &str)] = &[
    (
        "amd64",
        include_str!("node/amd64.s"),
        "/lib64/ld-linux-x86-64.so.2",
    ),
    (
        "arm64",
        include_str!("node/arm64.s"),
        "/lib/ld-linux-aarch64.so.1",
    ),
];

/// `pause`, `busybox` to look around with, and `platforms`, which says for which one of several it is.
pub(crate) fn make(out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    for (name, entrypoint) in [
        ("pause", &["/usr/bin/busybox", "sleep", "infinity"][..]),
        ("busybox", &["/usr/bin/busybox"]),
    ] {
        let part = part(platform::host()?, Path::new(BUSYBOX), "usr/bin/busybox")?;
        write_image(out, name, &[part], &settings(name, entrypoint))?;
    }
    let parts = PLATFORMS.iter().map(|platform| {
        let program = out.join(format!("platforms-{}", platform.architecture));
        assemble(platform, &program)?;
        let part = part(platform, &program, "usr/bin/platform");
        fs::remove_file(&program)?;
        part
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let settings = settings("platforms", &["/usr/bin/platform"]);
    write_image(out, "platforms", &parts, &settings)?;
    Ok(())
}

fn part(platform: &'static Platform, program: &Path, path: &str) -> Result<Part> {
    let mut tree = with_libraries(&libraries::of(program, platform)?);
    let octets = fs::read(program).with_context(|| program.display().to_string())?;
    tree.file(path, 0o755, octets);
    Ok(Part {
        platform,
        tree,
        sbom: None,
    })
}

fn settings(name: &str, entrypoint: &[&str]) -> Settings {
    Settings {
        entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
        labels: BTreeMap::new(),
        reference: format!("{REGISTRY}/{name}:test"),
        time: 0,
    }
}

fn assemble(platform: &Platform, program: &Path) -> Result<()> {
    let source = SOURCES.iter().find(|it| it.0 == platform.architecture);
    let (_, source, loader) = source.context("no source for this platform")?;
    let (text, object) = (program.with_extension("s"), program.with_extension("o"));
    fs::write(&text, source)?;
    let mut assembler = Command::new(platform.tool("as"));
    assembler.arg("-o").arg(&object).arg(&text);
    let mut linker = Command::new(platform.tool("ld"));
    let library = libraries::path_of("libc.so.6", platform)?;
    linker.arg("-o").arg(program).arg(&object).arg(library);
    // Its own libraries are found when it runs.
    linker.args(["--dynamic-linker", loader, "--allow-shlib-undefined"]);
    for command in [&mut assembler, &mut linker] {
        let name = command.get_program().to_string_lossy().into_owned();
        let advice = || format!("{name}; `apt-get install {}`", platform.binutils());
        let status = command.status().with_context(advice)?;
        ensure!(status.success(), "{name}: {status}");
    }
    fs::remove_file(text)?;
    Ok(fs::remove_file(object)?)
}
