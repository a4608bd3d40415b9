//! A whole node: control plane, scheduler, kubelet, kube-proxy and containerd in namespaces of their own, so pods really run.
//!
//! Needs root and Linux. Addresses inside are those of examples: the node is [`NODE_IP`], beside it is a machine outside the cluster
//! ([`OUTSIDE_IP`] and three more), and there is no way to anywhere else. NetworkPolicies are stored, not enforced.

mod config;
mod dns;
pub mod inside;

use std::fs;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ListParams, LogParams};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::cluster::output;
use crate::control_plane::daemons::{self, Pki, Place};
use crate::control_plane::ready;
use crate::group::{Group, until};
use crate::{Cluster, DEADLINE, programs};

use self::inside::Inside;

/// Name of the Node object.
pub const NAME: &str = "opes-node";
/// Where NodePorts answer.
pub const NODE_IP: &str = "192.0.2.10";
/// First address of the machine outside; 192.0.2.101 to 103 are its others.
pub const OUTSIDE_IP: &str = "192.0.2.100";
/// The DNS server of pods.
const DNS: &str = NODE_IP;
const SERVICES: &str = "198.51.100.0/24";
const FIRST_SERVICE: &str = "198.51.100.1";
const PODS: &str = "203.0.113.0/24";

/// Names the folder of image archives.
const IMAGES: &str = "OPES_IMAGES";

const ENTER: &str = include_str!("node/enter.sh");

/// Where Debian has what daemons call.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running node.
pub struct Node {
    cluster: Cluster,
    /// The node's network: what a pod with `hostNetwork` sees.
    pub inside: Inside,
    /// The network of a machine that is no part of the cluster.
    pub outside: Inside,
    init: u32,
    group: Group,
}

// === impl Node ===

impl Node {
    /// Starts everything and waits until the node is Ready: about ten seconds.
    pub async fn start() -> Result<Self> {
        let group = Group::new()?;
        let init = namespaces(&group).await?;
        let inside = Inside::enter(Path::new(&format!("/proc/{init}/ns/net")))?;
        let outside = format!("/proc/{init}/root/run/netns/outside");
        let outside = Inside::enter(Path::new(&outside))?;
        let place = Place {
            address: NODE_IP.to_owned(),
            apiserver: 6443,
            etcd: 2379,
            etcd_peers: 2380,
            services: SERVICES.to_owned(),
        };
        let names = ["localhost", "127.0.0.1", NODE_IP, FIRST_SERVICE];
        let pki = Pki::new(&group.folder().join("pki"), &names)?;
        let api: SocketAddr = format!("{NODE_IP}:{}", place.apiserver).parse()?;
        let relay = inside.relay(api)?;
        let admin = pki.client("admin", Some("system:masters"))?;
        let kubeconfig = group.folder().join("admin.yaml");
        pki.kubeconfig(&kubeconfig, &format!("https://{relay}"), &admin)?;
        let node = Self {
            cluster: Cluster::new(&kubeconfig, Some(group.folder())).await?,
            inside,
            outside,
            init,
            group,
        };
        node.start_daemons(&place, &pki).await?;
        let admin = pki.kubeconfig(&node.folder().join("inside.yaml"), &place.url(), &admin)?;
        let config = Cluster::new(&admin, None).await?.config();
        let address = format!("{DNS}:53").parse()?;
        node.inside
            .run(dns::serve(address, config))
            .await?
            .context("DNS")?;
        until(&node.group, "node Ready", DEADLINE, || node.is_ready()).await?;
        node.restore_settings();
        Ok(node)
    }

    /// The one that all tests of this program share; it goes when the program ends.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Node> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Where NodePorts answer.
    pub fn node_ip(&self) -> std::net::IpAddr {
        [192, 0, 2, 10].into()
    }

    /// Loads `NAME.tar` of the folder that `OPES_IMAGES` names, and returns the reference under which pods find it.
    pub fn load(&self, name: &str) -> Result<String> {
        self.load_image(&images()?.join(format!("{name}.tar")))?;
        let listed = self.ctr(&["images", "list", "-q"])?;
        let is_it = |line: &&str| line.contains(&format!("/{name}:"));
        let reference = listed.lines().find(is_it).map(str::to_owned);
        reference.with_context(|| format!("{name} is not in its archive; there are {listed}"))
    }

