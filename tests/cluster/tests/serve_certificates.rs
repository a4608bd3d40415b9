//! The operator's authority and certificates on a real API server, with the rights that the operator has and no others.

#[path = "serve_certificates/bed.rs"]
mod bed;

mod control_plane {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use anyhow::Result;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
    use kube::{Resource as _, ResourceExt as _};
    use opes_cluster::{ControlPlane, DEADLINE, eventually};
    use opes_operator::certificates::Lifetimes;
    use opes_operator::shared::CertificateWanted;
    use serde_json::json;

    use crate::bed::{AUTHORITY, Bed, Plane, certificates, text, verify, verify_pem, writes};

    #[tokio::test]
    async fn certificates_are_made_kept_and_put_back_without_reading_secrets() -> Result<()> {
        let bed = Bed::on(Plane::Own(Box::new(ControlPlane::start().await?))).await?;
        let maps: Api<ConfigMap> = Api::namespaced(bed.plane.client()?, &bed.mail);
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some("owner".into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        let map = maps.create(&PostParams::default(), &map).await?;
        let owned = CertificateWanted {
            owner: map.controller_owner_ref(&()),
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
        assert_eq!(
            scan.labels()["app.kubernetes.io/managed-by"],
            "opes-operator"
        );
        assert_eq!(text(&edge, "ca.crt")?, own.ca);
        let end: u64 = scan.annotations()["opes.dev/not-after"].parse()?;
        let secret = (bed.mail.clone(), "opes-scan-tls".to_owned());
        assert_eq!(replica.ends.borrow().get(&secret), Some(&end));
        let authority = bed.authority().await?;
        assert_eq!(text(&authority, "ca.crt")?, own.ca);

        // At rest nothing is written, and a restarted operator finds all as it should be.
        // A request is counted when its answer is out.
        let before = eventually("it comes to rest", DEADLINE, || async {
            let before = writes(&bed).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(((writes(&bed).await? - before).abs() < 0.5).then_some(before))
        })
        .await?;
        replica.stop().await?;
        let mut replica = bed.replica(true, Lifetimes::default())?;
        replica
            .figure("opes_operator_certificate_expiry_seconds ", |at| at > 1.8e9)
            .await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(
            (writes(&bed).await? - before).abs() < 0.5,
            "something was written"
        );
        let secrets = bed.secrets(&bed.mail)?;
        assert_eq!(
            secrets.get("opes-scan-tls").await?.resource_version(),
            scan.resource_version()
        );
        assert_eq!(replica.own().await?.ca, own.ca);

        // Other names: another certificate. What others wrote into the Secret stays.
        let label = json!({"metadata": {"labels": {"example.com/kept": "1"}}});
        secrets
            .patch(
                "opes-scan-tls",
                &PatchParams::default(),
                &Patch::Merge(label),
            )
            .await?;
        let mut further = owned.clone();
        further.dns_names.push("scan.example.com".into());
        bed.want(vec![bed.edge(), further.clone()]);
        let renamed = bed.good(&further).await?;
        assert_eq!(renamed.labels()["example.com/kept"], "1");
        assert_ne!(text(&renamed, "tls.key")?, text(&scan, "tls.key")?);

        // What somebody deletes is found within the hour.
        secrets
            .delete("opes-scan-tls", &DeleteParams::default())
            .await?;
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
            // As long as each state is there to be seen.
            settle: Duration::from_secs(10),
            overlap: Duration::from_secs(10),
            ..Lifetimes::default()
        };
        let mut replica = bed.replica(true, lifetimes)?;
        let first = bed.good(&bed.scan()).await?;
        let old = text(&first, "ca.crt")?;
        bed.plane.kubectl(&[
            "annotate",
            "secret",
            AUTHORITY,
            "-n",
            &bed.home,
            "opes.dev/rotate=now",
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
        assert!(
            annotations
                .keys()
                .all(|name| !name.starts_with("opes.dev/")),
            "{annotations:?}"
        );
        let ca = text(&authority, "ca.crt")?;
        let own = replica
            .own
            .wait_for(|own| own.as_ref().is_some_and(|own| own.ca == ca));
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
            Ok(home
                .get_opt(AUTHORITY)
                .await?
                .filter(|found| found.uid() != uid))
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
            data: Some(BTreeMap::from([(
                "mine".to_owned(),
                ByteString(b"1".to_vec()),
            )])),
            ..Secret::default()
        };
        home.create(&PostParams::default(), &theirs("opes-edge-tls"))
            .await?;
        bed.want(vec![bed.edge(), bed.scan()]);
        let replica = bed.replica(true, Lifetimes::default())?;
        bed.good(&bed.scan()).await?;
        replica
            .figure("opes_operator_certificates_failing ", |failing| {
                failing > 0.5
            })
            .await?;
        let edge = home.get("opes-edge-tls").await?;
        assert_eq!(edge.data, theirs("").data);
        // Out of the way: then it is made.
        home.delete("opes-edge-tls", &DeleteParams::default())
            .await?;
        bed.good(&bed.edge()).await?;
        replica
            .figure("opes_operator_certificates_failing ", |failing| {
                failing < 0.5
            })
            .await?;

        // An authority that cannot be used is not overwritten, and the last one stays in force.
        let broken = json!({"data": {"tls.key": "eA=="}});
        let broken = home
            .patch(AUTHORITY, &PatchParams::default(), &Patch::Merge(broken))
            .await?;
        bed.want(vec![
            bed.edge(),
            bed.scan(),
            CertificateWanted {
                secret: "opes-late-tls".into(),
                ..bed.scan()
            },
        ]);
        let late = bed.secrets(&bed.mail)?;
        eventually("a certificate by the last authority", DEADLINE, || async {
            Ok(late.get_opt("opes-late-tls").await?)
        })
        .await?;
        assert_eq!(
            home.get(AUTHORITY).await?.resource_version(),
            broken.resource_version()
        );
        replica.stop().await
    }
}
