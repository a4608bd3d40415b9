//! Bounds before, while and after parsing.
//!
//! The parser is recursive: what can overflow a stack has to be refused by looking at octets alone.
//! The scan below reads string literals as CEL does and refuses what CEL would not read the same
//! way, so that no bracket hides from it. What passes is parsed on a thread of its own: the parser
//! was measured to take 200 KiB of stack for each level of brackets in a debug build, more than the
//! 2 MiB of an ordinary thread can bear.

use super::ConditionError;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// Longest expression in octets.
pub const SOURCE_OCTETS_MAX: usize = 4096;
/// Deepest nesting of brackets.
const BRACKETS_MAX: usize = 16;
/// Deepest nesting of the parsed expression.
const DEPTH_MAX: usize = 32;
/// Stack of the parsing thread: four times what [`BRACKETS_MAX`] levels were measured to need.
const PARSER_STACK_OCTETS: usize = 16 << 20;
/// Most nodes of the parsed expression.
const NODES_MAX: usize = 200;
/// Most prefix operators (`!`, `-`) in a row.
const PREFIX_RUN_MAX: usize = 8;
/// Most `?`; each one nests.
const CONDITIONALS_MAX: usize = 16;
/// Most dots outside strings; each one can nest a selection.
const SELECTIONS_MAX: usize = 200;
/// Recursion that the parser itself is given.
const PARSER_RECURSION_MAX: u16 = 48;

#[derive(Default)]
struct Counts {
    depth: usize,
    prefix_run: usize,
    conditionals: usize,
    selections: usize,
}

/// Bounds an expression by its octets, before the parser sees it.
pub(super) fn check_source(source: &str) -> Result<(), ConditionError> {
    if source.len() > SOURCE_OCTETS_MAX {
        let octets = source.len();
        return Err(ConditionError::new(
            format!("the expression has {octets} octets, more than {SOURCE_OCTETS_MAX}"),
            "split the rule, or use the structured match fields",
        ));
    }
    if source.trim().is_empty() {
        return Err(ConditionError::new(
            "the expression is empty",
            "remove the field",
        ));
    }
    let mut counts = Counts::default();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let consumed = match c {
            '"' | '\'' => literal(source, rest)?,
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ => {
                counts.see(c)?;
                c.len_utf8()
            }
        };
        rest = rest.get(consumed..).unwrap_or_default();
    }
    Ok(())
}

/// Parses with every macro left as the call it is written as.
pub(super) fn parse(source: &str) -> Result<IdedExpr, ConditionError> {
    let failed = |_| ConditionError::new("no thread to parse the expression on", "try again");
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_OCTETS);
        let parsing = thread
            .spawn_scoped(scope, || parse_here(source))
            .map_err(failed)?;
        let broken = |_| ConditionError::new("not an expression that can be parsed", "");
        parsing.join().map_err(broken)?
    })
}

fn parse_here(source: &str) -> Result<IdedExpr, ConditionError> {
    let parser = cel::Env::default()
        .parser()
        .enable_optional_syntax(false)
        .max_recursion_depth(PARSER_RECURSION_MAX)
        .error_recovery_limit(1);
    parser.parse(source).map_err(|errors| {
        let Some(first) = errors.errors.first() else {
            return ConditionError::new("not a CEL expression", "");
        };
        let said = first.msg.lines().next().unwrap_or_default();
        let (line, column) = first.pos;
        ConditionError::new(
            format!("not a CEL expression: {said} (at {line}:{column})"),
            "",
        )
    })
}

/// Bounds the parsed expression.
pub(super) fn check_tree(root: &IdedExpr) -> Result<(), ConditionError> {
    let mut nodes = 0;
    let mut pending = vec![(root, 1)];
    while let Some((node, depth)) = pending.pop() {
        nodes += 1;
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        if nodes > NODES_MAX {
            return Err(ConditionError::new(
                format!("the expression has more than {NODES_MAX} operations and values"),
                "split the rule, or use the structured match fields",
            ));
        }
        for_each_child(&node.expr, |child| pending.push((child, depth + 1)));
    }
    Ok(())
}

fn too_deep() -> ConditionError {
    ConditionError::new(
        format!("the expression nests too deeply (brackets {BRACKETS_MAX}, in all {DEPTH_MAX})"),
        "split the rule, or use lists with `in`",
    )
}

