//! All scripts of `tests/dialogs`, in pieces of several sizes; and the notation itself.

use std::path::PathBuf;

use super::*;

fn scripts() -> Vec<(String, Script)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/dialogs");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "smtp")
    });
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let script = parse(&std::fs::read_to_string(&path).unwrap());
        (
            name.clone(),
            script.unwrap_or_else(|error| panic!("{name}: {error}")),
        )
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_script_runs_in_pieces_of_any_size() {
    let scripts = scripts();
    assert!(scripts.len() >= 20, "only {} scripts found", scripts.len());
    let mut failures = Vec::new();
    for (name, script) in &scripts {
        for piece in [1, 2, 7, 64, usize::MAX] {
            if let Err(error) = core::run(script, piece) {
                failures.push(format!("{name} in pieces of {piece}: {error}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_dialog_that_goes_otherwise_is_an_error() {
    let outcome = |text: &str| core::run(&parse(text).unwrap(), 1);
    let greeting = "S: 220 mail.example.com ESMTP OPES\n";
    assert_eq!(outcome(greeting), Ok(()));
    assert!(outcome("S: 554 ...").is_err());
    assert!(outcome("").is_err(), "unread output");
    assert!(
        outcome(&format!("{greeting}S: 220 ...")).is_err(),
        "too little output"
    );
    assert!(outcome(&format!("{greeting}Z:")).is_err(), "not closed");
    assert!(outcome(&format!("{greeting}T:")).is_err(), "no handshake");
    assert!(outcome(&format!("{greeting}M: x")).is_err(), "no message");
    assert!(
        outcome(&format!("messages: 1\n{greeting}")).is_err(),
        "number of messages"
    );
}

#[test]
fn patterns() {
    assert!(fits("250 ...", "250 2.1.0 Ok"));
    assert!(fits("250 2.1.0 Ok", "250 2.1.0 Ok"));
    assert!(fits("220 ...ESMTP...", "220 mail.example.com ESMTP OPES"));
    assert!(!fits("250 2.1.0 Ok", "250 2.1.0 Ok."));
    assert!(!fits("250 ... Ok", "250 2.1.0 Fine"));
    assert_eq!(
        codes("250 2.1.0 steve@example.org....Sender OK"),
        codes("250 2.1.0 Sender ok")
    );
    assert_ne!(codes("250 2.1.0 x"), codes("250 2.1.5 x"));
    assert_ne!(codes("250-x"), codes("250 x"));
}

#[test]
fn notation() {
    let script = parse("# c\nwhole\n\nC: a\nR: {3*ab}\\r\\x0a\nS: 250 long\n  line\nC:\n").unwrap();
    assert!(script.settings.whole);
    let kinds: Vec<_> = script.steps.into_iter().map(|step| step.kind).collect();
    assert_eq!(
        kinds,
        [
            StepKind::Send(b"a\r\nababab\r\n".to_vec()),
            StepKind::Expect("250 long line".to_owned()),
            StepKind::Send(b"\r\n".to_vec()),
        ]
    );
    for wrong in [
        "colour: red",
        "R: \\q",
        "R: {x",
        "R: {x*y}",
        "limits: size=x",
        "listener: uucp",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
