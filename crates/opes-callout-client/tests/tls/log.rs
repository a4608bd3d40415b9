//! What the server's operator reads.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::subscriber::DefaultGuard;

use crate::peers::PATIENCE;

/// The log of this test's thread, on which both ends run.
pub(crate) struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn capture() -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Arc::clone(&text);
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || Sink(Arc::clone(&sink)))
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(log),
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }

    /// Waits for a warning that a caller was refused for this reason. Its address is not in it.
    pub(crate) async fn refused(&self, reason: &str) {
        let waiting = async {
            loop {
                let text = self.text();
                if let Some(line) = text.lines().find(|line| line.contains("callers refused")) {
                    return line.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let line = tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("nobody was refused: {}", self.text()));
        assert!(line.contains(reason), "no `{reason}` in: {line}");
        assert!(
            line.contains("WARN") && !line.contains("127.0.0.1"),
            "{line}"
        );
    }
}
