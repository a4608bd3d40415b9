//! Writes what is generated from the kinds: the definitions in `charts/opes/crds-src` and the page `docs/reference/crd.md`.
//! Run it from the root of the repository, and commit what changes.

use opes_k8s::{CrdError, crds, reference, yaml};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new("charts/opes/crds-src");
    std::fs::create_dir_all(folder)?;
    let definitions = crds()?;
    for (file, definition) in &definitions {
        std::fs::write(folder.join(file), yaml(definition)?)?;
    }
    let all = definitions.map(|(_, definition)| definition);
    std::fs::write("docs/reference/crd.md", page(&all)?)?;
    Ok(())
}

fn page(
    definitions: &[k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition],
) -> Result<String, CrdError> {
    reference::page(definitions)
}
