//! Where mail goes, and who is told of what does not arrive.

use std::path::PathBuf;

use serde::Deserialize;

/// Where accepted mail goes. Exactly one of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliveryConfig {
    /// Folder: `DOMAIN/LOCAL-PART/{new,cur,tmp}` per recipient.
    #[serde(default)]
    pub maildir: Option<PathBuf>,
    /// `HOST:PORT` of a fixed next hop.
    #[serde(default)]
    pub next_hop: Option<String>,
    /// Speak LMTP with the next hop.
    #[serde(default)]
    pub lmtp: bool,
    /// Connections to the next hop.
    #[serde(default = "default_connections_max")]
    pub connections_max: usize,
}

/// Who is told of mail that cannot be delivered (RFC 5321 §6.1).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BouncesConfig {
    /// Which senders get delivery reports.
    pub senders: BounceSenders,
    /// Gets our own reports that cannot be delivered. None: they are logged and counted.
    pub postmaster: Option<String>,
}

/// Which senders get delivery reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BounceSenders {
    /// All.
    #[default]
    All,
    /// Who sent with AUTH, and addresses of `domains`.
    Known,
    /// None.
    None,
}

/// Notifications that services ask for.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NotificationsConfig {
    /// Gets those for the administrator. None: they are dropped and counted.
    pub administrator: Option<String>,
    /// Most to one address in an hour; 0 = none.
    pub per_recipient_per_hour: u32,
    /// Most that one rule may cause in an hour; 0 = none.
    pub per_rule_per_hour: u32,
}

// === impl DeliveryConfig ===

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            maildir: None,
            next_hop: None,
            lmtp: false,
            connections_max: default_connections_max(),
        }
    }
}

// === impl NotificationsConfig ===

impl Default for NotificationsConfig {
    fn default() -> Self {
        Self {
            administrator: None,
            per_recipient_per_hour: 6,
            per_rule_per_hour: 100,
        }
    }
}

fn default_connections_max() -> usize {
    20
}
