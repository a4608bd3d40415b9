//! What a rule lets a callout service do, and which class can use it at which point.
//!
//! The numbers are those of `opes.smtp.v1.Permission`, so that shells convert without a table.

use crate::point::{Class, Point};
use serde::{Deserialize, Serialize};

/// One thing that a service may do to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::object::schema::choice))]
#[serde(rename_all = "camelCase")]
pub enum Permission {
    /// Header operations, except the subject mark.
    Header = 1,
    /// Mark the subject.
    Subject = 2,
    /// Replace a MIME part.
    ReplacePart = 3,
    /// Change octets of the body.
    Body = 4,
    /// Return a message or command line of its own.
    Rewrite = 5,
    /// Change the reverse-path.
    Sender = 6,
    /// Rewrite, add or remove recipients.
    Recipients = 7,
    /// Choose the next hop.
    Route = 8,
    /// Refuse, for good or for the time being.
    Reject = 9,
    /// Take the message and deliver it to nobody.
    Discard = 10,
    /// Advise quarantine.
    Quarantine = 11,
    /// Have notifications sent.
    Notify = 12,
    /// File an incident report.
    Report = 13,
}

/// A set of permissions; copied, never allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PermissionSet(u16);

// === impl Permission ===

impl Permission {
    /// All permissions in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Header,
        Self::Subject,
        Self::ReplacePart,
        Self::Body,
        Self::Rewrite,
        Self::Sender,
        Self::Recipients,
        Self::Route,
        Self::Reject,
        Self::Discard,
        Self::Quarantine,
        Self::Notify,
        Self::Report,
    ];

    /// The name used in rule files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Subject => "subject",
            Self::ReplacePart => "replacePart",
            Self::Body => "body",
            Self::Rewrite => "rewrite",
            Self::Sender => "sender",
            Self::Recipients => "recipients",
            Self::Route => "route",
            Self::Reject => "reject",
            Self::Discard => "discard",
            Self::Quarantine => "quarantine",
            Self::Notify => "notify",
            Self::Report => "report",
        }
    }

    /// Number in `opes.smtp.v1.Permission`, 1 to 13.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Using it changes octets of the message that a signature may cover.
    pub const fn changes_octets(self) -> bool {
        matches!(
            self,
            Self::Header | Self::Subject | Self::ReplacePart | Self::Body | Self::Rewrite
        )
    }

    /// A service of this class can make use of it.
    pub const fn fits_class(self, class: Class) -> bool {
        match class {
            Class::Observe => false,
            // Analysers run side by side over the same octets: what they could change, they would
            // change against each other.
            Class::Analyze => matches!(
                self,
                Self::Reject | Self::Discard | Self::Quarantine | Self::Notify | Self::Report
            ),
            Class::Adapt => true,
            Class::Sign => matches!(
                self,
                Self::Header | Self::Rewrite | Self::Reject | Self::Notify | Self::Report
            ),
        }
    }

    /// It means something at this point.
    pub const fn fits_point(self, point: Point) -> bool {
        if point.observe_only() {
            return false;
        }
        match self {
            Self::Report => true,
            Self::Reject => point.index() < Point::Routing.index(),
            Self::Rewrite => matches!(
                point,
                Point::Helo | Point::MailFrom | Point::RcptTo | Point::Content | Point::Routing
            ),
            Self::Sender => matches!(point, Point::MailFrom | Point::Content | Point::Routing),
            Self::Recipients | Self::Route => {
                matches!(point, Point::RcptTo | Point::Content | Point::Routing)
            }
            Self::Header
            | Self::Subject
            | Self::ReplacePart
            | Self::Body
            | Self::Discard
            | Self::Quarantine
            | Self::Notify => matches!(point, Point::Content | Point::Routing),
        }
    }
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

// === impl PermissionSet ===

impl PermissionSet {
    /// Nothing is permitted.
    pub const NONE: Self = Self(0);

    /// Whether `permission` is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission.number()) != 0
    }

    /// Adds one permission.
    pub const fn insert(&mut self, permission: Permission) {
        self.0 |= 1 << permission.number();
    }

    /// Nothing is permitted.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The permissions in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.contains(*permission))
    }

    /// One of them changes octets of the message.
    pub fn changes_octets(self) -> bool {
        self.iter().any(Permission::changes_octets)
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let mut set = Self::NONE;
        for permission in permissions {
            set.insert(permission);
        }
        set
    }
}
