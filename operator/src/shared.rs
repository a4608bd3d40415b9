//! What the operator's parts hand to each other: whole values in watch channels, so that the newest is all that anybody can see.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use opes_proto::routing::{Peers, Table};
use tokio::sync::watch;

/// One object of ours: kind and `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// `OpesRule` or `CalloutService`.
    pub kind: &'static str,
    /// `NAMESPACE/NAME`.
    pub name: String,
}

/// What is served at one moment. Made by the index, read by everything that serves.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Revision, objects and endpoints, as edges get them.
    pub table: Table,
    /// Which generation of each object the table was made from. An object that runs as its last accepted spec, or as its
    /// `onFailure`, has the generation of what runs.
    pub generations: BTreeMap<ObjectKey, i64>,
    /// The pools that the operator runs, by `NAMESPACE/NAME` of their service.
    pub pools: BTreeMap<String, PoolFacts>,
}

/// What scaling has to know of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolFacts {
    /// Transactions in flight per instance that scaling aims at.
    pub target_in_flight: u32,
    /// Instances that are ready.
    pub ready: u32,
}

/// The newest [`Snapshot`]. Before the first one nothing is served.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// Where the operator's replicas are.
pub type PeersNow = watch::Receiver<Arc<Peers>>;

/// Whether this replica holds the Lease; without it nothing is written.
pub type Leading = watch::Receiver<bool>;

/// A certificate that somebody needs in a Secret.
#[derive(Debug, Clone, PartialEq)]
pub struct CertificateWanted {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret: `tls.crt`, `tls.key`, `ca.crt`.
    pub secret: String,
    /// Names that it is for; the first is the subject.
    pub dns_names: Vec<String>,
    /// Who owns the Secret; none: the release.
    pub owner: Option<OwnerReference>,
    /// Labels of the Secret.
    pub labels: BTreeMap<String, String>,
}

/// All certificates that are needed at this moment.
pub type CertificatesWanted = watch::Receiver<Arc<Vec<CertificateWanted>>>;

/// When certificates that were made end, in seconds since 1970, by namespace and name of their Secret.
pub type CertificateEnds = BTreeMap<(String, String), u64>;
