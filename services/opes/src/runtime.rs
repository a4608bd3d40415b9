//! The tokio runtime of every command that serves.

/// Threads for file I/O and password hashing at once; more work waits.
const BLOCKING_THREADS_MAX: usize = 8;

/// File reads and writes run on the blocking pool, each with a buffer; tokio's default of 512 threads would make that a
/// multiple of the memory budget.
pub(crate) fn start() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
}
