//! A table as it came → one that can be run, or what is wrong with it, object by object.

use opes_proto::routing::{Fault, Table};
use opes_rules::parse::object_from_json;
use opes_rules::{Diagnostic, RoutingTable};

/// Faults said of one table at most.
pub const FAULTS_MAX: usize = 100;

/// Longest text of a fault, in octets.
const FAULT_OCTETS_MAX: usize = 2_000;

/// Objects in one table at most; the compiler has the same bound, after everything was read.
const OBJECTS_MAX: usize = 10_000;

/// Between kind and name in what diagnostics call an object. No kind has it.
const SEPARATOR: char = ' ';

/// As much of an object as its name takes.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Head {
    kind: String,
    metadata: Metadata,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
}

/// Reads and compiles the objects, and computes the revision from them. Another one than the table says is a fault of the table.
pub fn read(table: &Table) -> Result<RoutingTable, Vec<Fault>> {
    let count = table.objects.len();
    if count > OBJECTS_MAX {
        let message = format!("{count} objects are more than the {OBJECTS_MAX} allowed");
        return Err(vec![of_the_table(message)]);
    }
    let mut objects = Vec::with_capacity(count);
    let mut wrong = Vec::new();
    for text in &table.objects {
        // Not the reader of YAML, which finds the same and takes ten times as long.
        match object_from_json(&title(text), text) {
            Ok(object) => objects.push(object),
            Err(diagnostics) => wrong.extend(diagnostics),
        }
    }
    let wrong = faults(&wrong);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let compiled = opes_rules::compile(objects).map_err(|wrong| faults(&wrong))?;
    if compiled.revision == table.revision {
        return Ok(compiled);
    }
    let message = format!(
        "revision differs: these objects make {}, and the operator says {}; are both of the same version?",
        compiled.revision, table.revision
    );
    Err(vec![of_the_table(message)])
}

/// A fault that is no object's.
pub(crate) fn of_the_table(message: impl Into<String>) -> Fault {
    Fault {
        message: cut(message.into()),
        ..Fault::default()
    }
}

/// What diagnostics call the object: kind and name, as far as they can be read.
fn title(text: &str) -> String {
    let Head { kind, metadata } = serde_json::from_str(text).unwrap_or_default();
    if kind.is_empty() && metadata.name.is_empty() {
        return String::new();
    }
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    format!("{kind}{SEPARATOR}{namespace}/{}", metadata.name)
}

fn faults(wrong: &[Diagnostic]) -> Vec<Fault> {
    let errors = wrong.iter().filter(|diagnostic| diagnostic.is_error());
    errors.take(FAULTS_MAX).map(fault).collect()
}

fn fault(diagnostic: &Diagnostic) -> Fault {
    let (kind, name) = diagnostic.source.split_once(SEPARATOR).unwrap_or_default();
    let mut message = diagnostic.field.clone();
    if !message.is_empty() {
        message.push_str(": ");
    }
    message.push_str(&diagnostic.message);
    if !diagnostic.remedy.is_empty() {
        message.push_str("; ");
        message.push_str(&diagnostic.remedy);
    }
    Fault {
        kind: cut(kind.to_owned()),
        name: cut(name.to_owned()),
        message: cut(message),
    }
}

fn cut(mut text: String) -> String {
    let end = text.floor_char_boundary(FAULT_OCTETS_MAX);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = r#"{"apiVersion":"opes.dev/v1alpha1","kind":"CalloutService","metadata":{"name":"scan","namespace":"mail"},"spec":{"class":"analyze","endpoint":"http://127.0.0.1:9000"}}"#;
    const RULE: &str = r#"{"apiVersion":"opes.dev/v1alpha1","kind":"OpesRule","metadata":{"name":"scan","namespace":"mail"},"spec":{"at":["content"],"callout":{"serviceRef":{"name":"scan"}}}}"#;

    /// With the revision that the objects have, if they have one.
    fn table(objects: &[&str]) -> Table {
        let parsed = objects
            .iter()
            .flat_map(|text| opes_rules::parse("", text).0);
        let revision = opes_rules::compile(parsed.collect()).map(|table| table.revision);
        Table {
            revision: revision.unwrap_or_default(),
            objects: objects.iter().map(|&text| text.to_owned()).collect(),
            endpoints: None,
        }
    }

    fn wrong(objects: Vec<String>) -> Vec<Fault> {
        let table = Table {
            objects,
            ..Table::default()
        };
        read(&table).unwrap_err()
    }

    #[test]
    fn what_the_operator_compiled_is_the_same_here() {
        let compiled = read(&table(&[SERVICE, RULE])).unwrap();
        assert_eq!((compiled.rules.len(), compiled.services.len()), (1, 1));
        assert!(
            read(&table(&[])).unwrap().rules.is_empty(),
            "no rules are a table"
        );
    }

    #[test]
    fn a_revision_that_differs_is_the_tables_fault() {
        let faults = read(&Table {
            revision: "0123456789abcdef".into(),
            ..table(&[SERVICE, RULE])
        });
        let faults = faults.unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].kind.is_empty() && faults[0].message.starts_with("revision differs"));
    }

    #[test]
    fn faults_name_the_object_and_the_field() {
        let broken = RULE.replace("\"at\"", "\"att\"");
        let faults = wrong(vec![SERVICE.into(), broken]);
        let named = |fault: &Fault| {
            fault.kind == "OpesRule" && fault.name == "mail/scan" && fault.message.contains("att")
        };
        assert!(faults.iter().any(named), "{faults:?}");
        // That nobody serves it is found by the compiler.
        let faults = wrong(vec![RULE.into()]);
        assert_eq!(faults[0].name, "mail/scan", "{faults:?}");
    }

    #[test]
    fn garbage_is_refused_within_bounds() {
        assert_eq!(wrong(vec!["{\u{0}".into(); 500]).len(), FAULTS_MAX);
        let many = wrong(vec![String::new(); OBJECTS_MAX + 1]);
        assert!(many[0].message.contains("more than"));
        assert!(cut("ä".repeat(5_000)).len() <= FAULT_OCTETS_MAX);
    }
}
