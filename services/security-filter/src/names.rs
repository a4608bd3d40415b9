//! File names against patterns, the way a desktop would open them.
//!
//! Owns normalisation and a glob of `*` and `?` in linear time. Never fails.

/// One pattern such as `*.exe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    characters: Vec<char>,
}

impl Pattern {
    /// Case does not matter.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            characters: text.to_lowercase().chars().collect(),
        }
    }

    /// As configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Does any way to read `name` fit?
    pub fn matches(&self, name: &str) -> bool {
        self.fits(&Name::new(name))
    }

    /// The same, for a name that is held against many patterns.
    pub fn fits(&self, name: &Name) -> bool {
        name.0.iter().any(|reading| glob(&self.characters, reading))
    }
}

/// A name in every way that systems may read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(Vec<Vec<char>>);

impl Name {
    /// Of a file.
    pub fn new(name: &str) -> Self {
        Self(readings(name))
    }
}

/// Octets of a name in an archive that are looked at: such names can be long, many, and made of the same octets.
const NAME_OCTETS_MAX: usize = 256;

/// A name from an archive as text; of an overlong one its end, where its ending is, and its start, where a stream of NTFS would have it.
pub(crate) fn of_archive(name: &[u8]) -> impl Iterator<Item = String> + use<> {
    let is_dropped = |octet: &u8| octet.is_ascii_whitespace() || matches!(octet, b'.' | 0);
    let end = name
        .iter()
        .rposition(|octet| !is_dropped(octet))
        .map_or(0, |last| last + 1);
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let (whole, start) = if name.len() <= NAME_OCTETS_MAX {
        (name, None)
    } else {
        let tail = name.get(end.saturating_sub(NAME_OCTETS_MAX)..end);
        (tail.unwrap_or_default(), name.get(..NAME_OCTETS_MAX))
    };
    [Some(text(whole)), start.map(text)].into_iter().flatten()
}

/// A pattern for addresses: `*` and `?`, case does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<char>);

impl Glob {
    /// As written.
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase().chars().collect())
    }

    /// The whole text fits.
    pub fn matches(&self, text: &str) -> bool {
        glob(&self.0, &text.to_lowercase().chars().collect::<Vec<char>>())
    }
}

/// A name as systems reduce it: last path component, lower case, without invisible and direction-changing characters (they can
/// show `exe.pdf` for `fdp.exe`), without the dots and blanks at the end that Windows drops; with and without an NTFS stream.
fn readings(name: &str) -> Vec<Vec<char>> {
    let component = name
        .rsplit(['/', '\\'])
        .find(|part| !part.is_empty())
        .unwrap_or(name);
    let visible: String = component
        .chars()
        .filter(|character| !is_invisible(*character))
        .collect();
    let lower = visible.to_lowercase();
    let trimmed = |text: &str| {
        text.trim()
            .trim_end_matches(['.', ' ', '\u{a0}'])
            .chars()
            .collect::<Vec<_>>()
    };
    let mut readings = vec![trimmed(&lower)];
    if let Some((file, _stream)) = lower.split_once(':') {
        readings.push(trimmed(file));
    }
    readings
}

/// Controls, zero-width and bidirectional formatting characters, soft hyphen.
fn is_invisible(character: char) -> bool {
    let formatting = matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
    character.is_control()
        || formatting
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Greedy matching that goes back to the last `*` only: linear in practice, quadratic at worst. Most names fail by their end, at once.
fn glob(pattern: &[char], name: &[char]) -> bool {
    if let Some(star) = pattern.iter().rposition(|character| *character == '*') {
        let end = pattern.get(star + 1..).unwrap_or_default();
        let tail = name
            .len()
            .checked_sub(end.len())
            .and_then(|start| name.get(start..));
        let fits = |(wanted, found): (&char, &char)| *wanted == '?' || wanted == found;
        if !tail.is_some_and(|tail| end.iter().zip(tail).all(fits)) {
            return false;
        }
    }
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(character) = name.get(next) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, next));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == character => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((after_star, taken)) = star else {
                    return false;
                };
                star = Some((after_star, taken + 1));
                (at, next) = (after_star, taken + 1);
            }
        }
    }
    pattern
        .get(at..)
        .unwrap_or_default()
        .iter()
        .all(|character| *character == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_a_desktop_would_run() {
        let exe = Pattern::new("*.EXE");
        for name in [
            "a.exe",
            "A.ExE",
            "invoice.pdf.exe",
            "invoice.pdf                    .exe",
            "a.exe.",
            "a.exe . ",
            "C:\\x\\a.exe",
            "../a.exe",
            "a.exe/",
            "a.exe::$DATA",
            "a.exe:stream",
            "annex\u{202e}fdp.exe",
            "a.e\u{200b}xe",
            "a.exe\u{a0}",
            "a.exe\0",
        ] {
            assert!(exe.matches(name), "{name:?}");
        }
        for name in ["a.pdf", "exe", "a.exe.txt", "", "aexe", "a.exé"] {
            assert!(!exe.matches(name), "{name:?}");
        }
    }

    #[test]
    fn long_names_are_cut_but_not_where_it_matters() {
        let exe = Pattern::new("*.exe");
        let long = "x".repeat(2000);
        for name in [
            format!("{long}.exe"),
            format!("evil.exe{}", " ".repeat(2000)),
            format!("evil.exe:{long}"),
            "evil.exe".to_owned(),
        ] {
            let read: Vec<_> = of_archive(name.as_bytes()).collect();
            assert!(read.iter().all(|name| name.len() <= NAME_OCTETS_MAX));
            assert!(read.iter().any(|name| exe.matches(name)), "{name}");
        }
        assert_eq!(of_archive(b"").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn globs() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("a*b*c", "aXbXbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("inv*.p??", "invoice.pdf", true),
            ("**.x", "a.x", true),
            ("x", "", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(name),
                fits,
                "{pattern} {name}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_name_fits_itself_and_never_panics(name in "[a-z.]{1,20}[a-z]", pattern in "\\PC{0,20}", other in "\\PC{0,30}") {
            prop_assert!(Pattern::new(&name).matches(&name));
            let (longer, star) = (format!("x{name}"), format!("*{name}"));
            prop_assert!(Pattern::new(&star).matches(&longer));
            Pattern::new(&pattern).matches(&other);
        }
    }
}
