//! Operators on a real API server: with the rights of `docs/reference/rbac.md` and no others, and edges that follow them over TLS.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use opes_cluster::{ControlPlane, DEADLINE, eventually, ports};
use opes_operator::config::{Config, Identity};
use opes_operator::kinds::Kind;
use opes_routing::{ClientTls, FollowerConfig, MutualFiles};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use crate::edge::Edge;

/// What the operator may do, as the page says it.
const RBAC: &str = include_str!("../../../../docs/reference/rbac.md");

/// Set: this process is an operator, with this `operator.yaml`.
const PROCESS: &str = "OPES_TEST_OPERATOR";

/// A namespace with an operator's rights in it.
pub(crate) struct Bed<'p> {
    pub(crate) plane: &'p ControlPlane,
    pub(crate) namespace: String,
    /// All namespaces are watched, with a ClusterRole.
    pub(crate) cluster_wide: bool,
    folder: tempfile::TempDir,
}

/// One replica, in this process.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) admin: u16,
    pub(crate) routing: u16,
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

/// One replica, in a process of its own.
pub(crate) struct Process {
    pub(crate) routing: u16,
    child: Child,
}

/// A condition, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) generation: i64,
    pub(crate) since: String,
}

// === impl Bed ===

impl<'p> Bed<'p> {
    /// In a namespace of its own, which is all that is watched.
    pub(crate) async fn new(plane: &'p ControlPlane) -> Result<Self> {
        Self::with(plane, false).await
    }

    /// Everything is watched.
    pub(crate) async fn cluster_wide(plane: &'p ControlPlane) -> Result<Self> {
        Self::with(plane, true).await
    }

    async fn with(plane: &'p ControlPlane, cluster_wide: bool) -> Result<Self> {
        ensure!(plane.apply_crds().await? > 0, "there are no definitions");
        let namespace = plane.namespace("core").await?;
        let folder = tempfile::tempdir()?;
        let bed = Self {
            plane,
            namespace,
            cluster_wide,
            folder,
        };
        bed.grant()?;
        // The API server goes by new roles a moment after it has taken them.
        eventually("the operator's rights", DEADLINE, || bed.has_rights()).await?;
        Ok(bed)
    }

    /// Name of the user that has the rights.
    pub(crate) fn user(&self) -> String {
        format!("operator-{}", self.namespace)
    }

