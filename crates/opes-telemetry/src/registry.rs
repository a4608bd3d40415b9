//! The metrics of one program: a shared `prometheus-client` registry that starts with process, build and bug figures.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry as Inner};

use crate::{bugs, process::ProcessCollector};

/// The metrics of one program. Clones are handles on the same registry.
///
/// Names are full names, `opes_<noun>_<unit>`; the exposition format appends `_total` to counters by itself.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Mutex<Inner>>,
}

// === impl Registry ===

impl Registry {
    /// A registry with process figures (RSS, CPU, files), `opes_bugs_total` and `opes_build_info`.
    pub fn new() -> Self {
        let mut inner = Inner::default();
        inner.register_collector(Box::new(ProcessCollector));
        inner.register(
            "opes_bugs",
            "Impossible but survivable events; report them",
            bugs::counter(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        inner.register("opes_build", "What is running", build);
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Shows `metric` as `name`. Keep a clone of the metric to change it.
    pub fn register(&self, name: &'static str, help: &'static str, metric: impl Metric) {
        self.with(|inner| inner.register(name, help, metric));
    }

    /// Calls `work` with the registry itself, for collectors and units.
    pub fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::with_capacity(8 * 1024);
        self.with(|inner| encode(&mut text, inner))?;
        Ok(text)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn shows_what_was_registered_and_the_built_in_figures() {
        let registry = Registry::new();
        let messages: Counter = Counter::default();
        registry.register("opes_messages", "Messages seen", messages.clone());
        messages.inc_by(3);
        let text = registry.clone().encode().unwrap();
        for line in [
            "opes_messages_total 3",
            "opes_bugs_total ",
            "opes_build_info{version=\"",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
