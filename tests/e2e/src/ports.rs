//! Ports for daemons that cannot be told "any, and say which".
//!
//! Below what the kernel hands out for port 0 and for outgoing connections, so that nobody else is given one between our look and
//! the daemon's bind. Two fixtures may still choose the same, once in many thousands.

use std::net::TcpListener;

use anyhow::{Context as _, Result};

const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;
const ATTEMPTS: u32 = 200;

/// A port of the loopback address on which nobody listens.
pub fn free() -> Result<u16> {
    (0..ATTEMPTS)
        .find_map(|_| {
            let port = FIRST + random() % COUNT;
            TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
        })
        .context("no port is free on 127.0.0.1")
}

/// The standard library's own seed is the only randomness that this needs.
fn random() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    let [one, two, ..] = RandomState::new().hash_one(0).to_le_bytes();
    u16::from_le_bytes([one, two])
}
