//! Versions stand in the root manifest and nowhere else.

use crate::Finding;

/// Lines of a member's manifest that state a version.
pub fn stated_versions(path: &str, text: &str) -> Vec<Finding> {
    let mut in_dependencies = false;
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or(line).trim();
        if let Some(section) = line.strip_prefix('[') {
            in_dependencies = section.contains("dependencies");
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        let bare = in_dependencies && value.starts_with('"');
        let stated = matches!(key, "version" | "edition" | "rust-version" | "license")
            && value.starts_with('"');
        if bare || stated || value.contains("version =") {
            let message = format!("`{key}` states a version; write `{key}.workspace = true`");
            findings.push(Finding::at(path, index, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::stated_versions;

    #[test]
    fn versions_are_found() {
        let lines = [
            "[package]\nversion = \"1.0.0\"",
            "[package]\nedition = \"2024\"",
            "[dependencies]\nbytes = \"1\"",
            "[dev-dependencies]\nbytes = { version = \"1\" }",
            "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"",
            "[dependencies.bytes]\nversion = \"1\"",
        ];
        for text in lines {
            assert_eq!(stated_versions("Cargo.toml", text).len(), 1, "{text}");
        }
    }

    #[test]
    fn the_workspace_way_is_fine() {
        let text = "[package]\nname = \"a\"\nversion.workspace = true # as all\n[dependencies]\nbytes.workspace = true\n\
                    prost = { workspace = true, features = [\"x\"] }\n[[bin]]\npath = \"a.rs\"";
        assert!(stated_versions("Cargo.toml", text).is_empty());
    }
}
