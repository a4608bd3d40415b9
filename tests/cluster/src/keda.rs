//! KEDA itself beside a control plane: its operator, metrics adapter and admission webhooks as processes, with its custom resource
//! definitions.
//!
//! Its programs take minutes to compile, so that they are not among those that every test finds: `OPES_KEDA` names their folder, and
//! `cargo xtask kubernetes keda` makes it. KEDA has an administrator's rights.

mod names;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::authority::Authority;
use crate::{ControlPlane, DEADLINE, eventually, ports};

use self::names::Names;

/// Names the folder: the three programs, and `crds`.
const VARIABLE: &str = "OPES_KEDA";

const OPERATOR: &str = "keda-operator";
const ADAPTER: &str = "keda-adapter";
const WEBHOOKS: &str = "keda-webhooks";
/// The Service that the API server asks for metrics.
const METRICS_SERVICE: &str = "keda-metrics-apiserver";

/// A running KEDA. It goes with its control plane.
pub struct Keda {
    names: Names,
}

/// What its programs have in common.
struct Layout {
    programs: PathBuf,
    namespace: String,
    kubeconfig: PathBuf,
    /// `tls.crt`, `tls.key`, `ca.crt`: what they show each other.
    certificates: PathBuf,
    /// Where operator and webhooks are asked whether they are ready.
    probes: [u16; 2],
    /// Where the adapter asks the operator.
    metrics: u16,
    /// Where the API server asks the adapter, and the webhooks.
    api: u16,
    admission: u16,
}

// === impl Keda ===

impl Keda {
    /// Starts it for all namespaces, and waits until it answers for `external.metrics.k8s.io`.
    pub async fn start(plane: &ControlPlane) -> Result<Self> {
        let programs = folder()?;
        let crds = plane.apply_crds_of(&programs.join("crds")).await?;
        ensure!(crds > 0, "{}/crds is empty", programs.display());
        let layout = Layout::new(plane, programs).await?;
        let names = Names::start().await?;
        plane.spawn(OPERATOR, layout.operator(names.port))?;
        plane.spawn(ADAPTER, layout.adapter())?;
        plane.spawn(WEBHOOKS, layout.webhooks())?;
        for port in layout.probes {
            plane.until("KEDA ready", || probe(port)).await?;
        }
        layout.register(plane)?;
        let registered = eventually("KEDA's metrics API", DEADLINE, || async {
            plane.raw("/apis/external.metrics.k8s.io/v1beta1").await?;
            Ok(Some(()))
        });
        registered
            .await
            .with_context(|| plane.tail(ADAPTER).unwrap_or_default())?;
        Ok(Self { names })
    }

    /// From now on this `HOST:PORT` is this port of the loopback address to KEDA, as DNS and a Service would have it.
    pub fn route(&self, address: &str, port: u16) {
        self.names.route(address, port);
    }
}

// === impl Layout ===

impl Layout {
    async fn new(plane: &ControlPlane, programs: PathBuf) -> Result<Self> {
        let namespace = plane.namespace("keda").await?;
        let certificates = plane.folder()?.join("keda");
        let api = format!("{METRICS_SERVICE}.{namespace}.svc");
        let authority = Authority::new(&certificates, "ca")?;
        authority.peer("tls", &["localhost", "127.0.0.1", &api])?;
        Ok(Self {
            programs,
            namespace,
            kubeconfig: plane.kubeconfig().to_owned(),
            certificates,
            probes: [ports::free()?, ports::free()?],
            metrics: ports::free()?,
            api: ports::free()?,
            admission: ports::free()?,
        })
    }

    fn command(&self, program: &str, flags: &[(&str, &dyn std::fmt::Display)]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .args(
                flags
                    .iter()
                    .map(|(name, value)| format!("--{name}={value}")),
            )
            .env("KUBECONFIG", &self.kubeconfig)
            .env("POD_NAMESPACE", &self.namespace)
            .env("KEDA_CLUSTER_OBJECT_NAMESPACE", &self.namespace)
            // All.
            .env("WATCH_NAMESPACE", "");
        command
    }

