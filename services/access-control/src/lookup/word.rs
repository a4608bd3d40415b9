//! The word that decides, as Postfix's access(5) has them: `OK`, `DUNNO`, `REJECT [text]`, `450 4.7.1 text`, `550 text`.

use opes_directory::Answer;

use crate::verdict::ReplyText;

/// What a directory says to a rule with `action: lookup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `OK`: allowed, no later rule is looked at.
    Ok,
    /// `DUNNO`, or nothing known: the next rule.
    Dunno,
    /// `REJECT`, with a text or without, or a reply: refused.
    Refuse(Option<ReplyText>),
}

/// What is no such word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{directory}: {entry}: {reason}; it must be OK, DUNNO, REJECT, or a reply such as 550 5.7.1 text"
)]
pub struct WordError {
    /// Name of the look-up.
    pub directory: String,
    /// Name of the entry.
    pub entry: String,
    /// What is wrong with it. Not the value: it may be anything.
    pub reason: String,
}

// === impl Word ===

impl Word {
    /// From the attribute or column `name` of what `directory` knows.
    pub fn read(directory: &str, name: &str, answer: &Answer) -> Result<Self, WordError> {
        let Some(entry) = answer.entries.first() else {
            return Ok(Self::Dunno);
        };
        let wrong = |reason: String| WordError {
            directory: directory.to_owned(),
            entry: entry.name.clone(),
            reason,
        };
        if answer.entries.len() > 1 {
            return Err(wrong(format!("{} entries", answer.entries.len())));
        }
        match entry.values(name) {
            [word] => Self::parse(word).map_err(|reason| wrong(format!("`{name}`: {reason}"))),
            values => Err(wrong(format!("{} values of `{name}`", values.len()))),
        }
    }

    fn parse(value: &str) -> Result<Self, String> {
        let value = value.trim();
        let (word, text) = value.split_once(char::is_whitespace).unwrap_or((value, ""));
        let text = text.trim();
        match (word.to_ascii_uppercase().as_str(), text.is_empty()) {
            ("OK", true) => Ok(Self::Ok),
            ("DUNNO", true) => Ok(Self::Dunno),
            ("REJECT", true) => Ok(Self::Refuse(None)),
            ("REJECT", false) => ReplyText::new(None, None, text).map(Some).map(Self::Refuse),
            _ => Self::reply(word, text),
        }
    }

    fn reply(word: &str, text: &str) -> Result<Self, String> {
        let digits = word.len() == 3 && word.bytes().all(|octet| octet.is_ascii_digit());
        let Some(code) = digits.then(|| word.parse().ok()).flatten() else {
            return Err("no word that decides".to_owned());
        };
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let is_enhanced =
            first.contains('.') && first.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let (enhanced, text) = if is_enhanced {
            (Some(first.to_owned()), rest.trim())
        } else {
            (None, text)
        };
        ReplyText::new(Some(code), enhanced, text)
            .map(Some)
            .map(Self::Refuse)
    }
}

#[cfg(test)]
mod tests {
    use opes_directory::Entry;
    use proptest::prelude::*;

    use super::*;

    fn word(value: &str) -> Result<Word, String> {
        let entries = vec![Entry::new("row 1").with("verdict", [value.to_owned()])];
        Word::read("access", "Verdict", &Answer { entries }).map_err(|error| error.to_string())
    }

    fn reply(code: u16, enhanced: Option<&str>, text: &str) -> Word {
        let enhanced = enhanced.map(str::to_owned);
        Word::Refuse(Some(ReplyText::new(Some(code), enhanced, text).unwrap()))
    }

    #[test]
    fn words_and_replies() {
        assert_eq!(word(" ok "), Ok(Word::Ok));
        assert_eq!(word("dunno"), Ok(Word::Dunno));
        assert_eq!(word("REJECT"), Ok(Word::Refuse(None)));
        assert_eq!(word("reject go away"), Ok(reply(550, None, "go away")));
        assert_eq!(word("450 come again"), Ok(reply(450, None, "come again")));
        assert_eq!(
            word("554 5.7.13 disabled"),
            Ok(reply(554, Some("5.7.13"), "disabled"))
        );
        assert_eq!(
            word("550 5 is too many"),
            Ok(reply(550, None, "5 is too many"))
        );
        let nobody = Word::read("access", "verdict", &Answer::default());
        assert_eq!(nobody, Ok(Word::Dunno));
    }

    #[test]
    fn what_decides_nothing_is_an_error_that_does_not_repeat_it() {
        for value in [
            "",
            "OK now",
            "PERMIT",
            "250 fine",
            "550",
            "550 5.7.1",
            "450 5.7.1 x",
            "99 x",
            "+50 x",
            "5500 x",
            "550 zwei\nZeilen",
            "REJECT caf\u{e9}",
            "{SSHA}secret",
        ] {
            let error = word(value).unwrap_err();
            assert!(error.starts_with("access: row 1: `Verdict`: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let twice = vec![Entry::new("row 1"), Entry::new("row 2")];
        let error = Word::read("access", "verdict", &Answer { entries: twice });
        assert!(error.unwrap_err().to_string().contains("2 entries"));
        let none = Answer {
            entries: vec![Entry::new("row 1")],
        };
        let error = Word::read("access", "verdict", &none).unwrap_err();
        assert!(error.to_string().contains("0 values of `verdict`"));
    }

    proptest! {
        #[test]
        fn any_value_is_a_word_or_an_error(value in "\\PC{0,80}|[45][0-9]{2} [0-9.]{0,9} ?[ -~\\r\\n]{0,600}") {
            if let Ok(Word::Refuse(Some(reply))) = word(&value) {
                prop_assert!((400..600).contains(&reply.code()));
                prop_assert!(reply.text().bytes().all(|octet| (b' '..=b'~').contains(&octet)));
                prop_assert!(!reply.text().is_empty() && reply.text().len() <= 480);
            }
        }
    }
}
