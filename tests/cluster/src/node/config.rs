//! Configuration files of the node's daemons. JSON is YAML.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{DNS, NAME, NODE_IP, PODS};
use crate::authority::Pair;

/// The sandbox's image, made by `cargo xtask images --node`.
pub(super) const PAUSE: &str = "registry.example.com/opes/pause:test";

const CNI_PROGRAMS: &str = "/usr/lib/cni";

/// containerd 1.6, with everything that it keeps in `folder`.
pub(super) fn containerd(folder: &Path) -> Result<()> {
    let home = folder.join("containerd");
    fs::create_dir_all(&home)?;
    let home = home.display();
    // Without restrict_oom_score_adj, runc dies where root may not lower it.
    let text = format!(
        r#"version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "{home}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PROGRAMS}"
conf_dir = "{home}/cni"
"#
    );
    fs::write(folder.join("containerd.toml"), text)?;
    cni(folder)
}

/// One bridge; pods see each other and the node, addresses are not hidden from anybody.
fn cni(folder: &Path) -> Result<()> {
    let networks = json!({
        "cniVersion": "1.0.0",
        "name": "opes",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "isDefaultGateway": true,
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]]},
        }],
    });
    let configurations = folder.join("containerd/cni");
    fs::create_dir_all(&configurations)?;
    write(&configurations.join("opes.conflist"), &networks)
}

/// The kubelet. No eviction and no image collection: a full disk of the machine is not what is tested.
pub(super) fn kubelet(folder: &Path, authority: &Path, serving: &Pair) -> Result<()> {
    fs::write(folder.join("resolv.conf"), "options timeout:1\n")?;
    let nothing = "0%";
    write(
        &folder.join("kubelet.json"),
        &json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_IP,
            "failCgroupV1": false,
            "failSwapOn": false,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", folder.file_name().unwrap_or_default().display()),
            "containerRuntimeEndpoint": format!("unix://{}/containerd/containerd.sock", folder.display()),
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": authority}},
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": serving.certificate,
            "tlsPrivateKeyFile": serving.key,
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS],
            "resolvConf": folder.join("resolv.conf"),
            "podLogsDir": folder.join("pods"),
            "makeIPTablesUtilChains": false,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {
                "memory.available": nothing, "nodefs.available": nothing, "nodefs.inodesFree": nothing,
                "imagefs.available": nothing, "imagefs.inodesFree": nothing,
            },
            "healthzBindAddress": "127.0.0.1",
            // How soon a changed Secret is in its pods; a minute and a half by default.
            "syncFrequency": "5s",
            "shutdownGracePeriod": "0s",
            "maxPods": 110,
        }),
    )
}

/// kube-proxy, in the one mode that needs neither IPVS nor legacy tables. Conntrack settings are the machine's, not ours.
pub(super) fn proxy(folder: &Path, kubeconfig: &Path) -> Result<()> {
    write(
        &folder.join("kube-proxy.json"),
        &json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": kubeconfig},
            "mode": "nftables",
            "hostnameOverride": NAME,
            "clusterCIDR": PODS,
            "nodePortAddresses": [format!("{NODE_IP}/32")],
            "bindAddress": NODE_IP,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "conntrack": {
                "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
                "udpTimeout": "0s", "udpStreamTimeout": "0s",
            },
        }),
    )
}

fn write(file: &Path, value: &Value) -> Result<()> {
    fs::write(file, value.to_string())?;
    Ok(())
}
