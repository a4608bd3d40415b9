//! Rule files that are compiled again when they change and hold still, so that no file is read half-written.

use std::path::{Path, PathBuf};

use anyhow::Result;
use opes_reload::{Look, POLL_INTERVAL, Watch};
use opes_rules::RoutingTable;
use tokio::time::{Interval, MissedTickBehavior};

use crate::rulesets;

/// A folder or file with rules.
pub(crate) struct LiveRules {
    path: PathBuf,
    watch: Watch,
    looks: Interval,
}

// === impl LiveRules ===

impl LiveRules {
    /// Watches from now on, so that what is changed while the first table is compiled is not missed.
    pub(crate) fn new(path: &Path) -> Self {
        let mut looks = tokio::time::interval(POLL_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            path: path.to_owned(),
            watch: Watch::new(vec![path.to_owned()]),
            looks,
        }
    }

    /// Everything there, compiled.
    pub(crate) fn load(&self) -> Result<RoutingTable> {
        rulesets::load(std::slice::from_ref(&self.path))
    }

    /// Waits for a change and compiles it. Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) -> Result<RoutingTable> {
        loop {
            self.looks.tick().await;
            if self.watch.look() == Look::Taken {
                return self.load();
            }
        }
    }
}

/// The next table; without rules that are watched there is none.
pub(crate) async fn changed(rules: Option<&mut LiveRules>) -> Result<RoutingTable> {
    match rules {
        Some(rules) => rules.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RULE: &str = "apiVersion: opes.dev/v1alpha1\nkind: OpesRule\nmetadata: { name: closed }\nspec: { at: [mailFrom], action: { reject: { text: not now } } }\n";

    async fn next(rules: &mut LiveRules) -> Result<RoutingTable> {
        tokio::time::timeout(Duration::from_secs(20), rules.changed())
            .await
            .expect("the change is seen")
    }

    #[tokio::test]
    async fn changes_are_compiled_and_mistakes_told_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules.yaml");
        std::fs::write(&file, "").unwrap();
        let mut rules = LiveRules::new(folder.path());
        assert_eq!(rules.load().unwrap().rules.len(), 0);
        std::fs::write(&file, RULE).unwrap();
        assert_eq!(next(&mut rules).await.unwrap().rules.len(), 1);
        std::fs::write(&file, RULE.replace("reject", "rejct")).unwrap();
        let error = next(&mut rules).await.unwrap_err().to_string();
        assert!(
            error.contains("rules.yaml") && error.contains("rejct"),
            "{error}"
        );
        let nothing = tokio::time::timeout(POLL_INTERVAL * 3, rules.changed());
        assert!(nothing.await.is_err(), "one error for one edit");
    }
}
