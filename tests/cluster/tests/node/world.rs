//! The cluster of the story, the next hop behind it, and what the steps have in common.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_cluster::load::{Load, Sent, once_each};
use opes_cluster::{Node, Prometheus};
use opes_e2e::hop::{Arrival, Hop, Manners};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Namespace of the release.
pub(crate) const NAMESPACE: &str = "opes";
/// Where mail comes in on each node.
pub(crate) const NODE_PORT: u16 = 30_025;
/// The next hop.
const HOP: &str = "192.0.2.101:25";
/// Longest time for anything in the cluster to come about.
pub(crate) const PATIENCE: Duration = Duration::from_mins(6);
/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(300);

/// See the module.
pub(crate) struct World<'n> {
    /// The cluster.
    pub(crate) node: &'n Node,
    /// Where edges deliver to, on a machine outside.
    pub(crate) hop: Hop,
    /// The NodePort as this process reaches it, by way of the machine outside.
    door: SocketAddr,
    /// Messages sent one by one so far.
    count: AtomicUsize,
    /// Who watches all of it, once that step has come.
    watcher: OnceLock<Prometheus>,
}

impl<'n> World<'n> {
    /// Loads the images and starts the next hop.
    pub(crate) async fn new(node: &'n Node) -> Result<Self> {
        for archive in images()? {
            node.load_image(&archive)?;
        }
        let hop = node
            .outside
            .run(Hop::start_at(HOP.parse()?, Manners::default()))
            .await??;
        let door = node.forward(SocketAddr::new(node.node_ip(), NODE_PORT))?;
        Ok(Self {
            node,
            hop,
            door,
            count: AtomicUsize::new(0),
            watcher: OnceLock::new(),
        })
    }

    /// From now on this one watches.
    pub(crate) fn watch(&self, prometheus: Prometheus) -> Result<()> {
        let already = self.watcher.set(prometheus).is_err();
        ensure!(!already, "two Prometheus");
        Ok(())
    }

    /// Who watches.
    pub(crate) fn prometheus(&self) -> Result<&Prometheus> {
        self.watcher.get().context("nobody watches yet")
    }

