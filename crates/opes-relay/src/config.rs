//! What the relay is told at its start. Every default is a value a postmaster can live with.

use std::path::PathBuf;
use std::time::Duration;

use opes_host::Host;
use opes_smtp::client::DATA_TERMINATION_TIMEOUT;

use crate::event::OnEvent;
use crate::report::Reports;
use crate::tls::Tls;

/// Where mail goes unless a recipient has a next hop of its own.
#[derive(Debug, Clone)]
pub enum Route {
    /// Files below `dir`, one Maildir a recipient. The folder itself must exist: a volume that is not mounted is an error, not a
    /// reason to write somewhere else.
    Maildir {
        /// The root of all mailboxes.
        dir: PathBuf,
    },
    /// One server takes everything.
    NextHop {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// LMTP (RFC 2033) instead of SMTP.
        lmtp: bool,
        /// STARTTLS policy; also for the next hops that recipients bring along.
        tls: Tls,
    },
}

/// How long to wait after the first failure, the second …: twice as long each time, with up to a quarter of random delay on
/// top, so that what failed together is not tried again together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most, without the random part.
    pub max: Duration,
}

/// When deliveries that failed for now are tried again (RFC 5321 §4.5.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySchedule {
    /// For a message whose recipients were refused for now.
    pub message: Backoff,
    /// For a next hop that cannot be reached. One connection at a time tries; when it gets through, all that waits goes at once.
    pub next_hop: Backoff,
    /// From the time the message was received. After that, a transient failure is final.
    pub give_up_after: Duration,
}

/// Limits of time. What the standard prescribes for replies (RFC 5321 §4.5.3.2) is in [`opes_smtp::client`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving and connecting, and the TLS handshake.
    pub connect: Duration,
    /// Upper bound on what the standard prescribes; shorter than ten minutes risks duplicates (RFC 5321 §4.5.3.2.6).
    pub reply_max: Duration,
    /// A connection without work for this long is closed with QUIT. Servers commonly wait five minutes.
    pub idle: Duration,
}

/// Everything the relay is told.
#[derive(Clone)]
pub struct RelayConfig {
    /// Where mail goes.
    pub route: Route,
    /// Our name in EHLO, in Maildir file names, and the domain of a recipient `postmaster` without one.
    pub hostname: String,
    /// Connections to one next hop.
    pub connections_max: usize,
    /// Connections to all next hops.
    pub connections_total_max: usize,
    /// Messages over one connection before it is replaced, so that a balancer in front of the next hop gets its share.
    pub messages_per_connection_max: u32,
    /// When to try again.
    pub retry: RetrySchedule,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// Messages held; above it [`crate::Relay::unhealthy_reason`] asks to take no more. Nothing accepted is ever refused.
    pub backlog_max: usize,
    /// Called for every recipient of every attempt, on the delivering task: it must not block.
    pub on_event: OnEvent,
    /// Who is told of recipients that failed.
    pub reports: Reports,
    /// Network, clock and randomness to work with.
    pub host: Host,
}

impl RelayConfig {
    /// The defaults.
    pub fn new(route: Route, hostname: impl Into<String>, on_event: OnEvent) -> Self {
        Self {
            route,
            hostname: hostname.into(),
            connections_max: 20,
            connections_total_max: 200,
            messages_per_connection_max: 1000,
            retry: RetrySchedule::default(),
            timeouts: Timeouts::default(),
            backlog_max: 100_000,
            on_event,
            reports: Reports::default(),
            host: Host::default(),
        }
    }
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self {
            message: Backoff {
                first: Duration::from_mins(1),
                max: Duration::from_hours(1),
            },
            next_hop: Backoff {
                first: Duration::from_secs(1),
                max: Duration::from_mins(1),
            },
            give_up_after: Duration::from_hours(5 * 24),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            reply_max: DATA_TERMINATION_TIMEOUT,
            idle: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row; `random` spreads it.
    pub(crate) fn delay(&self, failures: u32, random: u64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1 << failures.saturating_sub(1).min(20));
        let delay = doubled.min(self.max);
        let quarter_ms = u64::try_from(delay.as_millis() / 4).unwrap_or(u64::MAX - 1);
        delay + Duration::from_millis(random % (quarter_ms + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum_and_is_spread_by_a_quarter() {
        let backoff = Backoff {
            first: Duration::from_secs(4),
            max: Duration::from_mins(1),
        };
        for (failures, seconds) in [(0, 4), (1, 4), (2, 8), (4, 32), (5, 60), (u32::MAX, 60)] {
            let delay = Duration::from_secs(seconds);
            assert_eq!(backoff.delay(failures, 0), delay);
            for random in [1, 77_777, u64::MAX] {
                assert!((delay..=delay * 5 / 4).contains(&backoff.delay(failures, random)));
            }
        }
    }
}
