//! Numbers of the protocol and the bounds that RFC 4037 §13 asks each implementation to set for itself.

/// Highest value of an identifier: RFC 4037 §10.2.
pub const ID_MAX: u32 = 2_147_483_647;

/// Highest size and offset in octets: RFC 4037 §10.3, §10.4.
pub const OFFSET_MAX: u64 = 2_147_483_647;

/// Highest size and offset in octets once [`Extensions::large_offsets`] is in force.
pub const LARGE_OFFSET_MAX: u64 = (1 << 63) - 1;

/// Octets kept of a reason that the peer gave. The rest is cut; reasons are for people (RFC 4037 §10.10).
pub(crate) const REASON_OCTETS_MAX: usize = 512;

/// Bounds of one connection (RFC 4037 §13). What exceeds them is treated as invalid (§5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Transactions open at once.
    pub transactions_max: u32,
    /// Service groups alive at once, per creator; at least one is always possible (RFC 4037 §11.3).
    pub groups_max: u32,
    /// Octets of payload in one DUM.
    pub payload_octets_max: usize,
    /// Services in one group or one AMS.
    pub services_max: usize,
    /// Features in one NO or NR.
    pub features_max: usize,
    /// Octets of one opaque `profile` or `parameters` field and of one URI.
    pub parameters_octets_max: usize,
    /// Milliseconds a transaction may go without progress of one of its flows (RFC 4037 §2.7); 0 = no limit.
    pub no_progress_ms: u64,
    /// Milliseconds for a negotiation to come to an end; 0 = no limit.
    pub negotiation_ms: u64,
    /// Highest identifier to hand out before the connection is worn out. Not above [`ID_MAX`].
    pub id_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transactions_max: 1024,
            groups_max: 256,
            payload_octets_max: 1 << 20,
            services_max: 32,
            features_max: 32,
            parameters_octets_max: 1 << 20,
            no_progress_ms: 600_000,
            negotiation_ms: 10_000,
            id_max: ID_MAX,
        }
    }
}

/// Extensions of Core that the profile implies once it is selected (RFC 4037 §15.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
// Four independent switches, named as in the profile; not a state.
#[allow(clippy::struct_excessive_bools)]
pub struct Extensions {
    /// `DWM.limit_offset` is a hard limit, from the start of each transaction. Without it flows are limited by pauses only.
    pub credit: bool,
    /// S may end its flow with AME 206 and a J of its own at any time, as if DSS had come.
    pub standing_stop: bool,
    /// P keeps the whole original, as if Kept 0..∞ stood on its first DUM.
    pub keeps_all: bool,
    /// Sizes and offsets up to [`LARGE_OFFSET_MAX`].
    pub large_offsets: bool,
}

impl Extensions {
    /// Everything that the SMTP profile implies.
    pub const ALL: Self = Self {
        credit: true,
        standing_stop: true,
        keeps_all: true,
        large_offsets: true,
    };

    pub(crate) const fn offset_max(self) -> u64 {
        if self.large_offsets {
            LARGE_OFFSET_MAX
        } else {
            OFFSET_MAX
        }
    }
}
