//! Checks of a single source file.

use crate::Finding;

/// Longest `main.rs`, in lines: arguments, wiring, signals.
pub const MAIN_LINES_MAX: usize = 60;

/// Spelt apart, so that this file passes its own check.
const REMINDERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const MACHINE_FOLDERS: [&str; 4] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/tmp/", "opes/"),
];

/// A reminder must name who will see to it: `(name)` directly after the word.
pub fn ownerless_reminders(path: &str, text: &str) -> Vec<Finding> {
    let ownerless = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| {
            !is_word_char_before(line, at) && {
                let rest = &line[at + word.len()..];
                !rest.starts_with(is_word_char) && !names_owner(rest)
            }
        })
    };
    lines_where(path, text, |line| {
        REMINDERS
            .into_iter()
            .find(|word| ownerless(line, word))
            .map(|word| format!("{word} without an owner; do it, or write {word}(name)"))
    })
}

fn names_owner(rest: &str) -> bool {
    rest.strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .is_some_and(|(name, _)| !name.is_empty())
}

/// Paths of the machine that somebody happened to work on.
pub fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    lines_where(path, text, |line| {
        MACHINE_FOLDERS.into_iter().find_map(|folder| {
            let absolute = |(at, _): (usize, &str)| {
                !line[..at].ends_with(|c: char| is_word_char(c) || "}.)*".contains(c))
            };
            line.match_indices(folder).any(absolute).then(|| {
                format!("{folder}… exists on one machine only; make it relative or configurable")
            })
        })
    })
}

/// The file says what it is: its first line is `//!`.
pub fn module_doc(path: &str, text: &str) -> Vec<Finding> {
    if text.starts_with("//!") {
        return Vec::new();
    }
    vec![Finding::at(
        path,
        0,
        "starts without `//!`; say what it is, what it owns, how it fails",
    )]
}

/// `main.rs` is wiring.
pub fn long_main(path: &str, text: &str) -> Vec<Finding> {
    let lines = text.lines().count();
    if lines < MAIN_LINES_MAX {
        return Vec::new();
    }
    let message =
        format!("{lines} lines; under {MAIN_LINES_MAX}, the rest belongs into the library");
    vec![Finding::at(path, lines - 1, message)]
}

/// SMTP reply codes, as RFC 5321 §4.2.3 and its extensions have them.
const REPLY_CODES: &[&str] = &[
    "211", "214", "220", "221", "235", "250", "251", "252", "334", "354", "421", "450", "451",
    "452", "454", "455", "500", "501", "502", "503", "504", "521", "530", "534", "535", "538",
    "550", "551", "552", "553", "554", "555", "556",
];

/// Reply codes are values with a name (`Reply::…`), not numbers or strings in the code; comments may name them.
pub fn reply_literals(path: &str, text: &str) -> Vec<Finding> {
    let production = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or(text);
    lines_where(path, production, |line| {
        let code = line.split("//").next().unwrap_or(line);
        literals(code)
            .find(|literal| REPLY_CODES.contains(literal))
            .map(|literal| {
                format!("reply code {literal} outside reply.rs; name the situation there")
            })
    })
}

/// Runs of digits that stand alone: no part of a name, of a longer number or of a range's other end.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(is_word_char(c) || c == '.'))
        .filter(|word| word.bytes().all(|b| b.is_ascii_digit()))
}

fn lines_where(path: &str, text: &str, check: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| Some(Finding::at(path, index, check(line)?)))
        .collect()
}

fn is_word_char(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn is_word_char_before(line: &str, at: usize) -> bool {
    line[..at].ends_with(is_word_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_need_an_owner() {
        let [word, other] = REMINDERS;
        assert_eq!(
            ownerless_reminders("a.rs", &format!("x\n// {word}: later")).len(),
            1
        );
        assert_eq!(
            ownerless_reminders("a.rs", &format!("// {other} later\n{word}()")).len(),
            2
        );
        assert!(
            ownerless_reminders(
                "a.rs",
                &format!("// {word}(ann): by May\n{word}S METHOD_{word}")
            )
            .is_empty()
        );
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for folder in MACHINE_FOLDERS {
            let found = machine_paths("a.md", &format!("ok\nrun `{folder}x`"));
            assert_eq!(found[0].place, "a.md:2");
            assert!(machine_paths("a.md", &format!("docs{folder}x ${{dir}}{folder}x")).is_empty());
        }
    }

    #[test]
    fn files_say_what_they_are() {
        assert!(module_doc("a.rs", "//! A.").is_empty());
        assert_eq!(module_doc("a.rs", "use a;\n//! A.").len(), 1);
    }

    #[test]
    fn main_is_short() {
        assert!(long_main("main.rs", &"x\n".repeat(59)).is_empty());
        assert_eq!(long_main("main.rs", &"x\n".repeat(60)).len(), 1);
    }

    #[test]
    fn reply_codes_are_found_in_code_only() {
        let found = |code: &str| reply_literals("a.rs", code).len();
        assert_eq!(found("reply(550, 1)"), 1);
        assert_eq!(found("b\"250 ok\""), 1);
        for fine in [
            "// answers 550",
            "const A: u8 = 1; // 250",
            "RFC5321_550",
            "1250",
            "2.50",
            "x.250ms",
            "512",
        ] {
            assert_eq!(found(fine), 0, "{fine}");
        }
        assert_eq!(found("#[cfg(test)]\nmod tests {\n    550"), 0);
    }
}