    /// `kubectl --namespace opes …`.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", NAMESPACE];
        self.node.kubectl(&[&namespace, arguments].concat())
    }

    /// `kubectl apply` of a text.
    pub(crate) fn apply(&self, manifest: &str) -> Result<String> {
        let arguments = [
            "--namespace",
            NAMESPACE,
            "apply",
            "--server-side",
            "-f",
            "-",
        ];
        self.node.kubectl_with(&arguments, manifest)
    }

    /// An object as JSON.
    pub(crate) fn get(&self, what: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], what].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits for a condition of objects, as a user would.
    pub(crate) fn wait_for(&self, condition: &str, what: &str) -> Result<String> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&["wait", &format!("--for={condition}"), what, &timeout])
    }

    /// Waits until `look` gives something.
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = look(self);
            match seen {
                Ok(Some(found)) => return Ok(found),
                Ok(None) | Err(_) if Instant::now() < deadline => sleep(LOOK).await,
                Ok(None) => anyhow::bail!("not within {PATIENCE:?}: {what}"),
                Err(error) => {
                    return Err(error).with_context(|| format!("not within {PATIENCE:?}: {what}"));
                }
            }
        }
    }

    /// Sends one message with swaks and gives back what arrived at the next hop, or the transcript of a refusal.
    pub(crate) async fn mail(&self, arguments: &[&str]) -> Result<Arrival> {
        let subject = format!("single {}", self.count.fetch_add(1, Ordering::Relaxed));
        let server = self.door.to_string();
        let usual = [
            "--server",
            &server,
            "--from",
            "steve@example.org",
            "--to",
            "paul@example.com",
        ];
        let header = format!("Subject: {subject}");
        // A service may have put a mark before the subject.
        let line = format!("{subject}\r\n");
        let mut swaks = tokio::process::Command::new("swaks");
        swaks
            .args(usual)
            .args(["--header", &header, "--timeout", "60"])
            .args(arguments);
        let output = swaks.output().await.context("swaks")?;
        let transcript = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "not taken:\n{transcript}");
        let arrivals = self.hop.arrivals();
        let ours = |arrival: &&Arrival| String::from_utf8_lossy(&arrival.content).contains(&line);
        let arrival = arrivals.iter().find(ours).cloned();
        arrival.with_context(|| format!("250 and nothing arrived:\n{transcript}"))
    }

    /// A steady load from outside.
    pub(crate) async fn load(
        &self,
        label: &'static str,
        clients: u32,
        every: Duration,
    ) -> Result<Load> {
        let edge = SocketAddr::new(self.node.node_ip(), NODE_PORT);
        self.node
            .outside
            .run(async move { Load::start(label, edge, clients, every) })
            .await
    }

    /// Ends the load and sees that nothing was lost, doubled or refused.
    pub(crate) async fn finish(&self, label: &str, load: Load) -> Result<Vec<Sent>> {
        let sent = load.finish().await?;
        once_each(label, &sent, &self.hop)?;
        let again: usize = sent.iter().map(|message| message.again.len()).sum();
        let slowest = sent
            .iter()
            .map(|message| message.took)
            .max()
            .unwrap_or_default();
        println!(
            "{label}: {} messages, each arrived once; sent again {again}, slowest {slowest:?}",
            sent.len()
        );
        Ok(sent)
    }

    /// How many of the messages of this label that arrived behind the first so many each pod of the stamper has stamped.
    pub(crate) fn stamps(&self, label: &str, behind: usize) -> BTreeMap<String, usize> {
        let mut stamps = BTreeMap::new();
        let start = format!("{label}-");
        for arrival in self.hop.arrivals().iter().skip(behind) {
            let content = String::from_utf8_lossy(&arrival.content).into_owned();
            let value = |field: &str| content.lines().find_map(|line| line.strip_prefix(field));
            if value("Subject: ").is_some_and(|subject| subject.starts_with(&start)) {
                let pod = value("X-Stamp: ").unwrap_or("nobody").to_owned();
                *stamps.entry(pod).or_default() += 1;
            }
        }
        stamps
    }

    /// Each message has arrived, perhaps more than once.
    pub(crate) fn at_least_once(&self, label: &str, sent: &[Sent]) -> Result<()> {
        let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
        for arrival in self.hop.arrivals() {
            let content = String::from_utf8_lossy(&arrival.content).into_owned();
            let subject = content
                .lines()
                .find_map(|line| line.strip_prefix("Subject: "));
            *arrived
                .entry(subject.unwrap_or_default().to_owned())
                .or_default() += 1;
        }
        let lost: Vec<&Sent> = sent
            .iter()
            .filter(|message| !arrived.contains_key(&message.name))
            .collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let twice = |message: &&Sent| arrived.get(&message.name).is_some_and(|times| *times > 1);
        let sure: Vec<&Sent> = sent
            .iter()
            .filter(twice)
            .filter(|message| !message.unanswered)
            .collect();
        ensure!(
            sure.is_empty(),
            "doubled, although each attempt had its reply: {sure:?}"
        );
        let doubled = sent.iter().filter(twice).count();
        println!(
            "{label}: {} messages, none lost, {doubled} twice because nobody could tell",
            sent.len()
        );
        Ok(())
    }

    /// A figure at a pod's `/metrics`.
    pub(crate) fn metric(&self, pod: &str, name: &str) -> Result<f64> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9090/proxy/metrics");
        let text = self.node.kubectl(&["get", "--raw", &path])?;
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .with_context(|| format!("no {name} in\n{text}"))?;
        let value = line.rsplit(' ').next().unwrap_or_default();
        value.parse().with_context(|| line.to_owned())
    }

    /// Names of the pods of a component of the release, in order; those that are about to go too.
    pub(crate) fn pods(&self, component: &str) -> Result<Vec<String>> {
        let label = format!("app.kubernetes.io/component={component}");
        let path = "jsonpath={.items[*].metadata.name}";
        let names = self.kubectl(&["get", "pods", "-l", &label, "-o", path])?;
        let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Ready pods of a deployment or stateful set.
    pub(crate) fn ready(&self, workload: &str) -> Result<u64> {
        let object = self.get(&[workload])?;
        Ok(object["status"]["readyReplicas"]
            .as_u64()
            .unwrap_or_default())
    }

    /// Waits until so many pods of it are ready: one that answers its probe late is not for a moment.
    pub(crate) async fn is_ready(&self, workload: &str, pods: u64) -> Result<()> {
        self.eventually(&format!("{pods} of {workload}"), |world| {
            Ok((world.ready(workload)? == pods).then_some(()))
        })
        .await
    }

    /// Ends the program of a container as the kernel does when memory is out; the pod and its volumes stay.
    pub(crate) fn kill_container(&self, pod: &str) -> Result<()> {
        let script = "for process in /proc/[0-9]*; do \
             if [ \"$(readlink $process/exe)\" = /usr/bin/opes ] && tr '\\0' '\\n' <$process/environ | grep -qx HOSTNAME=$0; then \
             kill -9 ${process#/proc/} && exit 0; fi; done; exit 1";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, pod]);
        let status = self.node.enter(&command).status()?;
        ensure!(status.success(), "no process of {pod}");
        Ok(())
    }
}

/// OCI archives made by `cargo xtask images`.
fn images() -> Result<Vec<PathBuf>> {
    let folder = std::env::var_os("OPES_IMAGES")
        .context("OPES_IMAGES is not set; `cargo xtask test` makes the images and sets it")?;
    let entries = std::fs::read_dir(PathBuf::from(&folder))
        .with_context(|| format!("{}", PathBuf::from(&folder).display()))?;
    let mut archives: Vec<PathBuf> = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    // Signatures are no images.
    archives.retain(|path| {
        let name = path.to_string_lossy();
        name.ends_with(".tar") && !name.ends_with(".sig.tar")
    });
    archives.sort();
    ensure!(
        !archives.is_empty(),
        "no images in {}",
        PathBuf::from(folder).display()
    );
    Ok(archives)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The chart.
pub(crate) fn chart() -> PathBuf {
    root().join("charts/opes")
}

/// A file below `examples/`.
pub(crate) fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}
