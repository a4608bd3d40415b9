//! What a recipient of the demonstration finds in the Maildir.

use std::path::{Path, PathBuf};

use opes_edge::report::{MessageOutcome, MessageReport};

/// A line for each recipient of the queued message.
pub(crate) fn received(maildir: Option<&Path>, reports: &[MessageReport]) -> Vec<String> {
    let Some(maildir) = maildir else {
        return Vec::new();
    };
    let queued = reports.iter().find_map(|report| match &report.outcome {
        MessageOutcome::Queued(id) => Some(id),
        _ => None,
    });
    match queued {
        Some(id) => find(maildir, id)
            .iter()
            .map(|path| describe(maildir, path))
            .collect(),
        None => vec!["nothing".into()],
    }
}

fn find(folder: &Path, id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(find(&path, id));
        } else if entry.file_name().to_string_lossy().contains(id) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// `mailbox: subject; attachments; marks`.
fn describe(maildir: &Path, path: &Path) -> String {
    let octets = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&octets);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let mailbox = path
        .parent()
        .and_then(Path::parent)
        .and_then(|folder| folder.strip_prefix(maildir).ok());
    let mailbox = mailbox
        .map(|mailbox| mailbox.display().to_string())
        .unwrap_or_default();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split("filename=\"").nth(1)?.split('"').next())
        .collect();
    let attachments = if names.is_empty() {
        String::new()
    } else {
        format!(", attached: {}", names.join(", "))
    };
    let marks = field("X-Opes-Security:")
        .map(|mark| format!(", X-Opes-Security: {mark}"))
        .unwrap_or_default();
    format!(
        "{mailbox}: \"{}\", {} octets{attachments}{marks}",
        field("Subject:").unwrap_or_default(),
        octets.len()
    )
}
