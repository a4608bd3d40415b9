//! One octet that says whether messages can be stored; read without a lock before every message.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::SpoolError;

/// Can messages be stored?
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicU8);

const HEALTHY: u8 = 0;
const FULL: u8 = 1;
const CRAMMED: u8 = 2;
const BROKEN: u8 = 3;

impl Health {
    pub(crate) fn recovered(&self) {
        self.0.store(HEALTHY, Ordering::Relaxed);
    }

    /// `recording`: settlements can be written all the same.
    pub(crate) fn failed(&self, error: &SpoolError, recording: bool) {
        let state = match (error.is_full(), recording) {
            (true, true) => FULL,
            (true, false) => CRAMMED,
            (false, _) => BROKEN,
        };
        self.0.store(state, Ordering::Relaxed);
    }

    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Relaxed) {
            HEALTHY => None,
            FULL => Some("the spool volume is full"),
            CRAMMED => Some("the spool volume is full; deliveries are remembered in memory only"),
            _ => Some("the spool cannot be written"),
        }
    }
}