fn for_each_child<'e>(expr: &'e Expr, mut visit: impl FnMut(&'e IdedExpr)) {
    match expr {
        Expr::Call(call) => call
            .target
            .iter()
            .map(AsRef::as_ref)
            .chain(&call.args)
            .for_each(visit),
        Expr::Select(select) => visit(&select.operand),
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Map(map) => {
            for entry in &map.entries {
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    visit(&entry.key);
                    visit(&entry.value);
                }
            }
        }
        Expr::Struct(object) => {
            for entry in &object.entries {
                if let EntryExpr::StructField(field) = &entry.expr {
                    visit(&field.value);
                }
            }
        }
        Expr::Comprehension(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

// === impl Counts ===

impl Counts {
    fn see(&mut self, c: char) -> Result<(), ConditionError> {
        match c {
            '(' | '[' | '{' => self.depth += 1,
            ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
            '?' => self.conditionals += 1,
            '.' => self.selections += 1,
            _ => {}
        }
        match c {
            '!' | '-' => self.prefix_run += 1,
            c if c.is_whitespace() => {}
            _ => self.prefix_run = 0,
        }
        self.within_bounds()
    }

    fn within_bounds(&self) -> Result<(), ConditionError> {
        if self.depth > BRACKETS_MAX || self.selections > SELECTIONS_MAX {
            return Err(too_deep());
        }
        if self.prefix_run > PREFIX_RUN_MAX {
            return Err(ConditionError::new(
                format!("more than {PREFIX_RUN_MAX} `!` or `-` in a row"),
                "write the value itself",
            ));
        }
        if self.conditionals > CONDITIONALS_MAX {
            return Err(ConditionError::new(
                format!("more than {CONDITIONALS_MAX} `?`"),
                "write one rule for each case",
            ));
        }
        Ok(())
    }
}

/// Octets of the string literal that `rest` starts with.
fn literal(source: &str, rest: &str) -> Result<usize, ConditionError> {
    let quote = rest.get(..1).unwrap_or_default();
    let triple = quote.repeat(3);
    let (mark, multiline) = if rest.starts_with(&triple) {
        (triple.as_str(), true)
    } else {
        (quote, false)
    };
    let before = source.len() - rest.len();
    let raw = source.get(..before).is_some_and(is_raw_prefix);
    let mut at = mark.len();
    loop {
        let tail = rest.get(at..).unwrap_or_default();
        if tail.starts_with(mark) {
            return Ok(at + mark.len());
        }
        at += match tail.chars().next() {
            None => return Err(unclosed(before)),
            Some('\n' | '\r') if !multiline => return Err(unclosed(before)),
            Some('\\') if !raw => escape(tail, before + at)?,
            Some(c) => c.len_utf8(),
        };
    }
}

/// The text ends in `r` or `R`, alone or with `b`, that is not the end of a name.
fn is_raw_prefix(head: &str) -> bool {
    let name_len = head.len()
        - head
            .trim_end_matches(|c: char| c.is_alphanumeric() || c == '_')
            .len();
    let name = head.get(head.len() - name_len..).unwrap_or_default();
    matches!(name.to_ascii_lowercase().as_str(), "r" | "br" | "rb")
}

fn unclosed(at: usize) -> ConditionError {
    ConditionError::new(
        format!("the string that starts at octet {} is not closed", at + 1),
        "",
    )
}

/// Octets of an escape sequence that CEL knows.
fn escape(tail: &str, at: usize) -> Result<usize, ConditionError> {
    let digits = match tail.as_bytes().get(1) {
        Some(
            b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'\\' | b'"' | b'\'' | b'`' | b'?',
        ) => {
            return Ok(2);
        }
        Some(b'x' | b'X') => tail.get(2..4),
        Some(b'u') => tail.get(2..6),
        Some(b'U') => tail.get(2..10),
        Some(b'0'..=b'3') => tail
            .get(1..4)
            .filter(|octal| octal.bytes().all(|b| b < b'8')),
        _ => None,
    };
    match digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())) {
        Some(digits) if tail.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
            Ok(1 + digits.len())
        }
        Some(digits) => Ok(2 + digits.len()),
        None => Err(ConditionError::new(
            format!("unknown escape at octet {}", at + 1),
            "write a backslash twice, or use a raw string r\"…\"",
        )),
    }
}
