//! `external.metrics.k8s.io` behind a real aggregation layer, and a real HorizontalPodAutoscaler that scales on it.

mod control_plane {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::{Context as _, Result, ensure};
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::rbac::v1::ClusterRole;
    use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
    use kube::api::{Api, DeleteParams};
    use kube::{Client, ResourceExt as _};
    use opes_cluster::{ControlPlane, DEADLINE, eventually};
    use opes_operator::certificates::OwnCertificate;
    use opes_operator::certificates::authority::Authority;
    use opes_operator::edges::{EdgeHandle, Edges};
    use opes_operator::metrics_api::{self, Metrics, MetricsApiConfig, Standing};
    use opes_operator::serve::Served;
    use opes_operator::shared::{PoolFacts, Snapshot};
    use opes_proto::routing::{Hello, PoolLoad};
    use opes_telemetry::Registry;
    use opes_tls::ClientTls;
    use rustls_pki_types::ServerName;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsConnector;
    use tokio_util::sync::CancellationToken;

    const NAME: &str = "v1beta1.external.metrics.k8s.io";
    const METRIC: &str = "opes-callout-in-flight";
    const SELECTOR: &str = "labelSelector=opes.dev%2Fcallout-service%3Dscan";

    /// The metrics API of one operator, and the cluster around it.
    struct Bed {
        plane: ControlPlane,
        home: String,
        mail: String,
        authority: Authority,
        port: u16,
        own: watch::Sender<Option<Arc<OwnCertificate>>>,
        edges: Arc<Edges>,
        standing: watch::Receiver<Standing>,
        registry: Registry,
        shutdown: CancellationToken,
        running: JoinHandle<Result<()>>,
        // Keeps what is served alive.
        _snapshots: watch::Sender<Option<Arc<Snapshot>>>,
        _leading: watch::Sender<bool>,
    }

    impl Bed {
        async fn start(plane: ControlPlane) -> Result<Self> {
            let (home, mail) = (
                plane.namespace("home").await?,
                plane.namespace("mail").await?,
            );
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let port = listener.local_addr()?.port();
            let authority = Authority::make(now(), Duration::from_hours(48))?;
            let own = watch::Sender::new(Some(own(&authority, &authority.certificate, &home)?));
            prepare(&plane, &home)?;
            let facts = PoolFacts {
                target_in_flight: 20,
                ready: 1,
            };
            let snapshot = Snapshot {
                pools: BTreeMap::from([(format!("{mail}/scan"), facts)]),
                ..Snapshot::default()
            };
            let snapshots = watch::Sender::new(Some(Arc::new(snapshot)));
            let peers = watch::Sender::new(Arc::default());
            let (edges, registry) = (Edges::new(), Registry::new());
            let served = Served {
                snapshots: snapshots.subscribe(),
                peers: peers.subscribe(),
                edges: Arc::clone(&edges),
            };
            let (standing, stands) = watch::channel(Standing::Unknown);
            let (leading, shutdown) = (watch::Sender::new(true), CancellationToken::new());
            let running = tokio::spawn(metrics_api::run(
                client(&plane, &home)?,
                listener,
                own.subscribe(),
                config(&home, port),
                served,
                leading.subscribe(),
                standing,
                Metrics::register(&registry),
                shutdown.clone(),
            ));
            Ok(Self {
                plane,
                home,
                mail,
                authority,
                port,
                own,
                edges,
                standing: stands,
                registry,
                shutdown,
                running,
                _snapshots: snapshots,
                _leading: leading,
            })
        }

        fn registrations(&self) -> Result<Api<APIService>> {
            Ok(Api::all(self.plane.client()?))
        }

        async fn available(&self) -> Result<APIService> {
            let api = self.registrations()?;
            eventually("the API is available", DEADLINE, || async {
                let found = api.get_opt(NAME).await?.context("not registered")?;
                let conditions = found
                    .status
                    .as_ref()
                    .and_then(|status| status.conditions.clone());
                let text = format!("{conditions:?}");
                let mut all = conditions.unwrap_or_default().into_iter();
                ensure!(
                    all.any(|one| one.type_ == "Available" && one.status == "True"),
                    text
                );
                Ok(Some(found))
            })
            .await
        }

