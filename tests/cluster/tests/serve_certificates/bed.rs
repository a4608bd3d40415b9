//! Two namespaces, a user with the operator's rights in them, and replicas that keep certificates there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use opes_cluster::{ControlPlane, DEADLINE, eventually};
use opes_host::Clock;
use opes_operator::certificates::{
    self, AuthorityConfig, Lifetimes, Metrics, OwnCertificate, Tell, edge_name, service_name,
};
use opes_operator::shared::{CertificateEnds, CertificateWanted};
use opes_telemetry::Registry;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use webpki::{EndEntityCert, KeyUsage};

pub(crate) const AUTHORITY: &str = "opes-ca";
pub(crate) const OPERATOR: &str = "operator";

/// Two namespaces, a user with the operator's rights in them, and what is wanted there.
pub(crate) struct Bed {
    pub(crate) plane: Plane,
    pub(crate) home: String,
    pub(crate) mail: String,
    pub(crate) wanted: watch::Sender<Arc<Vec<CertificateWanted>>>,
}

/// Shared with the other tests, or not where requests are counted.
pub(crate) enum Plane {
    Shared(&'static ControlPlane),
    Own(Box<ControlPlane>),
}

impl std::ops::Deref for Plane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        match self {
            Self::Shared(plane) => plane,
            Self::Own(plane) => plane,
        }
    }
}

/// One replica's certificates.
pub(crate) struct Replica {
    pub(crate) own: watch::Receiver<Option<Arc<OwnCertificate>>>,
    pub(crate) ends: watch::Receiver<Arc<CertificateEnds>>,
    pub(crate) leading: watch::Sender<bool>,
    pub(crate) registry: Registry,
    /// Seconds that its clock is ahead.
    pub(crate) ahead: Arc<AtomicU64>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

impl Bed {
    pub(crate) async fn new() -> Result<Self> {
        Self::on(Plane::Shared(ControlPlane::shared().await?)).await
    }

    pub(crate) async fn on(plane: Plane) -> Result<Self> {
        let home = plane.namespace("home").await?;
        let mail = plane.namespace("mail").await?;
        grant(&plane, &home, &mail)?;
        let wanted = watch::Sender::new(Arc::new(Vec::new()));
        Ok(Self {
            plane,
            home,
            mail,
            wanted,
        })
    }

    pub(crate) fn replica(&self, leads: bool, lifetimes: Lifetimes) -> Result<Replica> {
        let client = self
            .plane
            .client_as(&self.user(), &["system:authenticated"])?;
        let (registry, shutdown) = (Registry::new(), CancellationToken::new());
        let ahead = Arc::new(AtomicU64::new(0));
        let shifted = Arc::clone(&ahead);
        let clock = Clock::Other(Arc::new(move || {
            SystemTime::now() + Duration::from_secs(shifted.load(Ordering::Relaxed))
        }));
        let config = AuthorityConfig {
            namespace: self.home.clone(),
            secret: AUTHORITY.into(),
            own_names: vec![format!("opes-operator.{}.svc", self.home)],
            lifetimes,
            clock,
        };
        let (own, leading) = (watch::Sender::new(None), watch::Sender::new(leads));
        let (ends, known_ends) = watch::channel(Arc::default());
        let (heard, led) = (own.subscribe(), leading.subscribe());
        let running = tokio::spawn(certificates::run(
            client,
            config,
            self.wanted.subscribe(),
            led,
            Tell { own, ends },
            Metrics::register(&registry),
            shutdown.clone(),
        ));
        Ok(Replica {
            own: heard,
            ends: known_ends,
            leading,
            registry,
            ahead,
            shutdown,
            running,
        })
    }

    pub(crate) fn user(&self) -> String {
        format!("{OPERATOR}-{}", self.home)
    }

    pub(crate) fn want(&self, all: Vec<CertificateWanted>) {
        self.wanted.send_replace(Arc::new(all));
    }

    pub(crate) fn edge(&self) -> CertificateWanted {
        CertificateWanted {
            namespace: self.home.clone(),
            secret: "opes-edge-tls".into(),
            dns_names: vec![edge_name(&self.home)],
            owner: None,
            labels: BTreeMap::new(),
        }
    }

    pub(crate) fn scan(&self) -> CertificateWanted {
        let label = ("opes.dev/callout-service".to_owned(), "scan".to_owned());
        CertificateWanted {
            namespace: self.mail.clone(),
            secret: "opes-scan-tls".into(),
            dns_names: vec![service_name(&self.mail, "scan")],
            owner: None,
            labels: BTreeMap::from([label]),
        }
    }

