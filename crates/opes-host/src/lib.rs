//! What a process gets from the host it runs on: network, wall clock, randomness. The system's, unless something else is handed in.
//!
//! `tests/simulation` hands in simulated ones, so that it runs the very code that runs in production. There is no build for tests:
//! a [`Host`] is a value, its default is the system, and the system's sockets cost one branch a call. Fails as sockets fail.
//! Must not know: what is said over a connection. Monotonic time is not here: that is tokio's, which a runtime can pause.

mod clock;
mod listener;
mod network;
mod random;
mod stream;

pub use clock::Clock;
pub use listener::{Accept, Accepted, Listener};
pub use network::{Connect, Network};
pub use random::Random;
pub use stream::{Duplex, Stream};

/// The outside of one process. Cheap to clone; the default is the system's.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Where connections come from and go to.
    pub network: Network,
    /// What time it is for people.
    pub clock: Clock,
    /// For what need not be secret.
    pub random: Random,
}