    fn operator(&self, names: u16) -> Command {
        let mut command = self.command(
            OPERATOR,
            &[
                ("enable-prometheus-metrics", &false),
                (
                    "health-probe-bind-address",
                    &format!("127.0.0.1:{}", self.probes[0]),
                ),
                (
                    "metrics-service-bind-address",
                    &format!("127.0.0.1:{}", self.metrics),
                ),
                ("cert-dir", &self.certificates.display()),
                ("enable-webhook-patching", &false),
                ("enable-apiservice-patching", &false),
            ],
        );
        // What is asked on the loopback address goes there without it.
        command.env("HTTPS_PROXY", format!("http://127.0.0.1:{names}"));
        command
    }

    fn adapter(&self) -> Command {
        let (certificates, kubeconfig) = (self.certificates.display(), self.kubeconfig.display());
        self.command(
            ADAPTER,
            &[
                (
                    "metrics-service-address",
                    &format!("127.0.0.1:{}", self.metrics),
                ),
                ("bind-address", &"127.0.0.1"),
                ("secure-port", &self.api),
                ("cert-dir", &certificates),
                ("tls-cert-file", &format!("{certificates}/tls.crt")),
                ("tls-private-key-file", &format!("{certificates}/tls.key")),
                ("lister-kubeconfig", &kubeconfig),
                ("authentication-kubeconfig", &kubeconfig),
                ("authorization-kubeconfig", &kubeconfig),
                // Its own metrics, on every address: on a port that nobody is told.
                ("port", &0),
            ],
        )
    }

    fn webhooks(&self) -> Command {
        self.command(
            WEBHOOKS,
            &[
                ("metrics-bind-address", &0),
                (
                    "health-probe-bind-address",
                    &format!("127.0.0.1:{}", self.probes[1]),
                ),
                ("cert-dir", &self.certificates.display()),
                ("port", &self.admission),
            ],
        )
    }

    /// What KEDA's manifests have for one kind; here, who does not answer is an error.
    fn webhook(&self, kind: &str, bundle: &k8s_openapi::ByteString) -> serde_json::Value {
        let url = format!(
            "https://localhost:{}/validate-keda-sh-v1alpha1-{kind}",
            self.admission
        );
        json!({
            "name": format!("v{kind}.kb.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"url": url, "caBundle": bundle},
            "rules": [{"apiGroups": ["keda.sh"], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"], "resources": [format!("{kind}s")]}],
        })
    }

    /// As KEDA's manifests do it, but that the Service leads to this machine.
    fn register(&self, plane: &ControlPlane) -> Result<()> {
        let authority = fs::read(self.certificates.join("ca.crt"))?;
        let bundle = k8s_openapi::ByteString(authority);
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": METRICS_SERVICE, "namespace": self.namespace},
             "spec": {"type": "ExternalName", "externalName": "localhost"}},
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.external.metrics.k8s.io"}, "spec": {
                "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100, "caBundle": bundle,
                "service": {"namespace": self.namespace, "name": METRICS_SERVICE, "port": self.api},
            }},
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "keda-admission"},
             "webhooks": [self.webhook("scaledobject", &bundle), self.webhook("triggerauthentication", &bundle)]},
            // Who scales asks for metrics: KEDA's manifests give that right to the controller of HorizontalPodAutoscalers.
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "keda-external-metrics-reader"},
             "rules": [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["*"]}]},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "keda-external-metrics-reader"},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "keda-external-metrics-reader"},
             "subjects": [{"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}]},
        ]});
        plane.kubectl_with(&["apply", "-f", "-"], &objects.to_string())?;
        Ok(())
    }
}

/// Where its programs are.
fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os(VARIABLE).map(PathBuf::from);
    let folder = folder.with_context(|| {
        format!("{VARIABLE} does not name the folder of KEDA's programs: run `cargo xtask kubernetes keda`, which makes and prints it")
    })?;
    for name in [OPERATOR, ADAPTER, WEBHOOKS] {
        let program = folder.join(name);
        ensure!(
            program.exists(),
            "{VARIABLE}: {} is missing; run `cargo xtask kubernetes keda`",
            program.display()
        );
    }
    Ok(folder)
}

async fn probe(port: u16) -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.contains("200 OK"), answer);
    Ok(())
}
