//! KEDA's operator, metrics adapter and admission webhooks, with its custom resource definitions: made once, and kept in the cache.
//!
//! Not part of the gate: 3,300 packages, which take a quarter of an hour to compile, for one test. `cargo xtask kubernetes test` makes and runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::sets::logged;
use crate::cache;
use crate::step::{self, root};

/// Where the test finds the programs.
pub(crate) const PROGRAMS: &str = "OPES_KEDA";

/// Folder of the Go module.
const MODULE: &str = "tests/cluster/kubernetes/keda";
const KEDA: &str = "github.com/kedacore/keda/v2";
/// Program in that module, our name for it.
const MADE: [(&str, &str); 3] = [
    ("operator", "keda-operator"),
    ("adapter", "keda-adapter"),
    ("webhooks", "keda-webhooks"),
];

/// `cargo xtask kubernetes keda`.
pub(crate) fn print() -> Result<()> {
    println!("{PROGRAMS}={}", make()?.display());
    Ok(())
}

/// Makes what is missing. The folder, for [`PROGRAMS`].
pub(crate) fn make() -> Result<PathBuf> {
    let module = root().join(MODULE);
    let mut key = Vec::new();
    for name in ["go.mod", "go.sum"] {
        let path = module.join(name);
        key.extend(fs::read(&path).with_context(|| path.display().to_string())?);
    }
    let folder = cache::keyed("keda", &key)?;
    if MADE.iter().any(|it| !folder.join(it.1).exists()) || !folder.join("crds").exists() {
        step::timed("KEDA's programs", || {
            for (package, name) in MADE {
                program(&module, &folder, package, name)?;
            }
            definitions(&module, &folder)
        })?;
    }
    Ok(folder)
}

fn program(module: &Path, folder: &Path, package: &str, name: &str) -> Result<()> {
    let aside = folder.join(format!("{name}.new"));
    let mut build = Command::new("nice");
    build
        .args(["-n", "10", "go", "build", "-trimpath", "-buildvcs=false"])
        .args(["-ldflags", "-s -w", "-o"])
        .arg(&aside)
        .arg(format!("{KEDA}/cmd/{package}"))
        .env("CGO_ENABLED", "0")
        .current_dir(module);
    logged(&mut build, &folder.join(format!("{name}.log")))?;
    fs::rename(&aside, folder.join(name))?;
    Ok(())
}

/// Those of `keda.sh`, out of the module's source. Go has verified it when it compiled.
fn definitions(module: &Path, folder: &Path) -> Result<()> {
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", KEDA])
        .current_dir(module)
        .output()
        .context("cannot run go")?;
    ensure!(
        output.status.success(),
        "go list: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let source = String::from_utf8(output.stdout)?;
    let source = Path::new(source.trim()).join("config/crd/bases");
    let aside = folder.join("crds.new");
    // What an interrupted run left.
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::create_dir(&aside)?;
    for entry in fs::read_dir(&source).with_context(|| source.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().context("no file name")?;
        // Files there are read-only, and copies would be too.
        fs::write(aside.join(name), fs::read(&path)?)?;
    }
    fs::rename(&aside, folder.join("crds"))?;
    Ok(())
}
