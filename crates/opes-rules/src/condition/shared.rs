//! Conditions that are compiled once for as long as a table uses them.
//!
//! A table is made anew for every change of one rule, and compiling an expression costs more than everything else of a rule together.
//! Nothing is kept alive in here.

use super::{Condition, ConditionError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Fewest entries before those that are not used any more are looked for.
const ENTRIES_MIN: usize = 1_024;

struct Known {
    conditions: HashMap<Box<str>, Weak<Condition>>,
    /// Look for unused entries when there are this many.
    full: usize,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// The condition, from a table that is still there or compiled now.
pub(super) fn condition(source: &str) -> Result<Arc<Condition>, Vec<ConditionError>> {
    let known = |known: &Option<Known>| known.as_ref()?.conditions.get(source)?.upgrade();
    if let Some(condition) = known(&KNOWN.lock().unwrap_or_else(PoisonError::into_inner)) {
        return Ok(condition);
    }
    let condition = Arc::new(Condition::compile(source)?);
    let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    all.get_or_insert_with(Known::new).keep(&condition);
    Ok(condition)
}

impl Known {
    fn new() -> Self {
        Self {
            conditions: HashMap::new(),
            full: ENTRIES_MIN,
        }
    }

    fn keep(&mut self, condition: &Arc<Condition>) {
        if self.conditions.len() >= self.full {
            self.conditions.retain(|_, used| used.strong_count() > 0);
            self.full = (self.conditions.len() * 2).max(ENTRIES_MIN);
        }
        let source = condition.source().into();
        self.conditions.insert(source, Arc::downgrade(condition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_in_use_is_not_compiled_again() {
        let source = "size > 123456";
        let first = condition(source).unwrap();
        assert!(Arc::ptr_eq(&first, &condition(source).unwrap()));
        assert!(condition("no.such.field").is_err());
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let mut known = Known::new();
        let compile = |number: usize| Condition::compile(&format!("size > {number}")).unwrap();
        let used = Arc::new(compile(0));
        known.keep(&used);
        for number in 1..=ENTRIES_MIN {
            known.keep(&Arc::new(compile(number)));
        }
        assert_eq!(known.conditions.len(), 2);
        assert!(known.conditions.contains_key(used.source()));
    }
}
