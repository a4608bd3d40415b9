//! An SQL statement with places for values.

use super::{TEMPLATE_OCTETS_MAX, check_name};

/// `SELECT verdict FROM access WHERE address = :s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryTemplate {
    /// With `$1` for the first of the names.
    sql: String,
    names: Vec<String>,
}

// === impl QueryTemplate ===

impl QueryTemplate {
    /// Checks `text`: one `SELECT` (or `WITH … SELECT`). Places are `:name`; texts, quoted names, comments and `::type` are left
    /// alone. `known`: the names there are.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, String> {
        if text.len() > TEMPLATE_OCTETS_MAX {
            return Err(format!("longer than {TEMPLATE_OCTETS_MAX} octets"));
        }
        let text = text.trim().trim_end_matches(';');
        let first = text.split_whitespace().next().unwrap_or_default();
        if !["select", "with"].contains(&first.to_ascii_lowercase().as_str()) {
            return Err("write one SELECT statement".to_owned());
        }
        let mut query = Self {
            sql: String::with_capacity(text.len()),
            names: Vec::new(),
        };
        let mut rest = text;
        while !rest.is_empty() {
            rest = query.piece(rest, known)?;
        }
        Ok(query)
    }

    /// Names of the places, each once; the first is `$1`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The statement with numbered parameters.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Takes over the next piece; returns what is behind it.
    fn piece<'a>(&mut self, rest: &'a str, known: &[&str]) -> Result<&'a str, String> {
        for (open, close) in [("'", "'"), ("\"", "\""), ("--", "\n"), ("/*", "*/")] {
            if let Some(inner) = rest.strip_prefix(open) {
                let end = inner.find(close).map(|at| open.len() + at + close.len());
                let end = match (end, open) {
                    (Some(end), _) => end,
                    (None, "--") => rest.len(),
                    (None, _) => return Err(format!("`{open}` is not closed")),
                };
                return Ok(self.take(rest, end));
            }
        }
        if rest.starts_with("::") {
            return Ok(self.take(rest, 2));
        }
        if rest.starts_with(['$', '?', ';']) {
            return Err(format!(
                "`{}`: write :name for a place; one statement only",
                rest.chars().take(20).collect::<String>()
            ));
        }
        let Some(named) = rest.strip_prefix(':') else {
            let next = rest.find([':', '\'', '"', '-', '/', '$', '?', ';']);
            // At least one character, as a minus that begins no comment.
            let one = rest.chars().next().map_or(0, char::len_utf8);
            return Ok(self.take(rest, next.unwrap_or(rest.len()).max(one)));
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = named.find(|c: char| !is_name(c)).unwrap_or(named.len());
        let (name, behind) = named.split_at(end);
        check_name(name, known, ":")?;
        let index = self.names.iter().position(|known| known == name);
        let index = index.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        self.sql.push_str(&format!("${}", index + 1));
        Ok(behind)
    }

    fn take<'a>(&mut self, rest: &'a str, octets: usize) -> &'a str {
        let (piece, behind) = rest.split_at_checked(octets).unwrap_or((rest, ""));
        self.sql.push_str(piece);
        behind
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["s", "u", "d", "client"];

    fn sql(text: &str) -> String {
        QueryTemplate::parse(text, KNOWN).unwrap().sql().to_owned()
    }

    #[test]
    fn places_become_parameters_and_nothing_else_does() {
        let query = QueryTemplate::parse(
            "SELECT verdict FROM access WHERE address = :s OR domain=:d OR local=:s;",
            KNOWN,
        )
        .unwrap();
        assert_eq!(query.names(), ["s", "d"]);
        assert_eq!(
            query.sql(),
            "SELECT verdict FROM access WHERE address = $1 OR domain=$2 OR local=$1"
        );
        assert_eq!(
            sql(
                "SELECT ':s', \":d\" /* :u */ - 1 -- :s\n FROM t WHERE net >> :client::inet AND a='it''s :s'"
            ),
            "SELECT ':s', \":d\" /* :u */ - 1 -- :s\n FROM t WHERE net >> $1::inet AND a='it''s :s'"
        );
        assert_eq!(
            sql("with x as (select 1) select 2 -- end"),
            "with x as (select 1) select 2 -- end"
        );
    }

    #[test]
    fn what_is_no_query_is_refused() {
        for (text, said) in [
            ("", "one SELECT"),
            ("DELETE FROM access", "one SELECT"),
            ("SELECT 1; DELETE FROM access", "one statement only"),
            ("SELECT * FROM t WHERE a = ?", "write :name"),
            ("SELECT * FROM t WHERE a = $1", "write :name"),
            ("SELECT 'a", "`'` is not closed"),
            ("SELECT /* a", "`/*` is not closed"),
            (
                "SELECT :x",
                "there is no `:x`; there are :s, :u, :d, :client",
            ),
        ] {
            let error = QueryTemplate::parse(text, KNOWN).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "SELECT [\\PC:'\"/*$;\\n-]{0,80}") {
            if let Ok(query) = QueryTemplate::parse(&text, KNOWN) {
                prop_assert!(query.names().len() <= KNOWN.len());
            }
        }
    }
}
