//! An LDAP filter (RFC 4515) with places for values.

use super::{TEMPLATE_OCTETS_MAX, check_name};

/// Filters in filters.
const DEPTH_MAX: usize = 16;

/// `(&(objectClass=inetLocalMailRecipient)(mailLocalAddress=%s))`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterTemplate {
    pieces: Vec<Piece>,
    names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Index into the names.
    Value(usize),
}

// === impl FilterTemplate ===

impl FilterTemplate {
    /// Checks `text`. Places are `%s`, `%u`, `%d` and `%{name}`; `%%` is a per cent sign. `known`: the names there are.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        if text.len() > TEMPLATE_OCTETS_MAX {
            return Err(format!("longer than {TEMPLATE_OCTETS_MAX} octets"));
        }
        let mut parser = Parser {
            rest: text.trim(),
            known,
            done: Self {
                pieces: Vec::new(),
                names: Vec::new(),
            },
            text: String::new(),
        };
        parser.filter(0)?;
        if !parser.rest.is_empty() {
            return Err(format!("`{}` follows after the filter", parser.rest));
        }
        parser.flush();
        Ok(parser.done)
    }

    /// Names of the places, each once.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The filter that asks for `values`, one for each of [`names`](Self::names).
    pub fn fill(&self, values: &[String]) -> String {
        let mut filter = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filter.push_str(text),
                Piece::Value(index) => {
                    escape(values.get(*index).map_or("", String::as_str), &mut filter);
                }
            }
        }
        filter
    }
}

/// More than RFC 4515 §3 asks for: only what means nothing anywhere in a filter stays as it is.
fn escape(value: &str, filter: &mut String) {
    for octet in value.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'@' | b'.' | b'-' | b'_' | b'+' => {
                filter.push(char::from(octet));
            }
            _ => filter.push_str(&format!("\\{octet:02x}")),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    known: &'a [&'a str],
    done: FilterTemplate,
    /// Not yet among the pieces.
    text: String,
}

// === impl Parser ===

impl Parser<'_> {
    fn filter(&mut self, depth: usize) -> Result<(), String> {
        if depth == DEPTH_MAX {
            return Err(format!("deeper than {DEPTH_MAX} filters in filters"));
        }
        self.expect('(')?;
        match self.rest.chars().next() {
            Some(sign @ ('&' | '|')) => {
                self.expect(sign)?;
                while self.rest.starts_with('(') {
                    self.filter(depth + 1)?;
                }
            }
            Some('!') => {
                self.expect('!')?;
                self.filter(depth + 1)?;
            }
            _ => self.item()?,
        }
        self.expect(')')
    }

    fn item(&mut self) -> Result<(), String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ';' | ':');
        let end = self
            .rest
            .find(|c: char| !is_name(c))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let operator = ["=", "~=", ">=", "<="]
            .into_iter()
            .find(|operator| rest.starts_with(operator));
        let (Some(operator), false) = (operator, name.is_empty()) else {
            return Err(format!(
                "`{}`: expected attribute=value; places such as %s stand for values only",
                self.rest
            ));
        };
        self.text.push_str(name);
        self.text.push_str(operator);
        self.rest = rest.get(operator.len()..).unwrap_or_default();
        self.value()
    }

    fn value(&mut self) -> Result<(), String> {
        while let Some(next) = self.rest.chars().next() {
            match next {
                ')' => return Ok(()),
                '(' | '\0' => return Err(format!("`{}`: write \\28 for a parenthesis", self.rest)),
                '\\' => self.escaped()?,
                '%' => self.place()?,
                other => self.expect(other)?,
            }
        }
        Ok(())
    }

    fn escaped(&mut self) -> Result<(), String> {
        let escape = self.rest.get(..3).unwrap_or_default();
        let digits = escape.get(1..).unwrap_or_default();
        if digits.len() != 2 || !digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(format!(
                "`{}`: a backslash is followed by two hexadecimal digits (RFC 4515 §3)",
                self.rest
            ));
        }
        self.text.push_str(escape);
        self.rest = self.rest.get(3..).unwrap_or_default();
        Ok(())
    }

    fn place(&mut self) -> Result<(), String> {
        let rest = self.rest.get(1..).unwrap_or_default();
        if let Some(rest) = rest.strip_prefix('%') {
            self.text.push('%');
            self.rest = rest;
            return Ok(());
        }
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let (name, rest) = match (braced, rest.get(..1)) {
            (Some(braced), _) => braced,
            (None, Some(letter)) => (letter, rest.get(1..).unwrap_or_default()),
            (None, None) => ("", rest),
        };
        check_name(name, self.known, "%")?;
        self.flush();
        let names = &mut self.done.names;
        let index = names.iter().position(|known| known == name);
        let index = index.unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        self.done.pieces.push(Piece::Value(index));
        self.rest = rest;
        Ok(())
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        let Some(rest) = self.rest.strip_prefix(wanted) else {
            let found = if self.rest.is_empty() {
                "the end".to_owned()
            } else {
                format!("`{}`", self.rest)
            };
            return Err(format!("expected `{wanted}` in place of {found}"));
        };
        self.text.push(wanted);
        self.rest = rest;
        Ok(())
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.done.pieces.push(Piece::Text(text));
        }
    }
}

#[cfg(test)]
mod tests;