    /// Loads an OCI archive under the names in it, with digests.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        ensure!(
            archive.exists(),
            "{} is missing; run `cargo xtask images`",
            archive.display()
        );
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", "--digests", &archive])?;
        Ok(())
    }

    /// Loads `NAME.tar` as [`Self::load`] does, what is for another platform (`linux/arm64`) in it; an error if there is nothing.
    pub fn load_for(&self, name: &str, platform: &str) -> Result<()> {
        let archive = images()?.join(format!("{name}.tar")).display().to_string();
        self.ctr(&["images", "import", "--platform", platform, &archive])?;
        Ok(())
    }

    /// Makes `command` one that runs in the node's namespaces, as a daemon of it would.
    pub fn enter(&self, command: &Command) -> Command {
        enter(self.init, command)
    }

    /// A connection from outside the cluster, from its first address.
    pub async fn connect(&self, address: SocketAddr) -> Result<std::net::TcpStream> {
        self.outside.connect(address).await
    }

    /// A loopback port of the machine behind which is `address` as it is seen from outside the cluster. The client's
    /// address is [`OUTSIDE_IP`] for all who come this way.
    pub fn forward(&self, address: SocketAddr) -> Result<SocketAddr> {
        self.outside.relay(address)
    }

    /// A volume of the node's disk, owned by the user of our images, for one claim that names no storage class.
    pub async fn hostpath_pv(&self, name: &str, size: &str) -> Result<()> {
        let path = self.folder().join("volumes").join(name);
        fs::create_dir_all(&path)?;
        std::os::unix::fs::chown(&path, Some(65_532), Some(65_532))?;
        let volume = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": path, "type": "Directory"},
            },
        });
        let volumes: Api<core::PersistentVolume> = Api::all(self.client()?);
        let volume = serde_json::from_value(volume)?;
        volumes
            .create(&kube::api::PostParams::default(), &volume)
            .await?;
        Ok(())
    }

    /// Writes what somebody needs who was not there: objects, events, logs of pods and daemons. For a test that fails.
    pub async fn dump(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        for (file, arguments) in [
            (
                "objects.yaml",
                &[
                    "get",
                    "all,configmaps,endpointslices,hpa,pdb,networkpolicies,opesrules,calloutservices",
                    "-A",
                    "-o",
                    "yaml",
                ][..],
            ),
            ("pods.txt", &["describe", "pods", "-A"]),
            (
                "events.txt",
                &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            ),
        ] {
            // A kind that is not installed is no reason to lose the rest.
            let text = self
                .kubectl(arguments)
                .unwrap_or_else(|error| format!("{error:#}"));
            fs::write(to.join(file), text)?;
        }
        let client = self.client()?;
        for pod in Api::<core::Pod>::all(client.clone())
            .list(&ListParams::default())
            .await?
        {
            let (Some(name), Some(namespace)) = (pod.metadata.name, pod.metadata.namespace) else {
                continue;
            };
            let pods: Api<core::Pod> = Api::namespaced(client.clone(), &namespace);
            let text = pods.logs(&name, &LogParams::default()).await;
            let text = text.unwrap_or_else(|error| error.to_string());
            fs::write(to.join(format!("{namespace}-{name}.log")), text)?;
        }
        for entry in fs::read_dir(self.folder())? {
            let path = entry?.path();
            if let (Some("log"), Some(name)) = (
                path.extension().and_then(|it| it.to_str()),
                path.file_name(),
            ) {
                fs::copy(&path, to.join(name))?;
            }
        }
        Ok(())
    }

    /// The node's own folder.
    pub fn folder(&self) -> &Path {
        self.group.folder()
    }

    async fn start_daemons(&self, place: &Place, pki: &Pki) -> Result<()> {
        let folder = self.folder();
        self.spawn("etcd", &daemons::etcd(place, &self.group.memory()?)?)?;
        self.spawn("kube-apiserver", &daemons::node_apiserver(place, pki)?)?;
        config::containerd(folder)?;
        let mut containerd = programs::system("/usr/bin/containerd", "containerd")?;
        containerd
            .arg("--config")
            .arg(folder.join("containerd.toml"));
        self.spawn("containerd", &containerd)?;
        until(&self.group, "containerd", DEADLINE, || async {
            self.ctr(&["version"])
        })
        .await?;
        self.load("pause")?;

        until(&self.group, "control plane ready", DEADLINE, || {
            ready(&self.cluster)
        })
        .await?;
        self.spawn(
            "kube-controller-manager",
            &daemons::controller_manager(place, pki)?,
        )?;
        self.spawn("kube-scheduler", &daemons::scheduler(place, pki)?)?;
        let serving = pki.server("kubelet", &[NODE_IP, NAME])?;
        config::kubelet(folder, pki.authority(), &serving)?;
        self.spawn("kubelet", &self.kubelet(place, pki)?)?;
        let client = pki.client("system:kube-proxy", None)?;
        let kubeconfig = pki.kubeconfig(&folder.join("kube-proxy.yaml"), &place.url(), &client)?;
        config::proxy(folder, &kubeconfig)?;
        let mut proxy = programs::kubernetes("kube-proxy")?;
        proxy.arg("--config").arg(folder.join("kube-proxy.json"));
        self.spawn("kube-proxy", &proxy)
    }

    fn kubelet(&self, place: &Place, pki: &Pki) -> Result<Command> {
        let folder = self.folder();
        let client = pki.client(&format!("system:node:{NAME}"), Some("system:nodes"))?;
        let kubeconfig = pki.kubeconfig(&folder.join("kubelet.yaml"), &place.url(), &client)?;
        let mut command = programs::kubernetes("kubelet")?;
        command
            .arg("--config")
            .arg(folder.join("kubelet.json"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--root-dir")
            .arg(folder.join("kubelet"))
            .args(["--hostname-override", NAME, "--node-ip", NODE_IP]);
        Ok(command)
    }

    /// Starts a daemon in the node's namespaces that ends with the node; what it says is in `NAME.log` of [`Self::folder`].
    pub fn spawn(&self, name: &str, command: &Command) -> Result<()> {
        self.group.spawn(name, self.enter(command))?;
        Ok(())
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = programs::system("/usr/bin/ctr", "containerd")?;
        let socket = self.folder().join("containerd/containerd.sock");
        command
            .arg("--address")
            .arg(socket)
            .args(["--namespace", "k8s.io"])
            .args(arguments);
        output(self.enter(&command), "")
    }

    async fn is_ready(&self) -> Result<()> {
        let node = Api::<core::Node>::all(self.client()?).get(NAME).await?;
        let conditions = node.status.and_then(|it| it.conditions).unwrap_or_default();
        let ready = conditions.iter().find(|it| it.type_ == "Ready");
        let message = ready
            .and_then(|it| it.message.as_deref())
            .unwrap_or_default();
        ensure!(
            ready.is_some_and(|it| it.status == "True"),
            "not Ready: {message}"
        );
        // Pods cannot be made without it.
        let accounts: Api<core::ServiceAccount> = Api::default_namespaced(self.client()?);
        accounts.get("default").await?;
        Ok(())
    }

    /// What the kubelet has set for the whole machine goes back to what it was. Tear-down does the same.
    fn restore_settings(&self) {
        let noted = fs::read_to_string(self.folder().join("sysctl")).unwrap_or_default();
        for (path, value) in noted.lines().filter_map(|line| line.split_once(' ')) {
            // Where we may not, the kubelet could not either.
            let _ = fs::write(format!("/proc/sys/{path}"), value);
        }
    }
}

impl Deref for Node {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Makes the namespaces and returns the id of their process 1.
async fn namespaces(group: &Group) -> Result<u32> {
    let folder = group.folder();
    for hidden in ["/run", "/var/lib", "/var/log"] {
        ensure!(
            !folder.starts_with(hidden),
            "TMPDIR may not be in {hidden}, which a node has its own of"
        );
    }
    let mut command = programs::system("/usr/bin/unshare", "util-linux")?;
    command
        .args([
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
        ])
        .args(["--propagation", "private", "--mount-proc"])
        .args(["sh", "-c", ENTER, "enter"])
        .arg(folder)
        .arg(SERVICES)
        .env("PATH", PATH);
    let unshare = group.spawn("namespaces", command)?;
    let inside = folder.join("inside");
    until(group, "namespaces", DEADLINE, || async {
        ensure!(inside.exists(), "{}", group.tail("namespaces"));
        Ok(())
    })
    .await?;
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
    children.trim().parse().context("the child of unshare")
}

fn enter(init: u32, command: &Command) -> Command {
    let mut entered = Command::new("nsenter");
    entered
        .args(["--mount", "--net", "--pid", "--uts", "--ipc", "--target"])
        .arg(init.to_string())
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args())
        .env("PATH", PATH);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            entered.env(name, value);
        }
    }
    entered
}

fn images() -> Result<PathBuf> {
    std::env::var_os(IMAGES)
        .map(PathBuf::from)
        .with_context(|| {
            format!(
                "{IMAGES} names no folder of images; run `cargo xtask images` and name its output"
            )
        })
}
