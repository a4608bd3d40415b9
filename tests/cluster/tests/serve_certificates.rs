//! The operator's authority and certificates on a real API server, with the rights that the operator has and no others.

mod control_plane {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, SystemTime};

    use anyhow::{Context as _, Result, ensure};
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
    use kube::{Resource as _, ResourceExt as _};
    use opes_cluster::{ControlPlane, DEADLINE, eventually};
    use opes_host::Clock;
    use opes_operator::certificates::{
        self, AuthorityConfig, Lifetimes, Metrics, OwnCertificate, edge_name, service_name,
    };
    use opes_operator::shared::CertificateWanted;
    use opes_telemetry::Registry;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
    use serde_json::json;
    use tokio::sync::watch;
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;
    use webpki::{EndEntityCert, KeyUsage};

    const AUTHORITY: &str = "opes-ca";
    const OPERATOR: &str = "operator";

    /// Two namespaces, a user with the operator's rights in them, and what is wanted there.
    struct Bed {
        plane: Plane,
        home: String,
        mail: String,
        wanted: watch::Sender<Arc<Vec<CertificateWanted>>>,
    }

    /// Shared with the other tests, or not where requests are counted.
    enum Plane {
        Shared(&'static ControlPlane),
        Own(ControlPlane),
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
    struct Replica {
        own: watch::Receiver<Option<Arc<OwnCertificate>>>,
        leading: watch::Sender<bool>,
        registry: Registry,
        /// Seconds that its clock is ahead.
        ahead: Arc<AtomicU64>,
        shutdown: CancellationToken,
        running: JoinHandle<()>,
    }

    impl Bed {
        async fn new() -> Result<Self> {
            Self::on(Plane::Shared(ControlPlane::shared().await?)).await
        }

        async fn on(plane: Plane) -> Result<Self> {
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

        fn replica(&self, leads: bool, lifetimes: Lifetimes) -> Result<Replica> {
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
            let (heard, led) = (own.subscribe(), leading.subscribe());
            let running = tokio::spawn(certificates::run(
                client,
                config,
                self.wanted.subscribe(),
                led,
                own,
                Metrics::register(&registry),
                shutdown.clone(),
            ));
            Ok(Replica {
                own: heard,
                leading,
                registry,
                ahead,
                shutdown,
                running,
            })
        }

        fn user(&self) -> String {
            format!("{OPERATOR}-{}", self.home)
        }

        fn want(&self, all: Vec<CertificateWanted>) {
            self.wanted.send_replace(Arc::new(all));
        }

        fn edge(&self) -> CertificateWanted {
            CertificateWanted {
                namespace: self.home.clone(),
                secret: "opes-edge-tls".into(),
                dns_names: vec![edge_name(&self.home)],
                owner: None,
                labels: BTreeMap::new(),
            }
        }

        fn scan(&self) -> CertificateWanted {
            let label = ("opes.dev/callout-service".to_owned(), "scan".to_owned());
            CertificateWanted {
                namespace: self.mail.clone(),
                secret: "opes-scan-tls".into(),
                dns_names: vec![service_name(&self.mail, "scan")],
                owner: None,
                labels: BTreeMap::from([label]),
            }
        }

        fn secrets(&self, namespace: &str) -> Result<Api<Secret>> {
            Ok(Api::namespaced(self.plane.client()?, namespace))
        }

        /// The Secret, once it is good for what `wanted` says.
        async fn good(&self, wanted: &CertificateWanted) -> Result<Secret> {
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

        async fn authority(&self) -> Result<Secret> {
            let api = self.secrets(&self.home)?;
            eventually(AUTHORITY, DEADLINE, || async { Ok(api.get_opt(AUTHORITY).await?) }).await
        }
    }

    impl Replica {
        async fn own(&mut self) -> Result<Arc<OwnCertificate>> {
            let own = self.own.wait_for(Option::is_some);
            let own = tokio::time::timeout(DEADLINE, own).await??.clone();
            own.context("no certificate")
        }

        /// Waits until a figure is what `right` says.
        async fn figure(&self, name: &str, right: impl Fn(f64) -> bool) -> Result<()> {
            eventually(name, DEADLINE, || async {
                let text = self.registry.encode()?;
                let lines = text.lines().filter_map(|line| line.strip_prefix(name));
                let figure: f64 = lines.map(|value| value.trim().parse().unwrap_or(0.0)).sum();
                Ok(right(figure).then_some(()))
            })
            .await
        }

        async fn stop(self) -> Result<()> {
            self.shutdown.cancel();
            Ok(tokio::time::timeout(DEADLINE, self.running).await??)
        }
    }

    /// Exactly the rights of docs/adr/0026-certificates.md.
    fn grant(plane: &ControlPlane, home: &str, mail: &str) -> Result<()> {
        let rule = |verbs: &[&str], names: &[&str]| {
            json!({"apiGroups": [""], "resources": ["secrets"], "verbs": verbs, "resourceNames": names})
        };
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

    fn text(secret: &Secret, name: &str) -> Result<String> {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        let value = data.with_context(|| format!("{name} is missing"))?;
        Ok(String::from_utf8(value.0.clone())?)
    }

    fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
        Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
    }

    /// The certificate is one of the authorities', for these names and both ends of TLS, at this moment.
    fn verify(secret: &Secret, names: &[String]) -> Result<()> {
        ensure!(secret.type_.as_deref() == Some("kubernetes.io/tls"));
        ensure!(text(secret, "tls.key")?.contains("PRIVATE KEY"));
        verify_pem(&text(secret, "tls.crt")?, &text(secret, "ca.crt")?, names)
    }

    fn verify_pem(leaf: &str, ca: &str, names: &[String]) -> Result<()> {
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
    async fn writes(bed: &Bed) -> Result<f64> {
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

    #[tokio::test]
    async fn certificates_are_made_kept_and_put_back_without_reading_secrets() -> Result<()> {
        let bed = Bed::on(Plane::Own(ControlPlane::start().await?)).await?;
        let maps: Api<ConfigMap> = Api::namespaced(bed.plane.client()?, &bed.mail);
        let owner = ConfigMap {
            metadata: ObjectMeta {
                name: Some("owner".into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        let owner = maps.create(&PostParams::default(), &owner).await?;
        let owned = CertificateWanted {
            owner: owner.controller_owner_ref(&()),
            ..bed.scan()
        };
        bed.want(vec![bed.edge(), owned.clone()]);
        let mut replica = bed.replica(true, Lifetimes::default())?;
        let own = replica.own().await?;
        let name = format!("opes-operator.{}.svc", bed.home);
        verify_pem(&own.certificate, &own.ca, &[name])?;
        let edge = bed.good(&bed.edge()).await?;
        let scan = bed.good(&owned).await?;
        assert_eq!(scan.owner_references()[0].name, "owner");
        assert_eq!(scan.labels()["opes.dev/callout-service"], "scan");
        assert_eq!(scan.labels()["app.kubernetes.io/managed-by"], "opes-operator");
        assert_eq!(text(&edge, "ca.crt")?, own.ca);
        let authority = bed.authority().await?;
        assert_eq!(text(&authority, "ca.crt")?, own.ca);

        // At rest nothing is written, and a restarted operator finds all as it should be.
        let before = writes(&bed).await?;
        replica.stop().await?;
        let mut replica = bed.replica(true, Lifetimes::default())?;
        replica.figure("opes_operator_certificate_expiry_seconds ", |at| at > 1.8e9).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!((writes(&bed).await? - before).abs() < 0.5, "something was written");
        let secrets = bed.secrets(&bed.mail)?;
        assert_eq!(secrets.get("opes-scan-tls").await?.resource_version(), scan.resource_version());
        assert_eq!(replica.own().await?.ca, own.ca);

        // Other names: another certificate. What others wrote into the Secret stays.
        let label = json!({"metadata": {"labels": {"example.com/kept": "1"}}});
        secrets
            .patch("opes-scan-tls", &PatchParams::default(), &Patch::Merge(label))
            .await?;
        let mut further = owned.clone();
        further.dns_names.push("scan.example.com".into());
        bed.want(vec![bed.edge(), further.clone()]);
        let renamed = bed.good(&further).await?;
        assert_eq!(renamed.labels()["example.com/kept"], "1");
        assert_ne!(text(&renamed, "tls.key")?, text(&scan, "tls.key")?);

        // What somebody deletes is found within the hour.
        secrets.delete("opes-scan-tls", &DeleteParams::default()).await?;
        replica.ahead.store(3_700, Ordering::Relaxed);
        bed.want(vec![bed.edge(), further]);
        eventually("it is back", DEADLINE, || async {
            Ok(secrets.get_opt("opes-scan-tls").await?)
        })
        .await?;
        replica.stop().await
    }

    #[tokio::test]
    async fn a_certificate_is_renewed_in_time() -> Result<()> {
        let bed = Bed::new().await?;
        bed.want(vec![bed.scan()]);
        let lifetimes = Lifetimes {
            leaf: Duration::from_hours(30 * 24),
            ..Lifetimes::default()
        };
        let replica = bed.replica(true, lifetimes)?;
        let first = bed.good(&bed.scan()).await?;
        // A third is left, and then some for the spread.
        replica.ahead.store(22 * 86_400, Ordering::Relaxed);
        bed.want(vec![bed.scan(), bed.edge()]);
        let api = bed.secrets(&bed.mail)?;
        eventually("another certificate", DEADLINE, || async {
            let found = api.get("opes-scan-tls").await?;
            Ok((text(&found, "tls.crt")? != text(&first, "tls.crt")?).then_some(()))
        })
        .await?;
        let ca = text(&bed.authority().await?, "ca.crt")?;
        assert_eq!(ca, text(&first, "ca.crt")?, "the authority stays");
        replica.stop().await
    }

    #[tokio::test]
    async fn a_rotation_asked_for_goes_through_its_steps_and_ends() -> Result<()> {
        let bed = Bed::new().await?;
        bed.want(vec![bed.edge(), bed.scan()]);
        let lifetimes = Lifetimes {
            settle: Duration::from_secs(2),
            overlap: Duration::from_secs(2),
            ..Lifetimes::default()
        };
        let mut replica = bed.replica(true, lifetimes)?;
        let first = bed.good(&bed.scan()).await?;
        let old = text(&first, "ca.crt")?;
        bed.plane.kubectl(&[
            "annotate", "secret", AUTHORITY, "-n", &bed.home, "opes.dev/rotate=now",
        ])?;
        // Each state of the service's Secret that is seen has to be good by itself.
        let api = bed.secrets(&bed.mail)?;
        let seen = Mutex::new(vec![(1, true)]);
        eventually("a rotation to its end", DEADLINE, || async {
            let found = api.get("opes-scan-tls").await?;
            verify(&found, &bed.scan().dns_names)?;
            let bundle = certificates(&text(&found, "ca.crt")?)?.len();
            let by_old = verify_pem(&text(&found, "tls.crt")?, &old, &[]).is_ok();
            let mut seen = seen.lock().unwrap();
            if seen.last() != Some(&(bundle, by_old)) {
                seen.push((bundle, by_old));
            }
            Ok(((bundle, by_old) == (1, false)).then_some(()))
        })
        .await?;
        let seen = seen.into_inner()?;
        // One authority, both with the old signing, both with the new signing, the new alone.
        assert_eq!(seen, [(1, true), (2, true), (2, false), (1, false)]);
        let authority = bed.authority().await?;
        assert_ne!(text(&authority, "ca.crt")?, old);
        let annotations = authority.annotations();
        assert!(annotations.keys().all(|name| !name.starts_with("opes.dev/")), "{annotations:?}");
        let ca = text(&authority, "ca.crt")?;
        let own = replica.own.wait_for(|own| own.as_ref().is_some_and(|own| own.ca == ca));
        tokio::time::timeout(DEADLINE, own).await??;
        replica.stop().await
    }

    #[tokio::test]
    async fn replicas_agree_on_one_authority_and_only_the_leader_writes() -> Result<()> {
        let bed = Bed::new().await?;
        let mut idle = bed.replica(false, Lifetimes::default())?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let none = bed.secrets(&bed.home)?.get_opt(AUTHORITY).await?;
        assert!(none.is_none(), "who does not lead makes nothing");
        // As when a Lease changes hands: for a moment two believe that they lead.
        let mut leaders = [
            bed.replica(true, Lifetimes::default())?,
            bed.replica(true, Lifetimes::default())?,
        ];
        let ca = text(&bed.authority().await?, "ca.crt")?;
        for replica in leaders.iter_mut().chain([&mut idle]) {
            assert_eq!(replica.own().await?.ca, ca);
        }
        // The one that takes over writes what was not wanted before.
        for leader in leaders {
            leader.stop().await?;
        }
        bed.want(vec![bed.scan()]);
        idle.leading.send_replace(true);
        assert_eq!(text(&bed.good(&bed.scan()).await?, "ca.crt")?, ca);

        // A deleted authority comes back as it was: nobody's connection fails for it.
        let home = bed.secrets(&bed.home)?;
        let uid = bed.authority().await?.uid();
        home.delete(AUTHORITY, &DeleteParams::default()).await?;
        let back = eventually("the authority is back", DEADLINE, || async {
            Ok(home.get_opt(AUTHORITY).await?.filter(|found| found.uid() != uid))
        })
        .await?;
        assert_eq!(text(&back, "ca.crt")?, ca);
        idle.stop().await
    }

    #[tokio::test]
    async fn what_is_somebody_elses_is_left_alone() -> Result<()> {
        let bed = Bed::new().await?;
        let home = bed.secrets(&bed.home)?;
        let theirs = |name: &str| Secret {
            metadata: ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("mine".to_owned(), ByteString(b"1".to_vec()))])),
            ..Secret::default()
        };
        home.create(&PostParams::default(), &theirs("opes-edge-tls")).await?;
        bed.want(vec![bed.edge(), bed.scan()]);
        let replica = bed.replica(true, Lifetimes::default())?;
        bed.good(&bed.scan()).await?;
        replica.figure("opes_operator_certificates_failing ", |failing| failing > 0.5).await?;
        let edge = home.get("opes-edge-tls").await?;
        assert_eq!(edge.data, theirs("").data);
        // Out of the way: then it is made.
        home.delete("opes-edge-tls", &DeleteParams::default()).await?;
        bed.good(&bed.edge()).await?;
        replica.figure("opes_operator_certificates_failing ", |failing| failing < 0.5).await?;

        // An authority that cannot be used is not overwritten, and the last one stays in force.
        let broken = json!({"data": {"tls.key": "eA=="}});
        let broken = home.patch(AUTHORITY, &PatchParams::default(), &Patch::Merge(broken)).await?;
        bed.want(vec![bed.edge(), bed.scan(), CertificateWanted {
            secret: "opes-late-tls".into(),
            ..bed.scan()
        }]);
        let late = bed.secrets(&bed.mail)?;
        eventually("a certificate by the last authority", DEADLINE, || async {
            Ok(late.get_opt("opes-late-tls").await?)
        })
        .await?;
        assert_eq!(home.get(AUTHORITY).await?.resource_version(), broken.resource_version());
        replica.stop().await
    }
}
