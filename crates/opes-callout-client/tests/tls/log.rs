//! What the server's operator reads.
//!
//! One subscriber for all threads: those of single threads race for what the log macros remember of them.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;
use std::time::Duration;

use crate::peers::PATIENCE;

thread_local! {
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log of this test's thread, on which both ends run.
pub(crate) struct Log(());

struct Sink;

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        TEXT.with_borrow_mut(|text| text.extend_from_slice(octets));
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Before anything may be logged in this process.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(|| Sink)
            .init();
    });
}

impl Log {
    pub(crate) fn capture() -> Self {
        install();
        TEXT.with_borrow_mut(Vec::clear);
        Self(())
    }

    pub(crate) fn text(&self) -> String {
        let Self(()) = self;
        TEXT.with_borrow(|text| String::from_utf8(text.clone()).unwrap())
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
