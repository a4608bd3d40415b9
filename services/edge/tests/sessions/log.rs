//! The log of a test's thread, on which its whole edge runs.
//!
//! One subscriber for all threads: those of single threads race for what the log macros remember of them.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

thread_local! {
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

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

/// Before what is to be logged.
pub(crate) fn capture() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(|| Sink)
            .init();
    });
    TEXT.with_borrow_mut(Vec::clear);
}

/// Lines with this text.
pub(crate) fn lines(containing: &str) -> Vec<String> {
    let text = TEXT.with_borrow(|text| String::from_utf8_lossy(text).into_owned());
    let lines = text.lines().filter(|line| line.contains(containing));
    lines.map(str::to_owned).collect()
}
