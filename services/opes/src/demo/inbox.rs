//! What a recipient of the demonstration finds in the Maildir.

use std::path::{Path, PathBuf};

use opes_edge::report::MessageReport;

/// A line for each recipient of the queued message.
pub(crate) fn received(maildir: Option<&Path>, reports: &[MessageReport]) -> Vec<String> {
    let Some(maildir) = maildir else {
        return Vec::new();
    };
    let queued: Vec<&str> = reports.iter().flat_map(MessageReport::queue_ids).collect();
    if queued.is_empty() {
        return vec!["nothing".into()];
    }
    let found = queued.iter().flat_map(|id| find(maildir, id));
    found.map(|path| describe(maildir, &path)).collect()
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
    let shown = ["X-Opes-Security:", "X-Spam-Status:"];
    let mut marks: String = shown
        .into_iter()
        .filter_map(|name| field(name).map(|mark| format!(", {name} {mark}")))
        .collect();
    if field("DKIM-Signature:").is_some() {
        marks.push_str(", signed");
    }
    if let Some(link) = text.lines().find(|line| line.contains("http://127.0.0.1")) {
        marks.push_str(&format!(
            ", link: {}…",
            link.trim().chars().take(40).collect::<String>()
        ));
    }
    format!(
        "{mailbox}: \"{}\", {} octets{attachments}{marks}",
        field("Subject:").unwrap_or_default(),
        octets.len()
    )
}
