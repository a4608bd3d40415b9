//! What a program is linked to at run time, read from its ELF headers: nothing is run, so that foreign programs can be read too.
//!
//! As the loader does it: NEEDED of the program and of what that needs, in the default folders, passing over libraries for
//! other machines. RPATH, RUNPATH and `ld.so.conf` are not followed; what stands there alone is an error.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use super::platform::Platform;

/// Of one program. Ours have three.
const LIBRARIES_MAX: usize = 256;

/// The loader or a library.
pub(super) struct Library {
    /// In the image, without a leading slash.
    pub(super) path: String,
    /// Here.
    pub(super) from: PathBuf,
    pub(super) content: Vec<u8>,
}

/// What we ask of an ELF file.
struct Elf {
    machine: u16,
    /// The loader.
    interpreter: Option<String>,
    needed: Vec<String>,
}

/// Loader and libraries of a program, by path. None if it is linked statically.
pub(super) fn of(program: &Path, platform: &Platform) -> Result<Vec<Library>> {
    let octets = fs::read(program)
        .with_context(|| format!("{}: cannot be read; is it built?", program.display()))?;
    let elf = Elf::read(&octets).with_context(|| program.display().to_string())?;
    ensure!(
        elf.machine == platform.machine,
        "{} is not for {}: ELF machine {}",
        program.display(),
        platform.target,
        elf.machine
    );
    let mut found = BTreeMap::new();
    let mut wanted: VecDeque<String> = elf.needed.into();
    if let Some(path) = elf.interpreter {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let (mut loader, more) = loader(&path, &name, platform)?;
        path.trim_start_matches('/').clone_into(&mut loader.path);
        wanted.extend(more);
        found.insert(name, loader);
    }
    while let Some(name) = wanted.pop_front() {
        if found.contains_key(&name) {
            continue;
        }
        ensure!(
            found.len() < LIBRARIES_MAX,
            "{} needs more than {LIBRARIES_MAX} libraries",
            program.display()
        );
        let (library, more) =
            find(&name, platform).with_context(|| program.display().to_string())?;
        wanted.extend(more);
        found.insert(name, library);
    }
    let mut libraries: Vec<Library> = found.into_values().collect();
    libraries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(libraries)
}

/// With what it needs itself. By its own path if it is there and for the platform, else where libraries are.
fn loader(path: &str, name: &str, platform: &Platform) -> Result<(Library, Vec<String>)> {
    match open(Path::new(path), platform) {
        Some(found) => Ok(found),
        None => find(name, platform),
    }
}

/// Where a library is here.
pub(super) fn path_of(name: &str, platform: &Platform) -> Result<PathBuf> {
    Ok(find(name, platform)?.0.from)
}

fn find(name: &str, platform: &Platform) -> Result<(Library, Vec<String>)> {
    ensure!(
        !name.is_empty() && !name.contains('/'),
        "a library by path, `{name}`, is not followed"
    );
    let folders = platform.library_folders();
    for (here, there) in &folders {
        if let Some((mut library, needed)) = open(&Path::new(here).join(name), platform) {
            library.path = format!("{there}/{name}");
            return Ok((library, needed));
        }
    }
    let folders: Vec<_> = folders.into_iter().map(|(here, _)| here).collect();
    bail!(
        "{name} for {} is in none of {}; {}",
        platform.target,
        folders.join(", "),
        platform.advice()
    )
}

/// `None` if it is not there, or for another machine.
fn open(path: &Path, platform: &Platform) -> Option<(Library, Vec<String>)> {
    let content = fs::read(path).ok()?;
    let elf = Elf::read(&content).ok()?;
    (elf.machine == platform.machine).then(|| {
        let library = Library {
            path: String::new(),
            from: path.to_owned(),
            content,
        };
        (library, elf.needed)
    })
}

// === impl Elf ===

impl Elf {
    fn read(octets: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(octets).context("no 64-bit ELF file")?;
        let endian = header.endian()?;
        let mut interpreter = None;
        for segment in header.program_headers(endian, octets)? {
            if let Some(path) = segment.interpreter(endian, octets)? {
                interpreter = Some(std::str::from_utf8(path)?.to_owned());
            }
        }
        let sections = header.sections(endian, octets)?;
        let dynamic = sections.dynamic_table(endian, octets)?;
        let mut needed = Vec::new();
        for entry in dynamic.iter().filter(|entry| entry.tag == DT_NEEDED) {
            needed.push(std::str::from_utf8(dynamic.string(entry)?)?.to_owned());
        }
        Ok(Self {
            machine: header.e_machine.get(endian),
            interpreter,
            needed,
        })
    }
}

/// The machine that a file is for, if it is one of ELF.
#[cfg(test)]
pub(super) fn machine(octets: &[u8]) -> Option<u16> {
    Elf::read(octets).ok().map(|elf| elf.machine)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::platform;
    use super::*;

    #[test]
    fn libraries_are_those_that_ldd_finds() -> Result<()> {
        let program = std::env::current_exe()?;
        let output = Command::new("ldd").arg(&program).output()?;
        let text = String::from_utf8(output.stdout)?;
        // `name => /path (0x…)` and `/path (0x…)`; the kernel's own has no path.
        let mut expected: Vec<&str> = text
            .lines()
            .filter_map(|line| line.rsplit("=> ").next()?.trim().strip_prefix('/'))
            .filter_map(|line| line.split(" (0x").next())
            .collect();
        expected.sort_unstable();
        let found = of(&program, platform::host()?)?;
        let found: Vec<&str> = found.iter().map(|it| it.path.as_str()).collect();
        assert!(found.len() >= 2, "{found:?}");
        assert_eq!(found, expected);
        Ok(())
    }

    #[test]
    fn a_program_for_another_machine_is_refused() -> Result<()> {
        let program = std::env::current_exe()?;
        let host = platform::host()?;
        let other = platform::PLATFORMS
            .iter()
            .find(|it| it.machine != host.machine)
            .context("one platform only")?;
        let error = of(&program, other).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("is not for")));
        Ok(())
    }

    #[test]
    fn what_is_missing_is_said_with_the_folders() -> Result<()> {
        let error = find("libnothing.so.9", platform::host()?).err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("libnothing.so.9"), "{error}");
        assert!(error.contains("/usr/lib/"), "{error}");
        assert!(find("../libc.so.6", platform::host()?).is_err());
        assert!(Elf::read(b"#!/bin/sh\n").is_err());
        Ok(())
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_panic() -> Result<()> {
        let octets = fs::read(std::env::current_exe()?)?;
        let start = octets.get(..4096).context("a short program")?;
        for at in 0..start.len() {
            // Whatever it says: it says it.
            let _ = Elf::read(start.get(..at).unwrap_or_default()).is_ok();
            let mut damaged = start.to_vec();
            if let Some(octet) = damaged.get_mut(at) {
                *octet ^= 0xff;
            }
            let _ = Elf::read(&damaged).is_ok();
        }
        assert_eq!(machine(&octets), Some(platform::host()?.machine));
        Ok(())
    }
}
