//! What an edge adds to messages and refusals, so that tests can look at it or past it.

/// Fields that an edge puts before a message.
const FIELDS: [&str; 3] = ["Received", "OPES-Via", "OPES-System"];

/// The message without the fields that the edge put before it. What services put between them stays.
pub fn without_trace(content: &[u8]) -> &[u8] {
    FIELDS
        .into_iter()
        .fold(content, |rest, name| without_field(rest, name))
}

/// The mail data as services see it: with `OPES-System`, which is there before them, and without what comes on top in the end.
pub fn as_services_see_it(content: &[u8]) -> &[u8] {
    without_field(without_field(content, "Received"), "OPES-Via")
}

/// Without the first field, if it has this name.
fn without_field<'a>(content: &'a [u8], name: &str) -> &'a [u8] {
    if !content.starts_with(format!("{name}: ").as_bytes()) {
        return content;
    }
    let mut rest = content;
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        rest = &rest[end + 2..];
        if !rest.starts_with(b" ") && !rest.starts_with(b"\t") {
            break;
        }
    }
    rest
}

/// Unfolded bodies of the fields of this name, from the top.
pub fn fields(content: &[u8], name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    let header = text.split("\r\n\r\n").next().unwrap_or_default();
    let unfolded = header.replace("\r\n\t", " ").replace("\r\n ", " ");
    let prefix = format!("{name}: ").to_ascii_lowercase();
    let named = unfolded
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with(&prefix));
    named.map(|line| line[prefix.len()..].to_owned()).collect()
}

/// A line of a reply without the identity that the edge gives to refusals of rules.
pub fn without_identity(line: &str) -> &str {
    match line.rfind(" (https://mail.example.com/opes; id=") {
        Some(at) if line.ends_with(')') => &line[..at],
        _ => line,
    }
}
