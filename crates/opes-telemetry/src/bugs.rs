//! Impossible but survivable things: counted, logged, and fatal only in debug builds.
//!
//! Use [`bug!`](crate::bug) where the code knows that something cannot happen and can go on if it does all the same.
//! Peer input and faults of network or disk are never bugs.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;

// One per process: a bug has no registry at hand. Every `Registry` shows it.
static BUGS: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Bugs seen by this process since it started.
pub fn seen() -> u64 {
    BUGS.get()
}

pub(crate) fn counter() -> Counter {
    BUGS.clone()
}

#[doc(hidden)]
pub fn count() {
    BUGS.inc();
}

/// Logs an error, counts it in `opes_bugs_total`, and panics in debug builds only.
///
/// The message is a literal; fields follow in the syntax of `tracing`:
/// `bug!("two verdicts for one recipient", index = 3, rule = %name)`.
#[macro_export]
macro_rules! bug {
    ($message:literal $(, $($fields:tt)+)?) => {{
        $crate::bugs::count();
        $crate::__tracing::error!($($($fields)+,)? bug = true, $message);
        debug_assert!(false, concat!("bug: ", $message));
    }};
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(debug_assertions)]
    fn a_bug_is_counted_and_panics_in_debug_builds() {
        let before = super::seen();
        let panic = std::panic::catch_unwind(|| bug!("cannot be", answer = 42, name = %"x"));
        let text = panic.unwrap_err();
        assert_eq!(text.downcast_ref::<&str>(), Some(&"bug: cannot be"));
        assert!(super::seen() > before);
    }
}
