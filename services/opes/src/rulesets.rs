//! Reads rule files and compiles them; mistakes come out with file, line, field and remedy.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use opes_rules::{Diagnostic, RoutingTable};

/// Files of one rule set.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The YAML files named, and those in the folders named, in order of their names.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, &mut files)?;
    }
    anyhow::ensure!(
        !files.is_empty(),
        "no .yaml or .yml file in {}\n  help: examples/rules has some to start from",
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    );
    files.into_iter().map(|path| source(&path)).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot read {}", path.display());
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(context)?;
    let mut found = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    found.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml")
    });
    found.sort();
    files.extend(found);
    Ok(())
}

fn source(path: &Path) -> Result<Source> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    Ok(Source { name, text })
}

/// One table from all sources, or everything that is wrong with them.
pub(crate) fn compile(sources: &[Source]) -> Result<RoutingTable, Vec<Diagnostic>> {
    let mut objects = Vec::new();
    let mut diagnostics = Vec::new();
    for source in sources {
        let (found, wrong) = opes_rules::parse(&source.name, &source.text);
        objects.extend(found);
        diagnostics.extend(wrong);
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    opes_rules::compile(objects)
}

/// The same, as one error.
pub(crate) fn load(paths: &[PathBuf]) -> Result<RoutingTable> {
    compile(&read(paths)?).map_err(|diagnostics| anyhow::anyhow!("{}", listed(&diagnostics)))
}

/// All diagnostics, one after another.
pub(crate) fn listed(diagnostics: &[Diagnostic]) -> String {
    let texts = diagnostics.iter().map(ToString::to_string);
    let count = diagnostics.len();
    let mistakes = if count == 1 {
        "1 mistake".into()
    } else {
        format!("{count} mistakes")
    };
    format!(
        "the rules have {mistakes}\n{}",
        texts.collect::<Vec<_>>().join("\n")
    )
}