        /// As an HPA asks. An answer that is none yet is asked for again.
        async fn value(&self, right: &str) -> Result<Value> {
            let path = format!(
                "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{METRIC}?{SELECTOR}",
                self.mail
            );
            eventually(&format!("the value {right}"), DEADLINE, || async {
                let text = self.plane.kubectl(&["get", "--raw", &path])?;
                let list: Value = serde_json::from_str(&text)?;
                ensure!(list["items"][0]["value"] == right, text);
                Ok(Some(list))
            })
            .await
        }

        /// Waits until its metrics have this in them.
        async fn figure(&self, figure: &str) -> Result<()> {
            eventually(figure, DEADLINE, || async {
                let text = self.registry.encode()?;
                ensure!(text.contains(figure), text);
                Ok(Some(()))
            })
            .await
        }

        fn edge(&self, name: &str) -> Result<EdgeHandle> {
            Ok(self.edges.join(&Hello {
                edge: name.into(),
                namespace: self.home.clone(),
                version: String::new(),
                running: String::new(),
            })?)
        }

        fn load(&self, in_flight: u32, queued: u32) -> Vec<PoolLoad> {
            vec![PoolLoad {
                service: format!("{}/scan", self.mail),
                in_flight,
                queued,
            }]
        }

        async fn stop(self) -> Result<()> {
            self.shutdown.cancel();
            tokio::time::timeout(DEADLINE, self.running).await??
        }
    }

    /// As edges do: what was said is said again, for it is believed for a while only.
    fn say_again(edges: [EdgeHandle; 2], loads: [Vec<PoolLoad>; 2]) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                for (edge, load) in edges.iter().zip(&loads) {
                    edge.load(load);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
    }

    fn config(home: &str, port: u16) -> MetricsApiConfig {
        MetricsApiConfig {
            namespace: home.to_owned(),
            service: "opes-operator".into(),
            port,
            cluster_role: Some(format!("opes-operator-{home}")),
        }
    }

    fn now() -> u64 {
        opes_host::Clock::System.since_epoch().as_secs()
    }

    fn own(authority: &Authority, ca: &str, home: &str) -> Result<Arc<OwnCertificate>> {
        let names = [format!("opes-operator.{home}.svc")];
        let leaf = authority.issue(&names, now(), Duration::from_hours(24))?;
        Ok(Arc::new(OwnCertificate {
            certificate: leaf.certificate,
            key: leaf.key,
            ca: ca.to_owned(),
        }))
    }

