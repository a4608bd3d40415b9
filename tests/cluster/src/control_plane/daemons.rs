//! Command lines of the control plane's daemons, and the certificates that they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use crate::authority::{self, Authority, Pair};
use crate::programs;

/// Where the control plane listens.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The node's own address.
    pub(crate) address: String,
    pub(crate) apiserver: u16,
    pub(crate) etcd: u16,
    pub(crate) etcd_peers: u16,
    /// Range of cluster IPs.
    pub(crate) services: String,
}

/// Certificates and keys of one cluster.
pub(crate) struct Pki {
    folder: PathBuf,
    clients: Authority,
    serving: Pair,
    /// The API server may not use one authority for both.
    front_proxy: Authority,
    front_proxy_client: Pair,
    kubelet_client: Pair,
    service_accounts: Pair,
}

// === impl Place ===

impl Place {
    pub(crate) fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.apiserver)
    }
}

// === impl Pki ===

impl Pki {
    /// Makes all of it; `names` are what the API server is reached by.
    pub(crate) fn new(folder: &Path, names: &[&str]) -> Result<Self> {
        let clients = Authority::new(folder, "ca")?;
        let front_proxy = Authority::new(folder, "front-proxy-ca")?;
        let names = [
            names,
            &["kubernetes", "kubernetes.default", "kubernetes.default.svc"],
        ]
        .concat();
        let serving = clients.server("apiserver", &names)?;
        let kubelet_client =
            clients.client("kube-apiserver-kubelet-client", Some("system:masters"))?;
        let front_proxy_client = front_proxy.client("front-proxy-client", None)?;
        let service_accounts = authority::signing_pair(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            clients,
            serving,
            front_proxy,
            front_proxy_client,
            kubelet_client,
            service_accounts,
        })
    }

    /// A client certificate.
    pub(crate) fn client(&self, user: &str, group: Option<&str>) -> Result<Pair> {
        self.clients.client(user, group)
    }

    /// A server's certificate.
    pub(crate) fn server(&self, name: &str, names: &[&str]) -> Result<Pair> {
        self.clients.server(name, names)
    }

    /// Who signs all but the front proxy.
    pub(crate) fn authority(&self) -> &Path {
        &self.clients.certificate
    }

    /// Writes a kubeconfig; JSON is YAML.
    pub(crate) fn kubeconfig(&self, file: &Path, url: &str, client: &Pair) -> Result<PathBuf> {
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": self.clients.certificate}}],
            "users": [{"name": "test", "user": {"client-certificate": client.certificate, "client-key": client.key}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        });
        fs::write(file, text.to_string())?;
        Ok(file.to_owned())
    }
}

/// etcd with its data in `folder`.
pub(crate) fn etcd(place: &Place, folder: &Path) -> Result<Command> {
    let mut command = programs::system("/usr/bin/etcd", "etcd-server")?;
    let clients = format!("http://127.0.0.1:{}", place.etcd);
    let peers = format!("http://127.0.0.1:{}", place.etcd_peers);
    command
        .args(["--name", "test", "--logger", "zap", "--log-level", "warn"])
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args([
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
        ])
        .args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ])
        .args(["--initial-cluster", &format!("test={peers}")]);
    Ok(command)
}

/// The API server of a control plane alone.
pub(crate) fn apiserver(place: &Place, pki: &Pki) -> Result<Command> {
    let mut command = any_apiserver(place, pki)?;
    command.args([
        // Pods are never started, so nobody wants tokens in them, and there is no controller that makes accounts.
        "--disable-admission-plugins=ServiceAccount",
        "--authorization-mode=RBAC",
        // A loopback address is no valid endpoint.
        "--endpoint-reconciler-type=none",
    ]);
    Ok(command)
}

/// The API server of a node.
pub(crate) fn node_apiserver(place: &Place, pki: &Pki) -> Result<Command> {
    let mut command = any_apiserver(place, pki)?;
    command.args([
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
    ]);
    Ok(command)
}

