//! Bounds of a callout server. The defaults fit a service of one pod.

use std::time::Duration;

use opes_host::Clock;

/// Bounds of a server; each holds per connection unless it says otherwise.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Transactions open at once; told to the processor, which keeps to it. 1 = one at a time.
    pub transactions_max: u32,
    /// Service groups (rules with their parameters) alive at once.
    pub groups_max: u32,
    /// Octets of the original that a processor may send at first, per transaction; four times as many once the handler
    /// reads.
    /// Memory is bounded by four times this times `transactions_max` times connections.
    pub window_octets: u64,
    /// Largest frame that is read, in octets; larger ones end the connection.
    pub frame_octets_max: usize,
    /// How long running transactions may take to finish after the shutdown was asked for.
    pub drain: Duration,
    /// For the date of HTTP replies (RFC 9110 §6.6.1); the system's by default.
    pub clock: Clock,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            transactions_max: 256,
            groups_max: 1024,
            window_octets: 256 * 1024,
            frame_octets_max: 4 * 1024 * 1024,
            drain: Duration::from_secs(25),
            clock: Clock::default(),
        }
    }
}