    /// The operator's user, its rights (docs/adr/0026-certificates.md), and a Service that leads here.
    fn prepare(plane: &ControlPlane, home: &str) -> Result<()> {
        let operator = format!("opes-operator-{home}");
        let user =
            json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": operator}]);
        let rbac = "rbac.authorization.k8s.io/v1";
        let group = "rbac.authorization.k8s.io";
        let rule = |group: &str, resource: &str, verbs: &[&str], names: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs, "resourceNames": names});
        let apis = "apiregistration.k8s.io";
        let items = json!([
            {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": operator}, "rules": [
                rule(apis, "apiservices", &["create"], &[]),
                rule(apis, "apiservices", &["get", "list", "watch", "patch", "delete"], &[NAME]),
                rule(group, "clusterroles", &["get"], &[&operator]),
            ]},
            {"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": operator}, "subjects": user,
             "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": operator}},
            {"apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": operator, "namespace": "kube-system"}, "subjects": user,
             "roleRef": {"apiGroup": group, "kind": "Role", "name": "extension-apiserver-authentication-reader"}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "opes-operator", "namespace": home},
             "spec": {"type": "ExternalName", "externalName": "localhost"}},
        ]);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        plane.kubectl_with(&["apply", "-f", "-"], &list.to_string())?;
        Ok(())
    }

    fn client(plane: &ControlPlane, home: &str) -> Result<Client> {
        plane.client_as(&format!("opes-operator-{home}"), &["system:authenticated"])
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_api_server_asks_us_and_nobody_else_can() -> Result<()> {
        let mut bed = Bed::start(ControlPlane::builder().controllers().start().await?).await?;
        let registered = bed.available().await?;
        let role = Api::<ClusterRole>::all(bed.plane.client()?);
        let role = role.get(&format!("opes-operator-{}", bed.home)).await?;
        assert_eq!(
            registered.owner_references()[0].uid,
            role.uid().unwrap_or_default()
        );
        bed.standing
            .wait_for(|standing| *standing == Standing::Ours)
            .await?;

        let edges = [bed.edge("edge-0")?, bed.edge("edge-1")?];
        // Idle is zero and a figure; busy is the sum over edges.
        let idle = bed.value("0").await?;
        assert_eq!(
            idle["items"][0]["metricLabels"]["opes.dev/callout-service"],
            "scan"
        );
        let saying = say_again(edges, [bed.load(3, 2), bed.load(4, 0)]);
        bed.value("9").await?;
        let listed = bed
            .plane
            .kubectl(&["api-resources", "--api-group=external.metrics.k8s.io"])?;
        assert!(listed.contains(METRIC), "{listed}");

        // RBAC is the API server's: it refuses who may not, before it asks us.
        let path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{METRIC}",
            bed.mail
        );
        let stranger = bed.plane.kubectl(&["get", "--raw", &path, "--as=stranger"]);
        let refusal = format!("{:#}", stranger.unwrap_err());
        assert!(refusal.contains("forbidden"), "{refusal}");
        // Who comes past the API server does not get through the handshake, whatever the header says.
        assert!(
            !reaches(&bed).await?,
            "a certificate of ours is not the front proxy's"
        );
        bed.figure("opes_operator_metrics_api_refused_total 1")
            .await?;

        // A rotation: both authorities are announced, then the other one serves. The API stays.
        let other = Authority::make(now(), Duration::from_hours(48))?;
        let bundle = format!("{}{}", bed.authority.certificate, other.certificate);
        for signs in [&bed.authority, &other] {
            bed.own.send_replace(Some(own(signs, &bundle, &bed.home)?));
            let api = bed.registrations()?;
            eventually("the new bundle", DEADLINE, || async {
                let spec = api.get(NAME).await?.spec.context("no spec")?;
                let ca = spec.ca_bundle.context("no bundle")?;
                Ok((ca.0 == bundle.as_bytes()).then_some(()))
            })
            .await?;
            bed.value("9").await?;
        }
        saying.abort();
        bed.available().await?;

        // What somebody deletes comes back; at rest nothing is written.
        let uid = registered.uid();
        bed.registrations()?
            .delete(NAME, &DeleteParams::default())
            .await?;
        let back = bed.available().await?;
        assert_ne!(back.uid(), uid);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let still = bed.available().await?;
        assert_eq!(still.metadata.generation, back.metadata.generation);

        // Uninstalled: it goes with our ClusterRole, without us.
        let (plane, home) = (bed.plane.client()?, bed.home.clone());
        let gone: Api<APIService> = bed.registrations()?;
        bed.shutdown.cancel();
        tokio::time::timeout(DEADLINE, &mut bed.running).await???;
        let roles = Api::<ClusterRole>::all(plane);
        roles
            .delete(&format!("opes-operator-{home}"), &DeleteParams::default())
            .await?;
        eventually("collected with its owner", DEADLINE, || async {
            Ok(gone.get_opt(NAME).await?.is_none().then_some(()))
        })
        .await
    }

    /// Does somebody get an answer with a certificate of OPES's own authority?
    async fn reaches(bed: &Bed) -> Result<bool> {
        let shown = bed.own.borrow().clone().context("no certificate")?;
        let (config, _) = ClientTls::client_in_memory(&shown)?.current();
        let stream = TcpStream::connect(("127.0.0.1", bed.port)).await?;
        let name = ServerName::try_from(format!("opes-operator.{}.svc", bed.home))?;
        let Ok(mut stream) = TlsConnector::from(config).connect(name, stream).await else {
            return Ok(false);
        };
        let request = b"GET /apis HTTP/1.1\r\nHost: x\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n";
        // TLS 1.3: the refusal comes with the first read.
        if stream.write_all(request).await.is_err() {
            return Ok(false);
        }
        let mut octets = [0; 64];
        Ok(stream.read(&mut octets).await.is_ok_and(|read| read > 0))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn another_provider_keeps_what_it_has() -> Result<()> {
        let plane = ControlPlane::start().await?;
        let theirs = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": NAME},
            "spec": {
                "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"namespace": "keda", "name": "keda-metrics"}, "insecureSkipTLSVerify": true,
            },
        });
        plane.kubectl_with(&["apply", "-f", "-"], &theirs.to_string())?;
        let mut bed = Bed::start(plane).await?;
        let foreign = Standing::Foreign("keda/keda-metrics".into());
        bed.standing
            .wait_for(|standing| *standing == foreign)
            .await?;
        let api = bed.registrations()?;
        let before = api.get(NAME).await?;
        // Another certificate is what would make us write.
        bed.own.send_replace(Some(own(
            &bed.authority,
            &bed.authority.certificate,
            &bed.home,
        )?));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(api.get(NAME).await?.spec, before.spec);
        assert!(
            bed.registry
                .encode()?
                .contains("opes_operator_metrics_api_registered 0")
        );

        // Switched off it stays as well; what is ours is taken away.
        let (leading, shutdown) = (watch::Sender::new(true), CancellationToken::new());
        let off = || {
            metrics_api::remove(
                bed.plane.client().unwrap(),
                config(&bed.home, bed.port),
                leading.subscribe(),
                shutdown.clone(),
            )
        };
        off().await;
        assert_eq!(api.get(NAME).await?.spec, before.spec);
        api.delete(NAME, &DeleteParams::default()).await?;
        bed.available().await?;
        bed.shutdown.cancel();
        tokio::time::timeout(DEADLINE, &mut bed.running).await???;
        off().await;
        assert!(api.get_opt(NAME).await?.is_none());
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_hpa_scales_a_pool_out_and_back() -> Result<()> {
        let bed = Bed::start(ControlPlane::builder().controllers().start().await?).await?;
        bed.available().await?;
        let edge = Arc::new(bed.edge("edge-0")?);
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "opes-scan", "namespace": bed.mail}, "spec": {
                "selector": {"matchLabels": {"app": "scan"}},
                "template": {"metadata": {"labels": {"app": "scan"}}, "spec": {"containers": [{"name": "scan", "image": "registry.example.com/scan"}]}},
            }},
            {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "opes-scan", "namespace": bed.mail}, "spec": {
                "minReplicas": 1, "maxReplicas": 8,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "opes-scan"},
                "metrics": [{"type": "External", "external": {
                    "metric": {"name": METRIC, "selector": {"matchLabels": {"opes.dev/callout-service": "scan"}}},
                    "target": {"type": "AverageValue", "averageValue": "20"},
                }}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            }},
        ]});
        bed.plane
            .kubectl_with(&["apply", "-f", "-"], &objects.to_string())?;
        let deployments: Api<Deployment> = Api::namespaced(bed.plane.client()?, &bed.mail);
        let replicas = async |wanted: i32| {
            eventually(&format!("{wanted} replicas"), DEADLINE, || async {
                let found = deployments.get("opes-scan").await?.spec;
                Ok((found.context("no spec")?.replicas == Some(wanted)).then_some(()))
            })
            .await
        };
        replicas(1).await?;
        let load = Arc::new(std::sync::Mutex::new(bed.load(80, 15)));
        let (says, said) = (Arc::clone(&edge), Arc::clone(&load));
        // As an edge does: what was said is said again.
        let saying = tokio::spawn(async move {
            loop {
                says.load(&said.lock().unwrap());
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
        // 95 open and waiting, 20 for each.
        replicas(5).await?;
        *load.lock().unwrap() = bed.load(0, 0);
        replicas(1).await?;
        saying.abort();
        bed.stop().await
    }
}
