//! Stable hashing: which share of a rollout a dialog falls into, and plan signatures.
//!
//! FNV-1a with a finishing mix (`fmix64` of MurmurHash3). The figures must never change between
//! versions, or dialogs would move between shares during an upgrade; a test pins them.

use crate::table::Rule;

/// Shares are counted in hundredths of a percent.
const SHARES: u64 = 10_000;

/// A running hash.
#[derive(Debug)]
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Adds a text and its end.
    pub(crate) fn text(&mut self, text: &str) {
        for octet in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn finish(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

/// Whether the rule applies to this dialog at all. A dialog that is in at 5 % is in at 50 %.
pub(crate) fn in_share(rule: &Rule, dialog_id: &str) -> bool {
    match rule.percent {
        100.. => true,
        0 => false,
        percent => {
            let mut hash = Hash::default();
            hash.text(&rule.name);
            hash.text(dialog_id);
            hash.finish() % SHARES < u64::from(percent) * 100
        }
    }
}
