//! Rule files with the exact diagnostics they must give, and those that must compile.
//!
//! `OPES_UPDATE_GOLDEN=1` rewrites the expectations; read the difference before committing it.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use opes_rules::{Diagnostic, load};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn yaml_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    assert!(!files.is_empty(), "{}", dir.display());
    files
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn lines(diagnostics: &[Diagnostic]) -> String {
    let mut text: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    text.push(String::new());
    text.join("\n")
}

#[test]
fn refused_files_give_exactly_these_diagnostics() {
    for path in yaml_files(&root().join("tests/rules/refused")) {
        let text = fs::read_to_string(&path).unwrap();
        let diagnostics = load([(name_of(&path).as_str(), text.as_str())]).unwrap_err();
        let said = lines(&diagnostics);
        let expected = path.with_extension("expect");
        if std::env::var_os("OPES_UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        assert_eq!(
            said,
            fs::read_to_string(&expected).unwrap(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn example_files_compile_without_a_warning() {
    let folders = ["examples/rules", "examples/with-external-services"];
    for path in folders
        .iter()
        .flat_map(|folder| yaml_files(&root().join(folder)))
    {
        let text = fs::read_to_string(&path).unwrap();
        match load([(name_of(&path).as_str(), text.as_str())]) {
            Ok(table) => assert!(table.warnings.is_empty(), "{:?}", table.warnings),
            Err(diagnostics) => panic!("{}", lines(&diagnostics)),
        }
    }
}

// Every example of the reference page is a complete file.
#[test]
fn examples_in_the_documentation_compile() {
    let page = fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let mut examples = 0;
    for block in page.split("```yaml\n").skip(1) {
        let example = block.split("```").next().unwrap();
        examples += 1;
        if let Err(diagnostics) = load([("docs/rules.md", example)]) {
            panic!("{}\n{example}", lines(&diagnostics));
        }
    }
    assert!(examples >= 5, "the page has {examples} examples");
}
