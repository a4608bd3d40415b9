//! How far archives are opened: limits of the service, not of a rule.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// Limits as written, camelCase; every field has a default. All but `atOnce` are for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ArchiveLimits {
    /// Octets that archives may expand to, all together.
    pub expanded_max: u64,
    /// Octets of expanded files that are held at once, because they are archives or messages themselves. Bounds memory.
    pub held_max: u64,
    /// How many times larger than in its archive a file may be, if it is larger than 8 MiB; and all of them, if they are larger than 16 MiB.
    pub ratio_max: u64,
    /// Files in archives, all together.
    pub entries_max: u32,
    /// Archives and messages inside each other.
    pub depth_max: u32,
    /// Milliseconds that opening may take.
    pub time_ms: u64,
    /// Messages whose archives are opened at once; others wait.
    pub at_once: u32,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            expanded_max: 256 * 1024 * 1024,
            held_max: 32 * 1024 * 1024,
            ratio_max: 250,
            entries_max: 10_000,
            depth_max: 8,
            time_ms: 1500,
            at_once: 4,
        }
    }
}

// === impl ArchiveLimits ===

impl ArchiveLimits {
    /// [`time_ms`](Self::time_ms).
    pub fn time(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let whole = |value: u64, max: u64| (1..=max).contains(&value);
        for (fits, problem) in [
            (
                whole(self.expanded_max, 1 << 40),
                "expandedMax is not between 1 octet and 1 TiB; 268435456 is 256 MiB",
            ),
            (
                whole(self.held_max, 1 << 32),
                "heldMax is not between 1 octet and 4 GiB; 33554432 is 32 MiB",
            ),
            (
                whole(self.ratio_max, 1 << 20),
                "ratioMax is not between 1 and 1048576; 250 is usual",
            ),
            (
                whole(self.entries_max.into(), 1 << 20),
                "entriesMax is not between 1 and 1048576; 10000 is usual",
            ),
            (
                whole(self.depth_max.into(), 32),
                "depthMax is not between 1 and 32; 8 is usual",
            ),
            (
                whole(self.time_ms, 600_000),
                "timeMs is not between 1 and 600000 milliseconds; 1500 is usual",
            ),
            (
                whole(self.at_once.into(), 1000),
                "atOnce is not between 1 and 1000; memory is bounded by this times heldMax",
            ),
        ] {
            if !fits {
                let field = "archives";
                return Err(ConfigError::Value { field, problem });
            }
        }
        Ok(())
    }
}
