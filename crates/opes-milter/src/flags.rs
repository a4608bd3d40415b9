//! The two sets of flags that SMFIC_OPTNEG is about, with the names of Sendmail's `mfdef.h`.

use std::fmt;
use std::ops::BitOr;

/// What a milter may do to a message (SMFIF_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Actions(pub u32);

/// What of the protocol is left out or used (SMFIP_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Steps(pub u32);

// === impl Actions ===

impl Actions {
    /// Add header fields.
    pub const ADDHDRS: Self = Self(0x1);
    /// Replace the body.
    pub const CHGBODY: Self = Self(0x2);
    /// Add recipients.
    pub const ADDRCPT: Self = Self(0x4);
    /// Remove recipients.
    pub const DELRCPT: Self = Self(0x8);
    /// Change and remove header fields.
    pub const CHGHDRS: Self = Self(0x10);
    /// Hold the message.
    pub const QUARANTINE: Self = Self(0x20);
    /// Change the sender.
    pub const CHGFROM: Self = Self(0x40);
    /// Add recipients with ESMTP parameters.
    pub const ADDRCPT_PAR: Self = Self(0x80);
    /// Say which macros are wanted.
    pub const SETSYMLIST: Self = Self(0x100);
    /// All of them.
    pub const ALL: Self = Self(0x1ff);

    /// Is all of `other` in here?
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Actions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

// === impl Steps ===

impl Steps {
    /// No SMFIC_CONNECT.
    pub const NOCONNECT: Self = Self(0x1);
    /// No SMFIC_HELO.
    pub const NOHELO: Self = Self(0x2);
    /// No SMFIC_MAIL.
    pub const NOMAIL: Self = Self(0x4);
    /// No SMFIC_RCPT.
    pub const NORCPT: Self = Self(0x8);
    /// No SMFIC_BODY.
    pub const NOBODY: Self = Self(0x10);
    /// No SMFIC_HEADER.
    pub const NOHDRS: Self = Self(0x20);
    /// No SMFIC_EOH.
    pub const NOEOH: Self = Self(0x40);
    /// No reply to SMFIC_HEADER.
    pub const NR_HDR: Self = Self(0x80);
    /// No SMFIC_UNKNOWN; it is never sent.
    pub const NOUNKNOWN: Self = Self(0x100);
    /// No SMFIC_DATA.
    pub const NODATA: Self = Self(0x200);
    /// SMFIR_SKIP is understood.
    pub const SKIP: Self = Self(0x400);
    /// Recipients that the MTA has refused are sent too. Never offered.
    pub const RCPT_REJ: Self = Self(0x800);
    /// No reply to SMFIC_CONNECT.
    pub const NR_CONN: Self = Self(0x1000);
    /// No reply to SMFIC_HELO.
    pub const NR_HELO: Self = Self(0x2000);
    /// No reply to SMFIC_MAIL.
    pub const NR_MAIL: Self = Self(0x4000);
    /// No reply to SMFIC_RCPT.
    pub const NR_RCPT: Self = Self(0x8000);
    /// No reply to SMFIC_DATA.
    pub const NR_DATA: Self = Self(0x1_0000);
    /// No reply to SMFIC_UNKNOWN.
    pub const NR_UNKN: Self = Self(0x2_0000);
    /// No reply to SMFIC_EOH.
    pub const NR_EOH: Self = Self(0x4_0000);
    /// No reply to SMFIC_BODY.
    pub const NR_BODY: Self = Self(0x8_0000);
    /// White space after the colon is part of the value, both ways.
    pub const HDR_LEADSPC: Self = Self(0x10_0000);
    /// What this side can do: all but RCPT_REJ and the larger body chunks.
    pub const OFFERED: Self = Self(0x1f_ffff & !Self::RCPT_REJ.0);

    /// Is all of `other` in here?
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Steps {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
