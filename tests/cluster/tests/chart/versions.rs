//! Versions of Kubernetes: what chart and documents say is what tests run on.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::helm::file;

const PAGE: &str = include_str!("../../../../docs/operate/kubernetes/install.md");

/// `1.2`, of the Go module in `tests/cluster/kubernetes`.
pub(crate) fn minor(module: &str) -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes");
    let path = folder.join(module).join("go.mod");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"))
        .context("go.mod has no k8s.io/kubernetes")?;
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().context("major")?, numbers.next());
    Ok(format!("{major}.{}", minor.context("minor")?))
}

#[test]
fn what_is_said_to_be_supported_is_what_is_tested() -> Result<()> {
    let (oldest, newest) = (minor("oldest")?, minor("")?);
    let wanted = format!("kubeVersion: \">={oldest}.0-0\"");
    let said = file("Chart.yaml")?;
    assert!(said.contains(&wanted), "no {wanted} in\n{said}");
    let readme = file("README.md")?;
    for (page, name) in [(PAGE, "install.md"), (&readme, "README.md")] {
        let wanted = format!("Kubernetes {oldest} ");
        assert!(page.contains(&wanted), "no `{wanted}` in {name}");
    }
    for end in [format!("**{newest}**"), format!("**{oldest}**")] {
        assert!(PAGE.contains(&end), "no {end} in install.md");
    }
    Ok(())
}
