//! etcd and kube-apiserver on the loopback address, and controller-manager on demand: objects, no pods.
//!
//! As `envtest` has it: RBAC is on, nothing makes service account tokens. Without [`Builder::controllers`] nothing collects garbage,
//! no endpoints appear and a namespace is never gone. An aggregated API is reached through a Service of type ExternalName
//! to `localhost`.

pub(crate) mod daemons;

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use tokio::sync::OnceCell;

use crate::group::{Ended, Group, until};
use crate::{Cluster, DEADLINE, ports};

use self::daemons::{Pki, Place};

/// Names a kubeconfig: tests use that cluster instead of one of their own.
const OTHER: &str = "OPES_TEST_KUBECONFIG";

/// Ports are chosen before the daemons bind them; others may be faster.
const ATTEMPTS: usize = 3;

/// A running control plane.
pub struct ControlPlane {
    cluster: Cluster,
    /// `None` for a cluster that was there before.
    own: Option<Own>,
}

struct Own {
    group: Group,
    pki: Pki,
    place: Place,
}

/// What to start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Builder {
    controllers: bool,
}

// === impl Builder ===

impl Builder {
    /// With controller-manager: garbage collection, EndpointSlices, namespace deletion, HorizontalPodAutoscalers (every 2 s).
    #[must_use]
    pub fn controllers(mut self) -> Self {
        self.controllers = true;
        self
    }

    /// Starts it and waits until `/readyz` says ok: seconds.
    pub async fn start(self) -> Result<ControlPlane> {
        if let Some(path) = std::env::var_os(OTHER) {
            let cluster = Cluster::new(&PathBuf::from(path), None)
                .await
                .context(OTHER)?;
            return Ok(ControlPlane { cluster, own: None });
        }
        let mut attempt = 1;
        loop {
            match self.attempt().await {
                Err(error) if attempt < ATTEMPTS && error.is::<Ended>() => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(self) -> Result<ControlPlane> {
        let group = Group::new()?;
        let place = Place {
            address: "127.0.0.1".to_owned(),
            apiserver: ports::free()?,
            etcd: ports::free()?,
            etcd_peers: ports::free()?,
            services: "10.0.0.0/24".to_owned(),
        };
        let pki = Pki::new(
            &group.folder().join("pki"),
            &["localhost", "127.0.0.1", "10.0.0.1"],
        )?;
        let admin = pki.client("admin", Some("system:masters"))?;
        let kubeconfig =
            pki.kubeconfig(&group.folder().join("admin.yaml"), &place.url(), &admin)?;
        group.spawn("etcd", daemons::etcd(&place, &group.memory()?)?)?;
        group.spawn("kube-apiserver", daemons::apiserver(&place, &pki)?)?;
        let started = ControlPlane {
            cluster: Cluster::new(&kubeconfig, Some(group.folder())).await?,
            own: Some(Own { group, pki, place }),
        };
        started.ready().await?;
        if self.controllers {
            let own = started.own()?;
            let command = daemons::controller_manager(&own.place, &own.pki)?;
            own.group.spawn("kube-controller-manager", command)?;
        }
        Ok(started)
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// etcd and kube-apiserver, nothing else.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Says what to start besides.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The one that all tests of this program share, with controllers; it goes when the program ends.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| Self::builder().controllers().start())
            .await
    }

    /// `kill -9` to the API server: what it was asked is lost, what it answered is kept.
    pub fn kill_apiserver(&self) -> Result<()> {
        self.own()?.group.kill("kube-apiserver");
        Ok(())
    }

    /// Starts the API server again, at the same address, and waits until it is ready.
    pub async fn start_apiserver(&self) -> Result<()> {
        let own = self.own()?;
        let command = daemons::apiserver(&own.place, &own.pki)?;
        own.group.spawn("kube-apiserver", command)?;
        self.ready().await
    }

    /// Starts another daemon beside these; it goes with them.
    pub(crate) fn spawn(&self, name: &str, command: Command) -> Result<()> {
        self.own()?.group.spawn(name, command)?;
        Ok(())
    }

    /// The last lines of a daemon.
    pub fn tail(&self, name: &str) -> Result<String> {
        Ok(self.own()?.group.tail(name))
    }

    /// As [`crate::eventually`], but over at once when a daemon has ended.
    pub(crate) async fn until<F: Future<Output = Result<()>>>(
        &self,
        what: &str,
        work: impl FnMut() -> F,
    ) -> Result<()> {
        until(&self.own()?.group, what, DEADLINE, work).await
    }

    /// The folder of the daemons, in which are `*.log`.
    pub fn folder(&self) -> Result<&std::path::Path> {
        Ok(self.own()?.group.folder())
    }

    async fn ready(&self) -> Result<()> {
        let own = self.own()?;
        until(&own.group, "control plane ready", DEADLINE, || {
            ready(&self.cluster)
        })
        .await
    }

    fn own(&self) -> Result<&Own> {
        self.own
            .as_ref()
            .with_context(|| format!("not with a cluster that {OTHER} names"))
    }
}

impl Deref for ControlPlane {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Does the API server say that it is ready, and is there the namespace that everybody expects?
pub(crate) async fn ready(cluster: &Cluster) -> Result<()> {
    cluster.raw("/readyz").await?;
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(cluster.client()?);
    namespaces.get("default").await?;
    Ok(())
}