    fn grant(&self) -> Result<()> {
        let (user, namespace) = (self.user(), &self.namespace);
        let watched = rules("watched")?;
        let role = |kind: &str, name: &str, rules: &Value| json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "rules": rules });
        let binding = |kind: &str, name: &str, role: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": name },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name },
                "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }],
            })
        };
        let objects = [
            role("Role", "own", &rules("own")?),
            binding("RoleBinding", "own", "Role"),
        ];
        self.kubectl_apply(Some(namespace), &objects)?;
        if self.cluster_wide {
            self.kubectl_apply(
                None,
                &[
                    role("ClusterRole", &user, &watched),
                    binding("ClusterRoleBinding", &user, "ClusterRole"),
                ],
            )
        } else {
            self.kubectl_apply(
                Some(namespace),
                &[
                    role("Role", "watched", &watched),
                    binding("RoleBinding", "watched", "Role"),
                ],
            )
        }
    }

    /// One question for each role.
    async fn has_rights(&self) -> Result<Option<()>> {
        let client = self.client()?;
        let rules: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &self.namespace, &Kind::OpesRule.resource());
        rules.list(&ListParams::default()).await?;
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        leases.get_opt("opes-operator").await?;
        Ok(Some(()))
    }

    fn kubectl_apply(&self, namespace: Option<&str>, objects: &[Value]) -> Result<()> {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        let mut arguments = vec!["apply", "-f", "-"];
        arguments.extend(namespace.iter().flat_map(|namespace| ["-n", namespace]));
        self.plane.kubectl_with(&arguments, &text.join("\n---\n"))?;
        Ok(())
    }

    /// As the operator.
    pub(crate) fn client(&self) -> Result<Client> {
        self.plane
            .client_as(&self.user(), &["system:authenticated"])
    }

    /// `operator.yaml` of a replica, and its ports for admin and routing.
    fn config(&self, more: &str) -> Result<(String, u16, u16)> {
        let (admin, routing) = (ports::free()?, ports::free()?);
        let watch = if self.cluster_wide {
            ""
        } else {
            self.namespace.as_str()
        };
        let metrics = if more.contains("metricsApi") {
            ""
        } else {
            "metricsApi: { enabled: off }\n"
        };
        let text = format!(
            "watch: {{ namespaces: [{watch}] }}\nadmin: {{ listen: '127.0.0.1:{admin}' }}\nrouting: {{ listen: '127.0.0.1:{routing}' }}\n\
             images: {{ registry: registry.example.com/opes, tag: '1' }}\n{more}{metrics}"
        );
        Ok((text, admin, routing))
    }

    /// Starts a replica and waits until it serves.
    pub(crate) async fn start(&self, name: &str) -> Result<Replica> {
        self.start_with(name, "").await
    }

    /// With more in its `operator.yaml`.
    pub(crate) async fn start_with(&self, name: &str, more: &str) -> Result<Replica> {
        let (text, admin, routing) = self.config(more)?;
        let config = Config::parse("operator.yaml", &text)?;
        let identity = Identity {
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        };
        let shutdown = CancellationToken::new();
        let running = opes_operator::run::run(config, identity, self.client()?, shutdown.clone());
        let task = tokio::spawn(running);
        let replica = Replica {
            name: name.to_owned(),
            admin,
            routing,
            shutdown,
            task,
        };
        replica.ready().await?;
        Ok(replica)
    }

    /// Starts a replica in a process of its own, which can be killed, and waits until it serves.
    pub(crate) async fn process(&self, name: &str) -> Result<Process> {
        let (text, admin, routing) = self.config("")?;
        let config = self.folder.path().join(format!("{name}.yaml"));
        std::fs::write(&config, text)?;
        let kubeconfig = self.folder.path().join(format!("{name}.kubeconfig"));
        self.plane
            .kubeconfig_as(&kubeconfig, &self.user(), &["system:authenticated"])?;
        let child = Command::new(std::env::current_exe()?)
            .args([
                "--exact",
                "--nocapture",
                "--test-threads=1",
                "control_plane::an_operator_that_can_be_killed",
            ])
            .env(PROCESS, &config)
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAMESPACE", &self.namespace)
            .env("POD_NAME", name)
            .stdout(Stdio::null())
            .spawn()?;
        let process = Process { routing, child };
        eventually(&format!("operator {name} ready"), DEADLINE, || async {
            Ok(is_ready(admin).await.then_some(()))
        })
        .await?;
        Ok(process)
    }

    /// An edge of this name that follows a replica, by its routing port, and whichever others that tells it of.
    pub(crate) async fn edge(&self, name: &str, routing: u16) -> Result<Edge> {
        self.edge_with(name, routing, self.edge_tls().await?)
    }

    /// With what it shows at hand.
    pub(crate) fn edge_with(&self, name: &str, routing: u16, tls: ClientTls) -> Result<Edge> {
        Ok(Edge::start(self.follower(name, routing, tls)?))
    }

    /// What an edge of this name needs to follow a replica.
    pub(crate) fn follower(
        &self,
        name: &str,
        routing: u16,
        tls: ClientTls,
    ) -> Result<FollowerConfig> {
        let address = format!("https://opes-operator.{}.svc:{routing}", self.namespace);
        let mut config = FollowerConfig::new(address.parse()?, name, tls);
        config.namespace.clone_from(&self.namespace);
        Ok(config)
    }

    /// What the operator made for edges.
    pub(crate) async fn edge_tls(&self) -> Result<ClientTls> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let secrets: Api<Secret> = Api::namespaced(self.plane.client()?, &self.namespace);
        let secret = eventually("the edges' certificate", DEADLINE, || async {
            Ok(secrets.get_opt("opes-edge-tls").await?)
        })
        .await?;
        let folder = self
            .folder
            .path()
            .join(format!("edge-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&folder)?;
        for (name, content) in secret.data.unwrap_or_default() {
            std::fs::write(folder.join(name), content.0)?;
        }
        let file = |name: &str| folder.join(name);
        Ok(ClientTls::client(MutualFiles {
            certificate: file("tls.crt"),
            key: file("tls.key"),
            ca: file("ca.crt"),
        })?)
    }

    /// Objects of a kind, as administrator.
    pub(crate) fn api(&self, kind: Kind) -> Result<Api<DynamicObject>> {
        Ok(Api::namespaced_with(
            self.plane.client()?,
            &self.namespace,
            &kind.resource(),
        ))
    }

    /// Makes or changes a rule or service, as somebody who writes YAML.
    pub(crate) async fn apply(&self, kind: Kind, name: &str, spec: &str) -> Result<DynamicObject> {
        let spec: Value =
            serde_saphyr::from_str(spec).map_err(|error| anyhow::anyhow!("{spec}: {error}"))?;
        let document = json!({ "apiVersion": kind.api_version(), "kind": kind.name(), "metadata": { "name": name }, "spec": spec });
        let parameters = PatchParams::apply("people").force();
        Ok(self
            .api(kind)?
            .patch(name, &parameters, &Patch::Apply(&document))
            .await?)
    }

    pub(crate) async fn rule(&self, name: &str, spec: &str) -> Result<DynamicObject> {
        self.apply(Kind::OpesRule, name, spec).await
    }

    pub(crate) async fn service(&self, name: &str, spec: &str) -> Result<DynamicObject> {
        self.apply(Kind::CalloutService, name, spec).await
    }

    pub(crate) async fn condition(
        &self,
        kind: Kind,
        name: &str,
        type_: &str,
    ) -> Result<Option<Condition>> {
        let object = self.api(kind)?.get(name).await?;
        Ok(condition(&object, type_))
    }

    /// Waits until a condition says this of the object's newest generation.
    pub(crate) async fn expect(
        &self,
        kind: Kind,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<Condition> {
        let mut last = None;
        let found = eventually(
            &format!("{name} {type_}={status} {reason}"),
            DEADLINE,
            || {
                let api = self.api(kind);
                async move {
                    let object = api?.get(name).await?;
                    let newest = object.metadata.generation.unwrap_or_default();
                    let found = condition(&object, type_);
                    Ok(found.filter(|found| {
                        found.status == status
                            && found.reason == reason
                            && found.generation == newest
                    }))
                }
            },
        )
        .await;
        if found.is_err() {
            last = self.condition(kind, name, type_).await?;
        }
        found.with_context(|| format!("it is {last:?}"))
    }

    /// Tells edges where these replicas are, by name and routing port, as the Service's EndpointSlices would.
    pub(crate) async fn announce(&self, replicas: &[(&str, u16)]) -> Result<()> {
        let slices = self.api(Kind::EndpointSlice)?;
        for (replica, port) in replicas {
            let name = format!("operator-{replica}");
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "opes-operator" } },
                "addressType": "IPv4",
                // Not a loopback address, which the API server takes for a mistake; edges here find every address on this machine.
                "endpoints": [{ "addresses": ["192.0.2.1"], "conditions": { "ready": true } }],
                "ports": [{ "name": "routing", "port": port, "protocol": "TCP" }],
            });
            slices
                .patch(
                    &name,
                    &PatchParams::apply("people").force(),
                    &Patch::Apply(&slice),
                )
                .await?;
        }
        Ok(())
    }

    /// Who holds the Lease; empty: nobody.
    pub(crate) async fn leader(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.plane.client()?, &self.namespace);
        let lease = leases.get_opt("opes-operator").await?;
        Ok(lease
            .and_then(|lease| lease.spec)
            .and_then(|spec| spec.holder_identity)
            .unwrap_or_default())
    }

    pub(crate) async fn wait_for_leader(&self, name: &str) -> Result<()> {
        eventually(&format!("{name} leads"), DEADLINE, || async {
            Ok((self.leader().await? == name).then_some(()))
        })
        .await
    }
}