/// The scheduler. Its own server is off.
pub(crate) fn scheduler(place: &Place, pki: &Pki) -> Result<Command> {
    let client = pki.client("system:kube-scheduler", None)?;
    let kubeconfig = pki.folder.join("scheduler.yaml");
    let kubeconfig = pki.kubeconfig(&kubeconfig, &place.url(), &client)?;
    let mut command = programs::kubernetes("kube-scheduler")?;
    command
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["--secure-port=0", "--leader-elect=false"]);
    Ok(command)
}

/// What both kinds have in common.
fn any_apiserver(place: &Place, pki: &Pki) -> Result<Command> {
    let mut command = programs::kubernetes("kube-apiserver")?;
    let flags: &[(&str, &dyn std::fmt::Display)] = &[
        ("etcd-servers", &format!("http://127.0.0.1:{}", place.etcd)),
        ("bind-address", &place.address),
        ("advertise-address", &place.address),
        ("secure-port", &place.apiserver),
        ("service-cluster-ip-range", &place.services),
        ("allow-privileged", &true),
        ("cert-dir", &pki.folder.display()),
        ("client-ca-file", &pki.clients.certificate.display()),
        ("tls-cert-file", &pki.serving.certificate.display()),
        ("tls-private-key-file", &pki.serving.key.display()),
        ("service-account-issuer", &"https://kubernetes.default.svc"),
        (
            "service-account-key-file",
            &pki.service_accounts.certificate.display(),
        ),
        (
            "service-account-signing-key-file",
            &pki.service_accounts.key.display(),
        ),
        (
            "kubelet-client-certificate",
            &pki.kubelet_client.certificate.display(),
        ),
        ("kubelet-client-key", &pki.kubelet_client.key.display()),
        (
            "kubelet-certificate-authority",
            &pki.clients.certificate.display(),
        ),
        // Otherwise exec and logs ask a resolver for the node's name.
        ("kubelet-preferred-address-types", &"InternalIP"),
        // Aggregated APIs trust what comes with a certificate of this one.
        (
            "requestheader-client-ca-file",
            &pki.front_proxy.certificate.display(),
        ),
        ("requestheader-allowed-names", &"front-proxy-client"),
        ("requestheader-username-headers", &"X-Remote-User"),
        ("requestheader-group-headers", &"X-Remote-Group"),
        ("requestheader-extra-headers-prefix", &"X-Remote-Extra-"),
        (
            "proxy-client-cert-file",
            &pki.front_proxy_client.certificate.display(),
        ),
        (
            "proxy-client-key-file",
            &pki.front_proxy_client.key.display(),
        ),
    ];
    command.args(
        flags
            .iter()
            .map(|(name, value)| format!("--{name}={value}")),
    );
    Ok(command)
}

/// All controllers. Its own server is off.
pub(crate) fn controller_manager(place: &Place, pki: &Pki) -> Result<Command> {
    let client = pki.client("system:kube-controller-manager", None)?;
    let kubeconfig = pki.folder.join("controller-manager.yaml");
    let kubeconfig = pki.kubeconfig(&kubeconfig, &place.url(), &client)?;
    let mut command = programs::kubernetes("kube-controller-manager")?;
    let flags: &[(&str, &dyn std::fmt::Display)] = &[
        ("kubeconfig", &kubeconfig.display()),
        ("secure-port", &0),
        ("leader-elect", &false),
        (
            "service-account-private-key-file",
            &pki.service_accounts.key.display(),
        ),
        ("root-ca-file", &pki.clients.certificate.display()),
        // Each controller has a role of its own; this user has hardly any rights.
        ("use-service-account-credentials", &true),
        // Tests wait for it.
        ("horizontal-pod-autoscaler-sync-period", &"2s"),
        ("horizontal-pod-autoscaler-downscale-stabilization", &"10s"),
        ("horizontal-pod-autoscaler-initial-readiness-delay", &"0s"),
        ("horizontal-pod-autoscaler-cpu-initialization-period", &"0s"),
    ];
    command.args(
        flags
            .iter()
            .map(|(name, value)| format!("--{name}={value}")),
    );
    Ok(command)
}