    pub(crate) fn secrets(&self, namespace: &str) -> Result<Api<Secret>> {
        Ok(Api::namespaced(self.plane.client()?, namespace))
    }

    /// The Secret, once it is good for what `wanted` says.
    pub(crate) async fn good(&self, wanted: &CertificateWanted) -> Result<Secret> {
        let api = self.secrets(&wanted.namespace)?;
        eventually(&wanted.secret, DEADLINE, || async {
            let Some(found) = api.get_opt(&wanted.secret).await? else {
                return Ok(None);
            };
            verify(&found, &wanted.dns_names)?;
            Ok(Some(found))
        })
        .await
    }

    pub(crate) async fn authority(&self) -> Result<Secret> {
        let api = self.secrets(&self.home)?;
        eventually(AUTHORITY, DEADLINE, || async {
            Ok(api.get_opt(AUTHORITY).await?)
        })
        .await
    }
}

impl Replica {
    pub(crate) async fn own(&mut self) -> Result<Arc<OwnCertificate>> {
        let own = self.own.wait_for(Option::is_some);
        let own = tokio::time::timeout(DEADLINE, own).await??.clone();
        own.context("no certificate")
    }

    /// Waits until a figure is what `right` says.
    pub(crate) async fn figure(&self, name: &str, right: impl Fn(f64) -> bool) -> Result<()> {
        eventually(name, DEADLINE, || async {
            let text = self.registry.encode()?;
            let lines = text.lines().filter_map(|line| line.strip_prefix(name));
            let figure: f64 = lines.map(|value| value.trim().parse().unwrap_or(0.0)).sum();
            Ok(right(figure).then_some(()))
        })
        .await
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(tokio::time::timeout(DEADLINE, self.running).await??)
    }
}

/// Exactly the rights of docs/adr/0026-certificates.md.
pub(crate) fn grant(plane: &ControlPlane, home: &str, mail: &str) -> Result<()> {
    let rule = |verbs: &[&str], names: &[&str]| json!({"apiGroups": [""], "resources": ["secrets"], "verbs": verbs, "resourceNames": names});
    let mut items = Vec::new();
    for (namespace, rules) in [
        (
            home,
            vec![
                rule(&["get", "list", "watch", "update"], &[AUTHORITY]),
                rule(&["create", "patch"], &[]),
            ],
        ),
        (mail, vec![rule(&["create", "patch"], &[])]),
    ] {
        let metadata = json!({"name": OPERATOR, "namespace": namespace});
        items.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules,
        }));
        items.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": OPERATOR},
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("{OPERATOR}-{home}"),
            }],
        }));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    plane.kubectl_with(&["apply", "-f", "-"], &list.to_string())?;
    Ok(())
}

pub(crate) fn text(secret: &Secret, name: &str) -> Result<String> {
    let data = secret.data.as_ref().and_then(|data| data.get(name));
    let value = data.with_context(|| format!("{name} is missing"))?;
    Ok(String::from_utf8(value.0.clone())?)
}

pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
}

/// The certificate is one of the authorities', for these names and both ends of TLS, at this moment.
pub(crate) fn verify(secret: &Secret, names: &[String]) -> Result<()> {
    ensure!(secret.type_.as_deref() == Some("kubernetes.io/tls"));
    ensure!(text(secret, "tls.key")?.contains("PRIVATE KEY"));
    verify_pem(&text(secret, "tls.crt")?, &text(secret, "ca.crt")?, names)
}

pub(crate) fn verify_pem(leaf: &str, ca: &str, names: &[String]) -> Result<()> {
    let (leaf, roots) = (certificates(leaf)?, certificates(ca)?);
    let anchors: Vec<_> = roots
        .iter()
        .map(webpki::anchor_from_trusted_cert)
        .collect::<Result<_, _>>()?;
    let leaf = EndEntityCert::try_from(leaf.first().context("empty")?)?;
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &[],
            UnixTime::now(),
            usage,
            None,
            None,
        )?;
    }
    for name in names {
        leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name.as_str())?)?;
    }
    Ok(())
}

/// What is written: by all, of Secrets.
pub(crate) async fn writes(bed: &Bed) -> Result<f64> {
    let counted = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"secrets\"")
            && !line.contains("verb=\"GET\"")
            && !line.contains("verb=\"LIST\"")
            && !line.contains("verb=\"WATCH\"")
            && !line.contains("dry_run=\"All\"")
    };
    let text = bed.plane.metrics().await?;
    let values = text.lines().filter(counted);
    Ok(values
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum())
}