/// One of an object's conditions.
pub(crate) fn condition(object: &DynamicObject, type_: &str) -> Option<Condition> {
    let conditions = object.data["status"]["conditions"].as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == type_)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some(Condition {
        status: text("status"),
        reason: text("reason"),
        message: text("message"),
        generation: found["observedGeneration"].as_i64().unwrap_or_default(),
        since: text("lastTransitionTime"),
    })
}

/// The rules of one block of the page.
pub(crate) fn rules(block: &str) -> Result<Value> {
    let marker = format!("# rbac: {block}\n");
    let (_, rest) = RBAC
        .split_once(&marker)
        .with_context(|| format!("the page has no block {block}"))?;
    let (text, _) = rest.split_once("```").context("a block without end")?;
    serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{block}: {error}"))
}

// === impl Replica ===

impl Replica {
    async fn ready(&self) -> Result<()> {
        let what = format!("operator {} ready", self.name);
        eventually(&what, DEADLINE, || async {
            ensure!(!self.task.is_finished(), "the operator has ended");
            Ok(is_ready(self.admin).await.then_some(()))
        })
        .await
    }

    /// `/metrics`.
    pub(crate) async fn metrics(&self) -> Result<String> {
        get(self.admin, "/metrics").await
    }

    /// Is it still there?
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// As SIGTERM does it.
    pub(crate) async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        self.task.await?
    }
}

async fn is_ready(admin: u16) -> bool {
    get(admin, "/readyz")
        .await
        .is_ok_and(|answer| answer.contains("200 OK"))
}

// === impl Process ===

impl Process {
    /// SIGKILL: nothing is given back.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Memory in RAM, in octets.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, or it ends now.
        let _ = self.kill();
    }
}

/// What a process of [`Bed::process`] does: an operator until somebody kills it. Nothing in any other process.
pub(crate) async fn be_a_process() -> Result<()> {
    let Some(config) = std::env::var_os(PROCESS) else {
        return Ok(());
    };
    opes_telemetry::init_logs(opes_telemetry::Format::Human, "warn")?;
    let config = Config::read(Path::new(&config))?;
    let client = Client::try_default().await?;
    opes_operator::run::run(
        config,
        Identity::from_env()?,
        client,
        CancellationToken::new(),
    )
    .await
}

/// An HTTP/1.1 answer, head and body.
pub(crate) async fn get(port: u16, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let work = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(Duration::from_secs(10), work).await?
}

/// Names of managers that own a field of an object.
pub(crate) fn owners_of(object: &DynamicObject, pointer: &str) -> Vec<String> {
    let entries = object.managed_fields().iter();
    let own = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| fields.pointer(pointer).is_some())
    });
    own.filter_map(|entry| entry.manager.clone()).collect()
}
