//! The operator's core on a real API server: what it says of objects, what it makes of services, who writes, and what it costs.

#[path = "operator_core/bed.rs"]
mod bed;

mod control_plane {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use anyhow::{Context as _, Result, ensure};
    use kube::ResourceExt as _;
    use kube::api::{DeleteParams, Patch, PatchParams};
    use opes_cluster::{ControlPlane, DEADLINE, eventually};
    use opes_operator::kinds::Kind;
    use serde_json::json;

    use crate::bed::{self, Answer, Bed, owners_of};

    const RULE: Kind = Kind::OpesRule;
    const SERVICE: Kind = Kind::CalloutService;

    const ACCEPTS: &str =
        "{ at: [rcptTo], match: { recipientDomains: [example.com] }, action: { accept: {} } }";
    const REJECTS: &str = "{ at: [rcptTo], match: { recipientDomains: [example.com] }, action: { reject: { text: moved } } }";
    const ELSEWHERE: &str = "{ class: adapt, endpoint: 'https://filter.example.com:9000' }";

    fn calls(service: &str) -> String {
        format!(
            "{{ at: [content], callout: {{ serviceRef: {{ name: {service} }}, onFailure: tempfail }} }}"
        )
    }

    /// Not a test of its own: [`Bed::process`] runs it.
    #[tokio::test]
    async fn an_operator_that_can_be_killed() -> Result<()> {
        bed::be_a_process().await
    }

    #[tokio::test]
    async fn conditions_of_rules_say_what_is_so_and_why() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        let operator = bed.start("a").await?;
        bed.service("there", ELSEWHERE).await?;
        bed.rule("good", &calls("there")).await?;
        let begun = std::time::Instant::now();
        for type_ in ["Accepted", "ResolvedRefs", "Programmed"] {
            eventually(type_, Duration::from_secs(5), || async {
                bed.condition(RULE, "good", type_).await
            })
            .await?;
        }
        for type_ in [
            "Accepted",
            "Available",
            "Progressing",
            "ScalingActive",
            "Ready",
        ] {
            eventually(type_, Duration::from_secs(5), || async {
                bed.condition(SERVICE, "there", type_).await
            })
            .await?;
        }
        println!("all conditions after {:.1?}", begun.elapsed());
        bed.expect(RULE, "good", "Accepted", "True", "Accepted")
            .await?;
        bed.expect(RULE, "good", "ResolvedRefs", "True", "ResolvedRefs")
            .await?;
        bed.expect(SERVICE, "there", "Ready", "True", "Ready")
            .await?;
        bed.expect(SERVICE, "there", "Available", "Unknown", "NotManaged")
            .await?;
        // Nobody runs it.
        bed.expect(RULE, "good", "Programmed", "Unknown", "NoEdges")
            .await?;

        let mut edge = bed.edge("edge-1", operator.routing).await?;
        let revision = edge.runs_other_than("").await?;
        bed.expect(RULE, "good", "Programmed", "True", "Programmed")
            .await?;

        bed.rule("orphan", &calls("missing")).await?;
        let said = bed
            .expect(RULE, "orphan", "ResolvedRefs", "False", "BackendNotFound")
            .await?;
        assert!(
            said.message.starts_with("spec.callout.serviceRef"),
            "{said:?}"
        );
        bed.expect(RULE, "orphan", "Accepted", "True", "Accepted")
            .await?;
        bed.expect(RULE, "orphan", "Programmed", "False", "StandIn")
            .await?;

        bed.rule(
            "cel",
            "{ at: [rcptTo], match: { cel: 'nonsense(rcpt)' }, action: { accept: {} } }",
        )
        .await?;
        let said = bed
            .expect(RULE, "cel", "Accepted", "False", "Invalid")
            .await?;
        assert!(
            said.message.starts_with("spec.match.cel: ")
                && said.message.ends_with("it does not run"),
            "{said:?}"
        );
        bed.expect(RULE, "cel", "Programmed", "False", "NotAccepted")
            .await?;

        bed.rule("first", ACCEPTS).await?;
        bed.expect(RULE, "first", "Programmed", "True", "Programmed")
            .await?;
        // Creation times have seconds; of one second the name decides, and this is the later name.
        bed.rule("second", REJECTS).await?;
        let said = bed
            .expect(RULE, "second", "Accepted", "False", "Conflicted")
            .await?;
        assert!(
            said.message.contains(&format!("{}/first", bed.namespace)),
            "{said:?}"
        );

        // An edge that says nothing, and one that says no.
        edge.runs_other_than(&revision).await?;
        edge.answer.send_replace(Answer::Hold);
        bed.rule("slow", "{ at: [rcptTo], match: { recipientDomains: [slow.example.com] }, action: { accept: {} } }").await?;
        bed.expect(RULE, "slow", "Programmed", "Unknown", "Pending")
            .await?;
        let said = bed
            .expect(RULE, "slow", "Programmed", "False", "Pending")
            .await?;
        assert!(said.message.contains("edge-1"), "{said:?}");
        // What it runs is still so.
        bed.expect(RULE, "first", "Programmed", "True", "Programmed")
            .await?;
        edge.answer
            .send_replace(Answer::Refuse(format!("{}/refused", bed.namespace)));
        bed.rule("refused", "{ at: [rcptTo], match: { recipientDomains: [refused.example.com] }, action: { accept: {} } }").await?;
        let said = bed
            .expect(RULE, "refused", "Programmed", "False", "Refused")
            .await?;
        assert!(
            said.message.contains("edge-1") && said.message.contains("does not know it"),
            "{said:?}"
        );
        edge.answer.send_replace(Answer::Take);
        bed.rule("wake", "{ at: [rcptTo], match: { recipientDomains: [wake.example.com] }, action: { accept: {} } }").await?;
        for name in ["slow", "refused", "wake"] {
            bed.expect(RULE, name, "Programmed", "True", "Programmed")
                .await?;
        }
        events_of_transitions(&bed).await?;
        operator.stop().await
    }

    /// Of what has turned bad, once each; none of what is new and good.
    async fn events_of_transitions(bed: &Bed<'_>) -> Result<()> {
        let text = bed.plane.kubectl(&[
            "get",
            "events.events.k8s.io",
            "-n",
            &bed.namespace,
            "-o",
            "json",
        ])?;
        let events: serde_json::Value = serde_json::from_str(&text)?;
        let items = events["items"].as_array().context("no items")?;
        let of = |name: &str, reason: &str| {
            items
                .iter()
                .filter(|event| event["regarding"]["name"] == name && event["reason"] == reason)
                .count()
        };
        assert_eq!(of("cel", "Invalid"), 1, "{text}");
        assert_eq!(of("second", "Conflicted"), 1, "{text}");
        assert_eq!(of("orphan", "BackendNotFound"), 1, "{text}");
        assert_eq!(of("refused", "Refused"), 1, "{text}");
        let about_good = items
            .iter()
            .filter(|event| event["regarding"]["name"] == "good")
            .count();
        assert_eq!(about_good, 0, "{text}");
        Ok(())
    }

    const POOL: &str =
        "{ class: adapt, builtin: { name: normalizer, config: { domain: example.com } } }";

    /// What is made for a pool that an HPA scales.
    const MADE: [Kind; 7] = [
        Kind::ServiceAccount,
        Kind::ConfigMap,
        Kind::Service,
        Kind::NetworkPolicy,
        Kind::Deployment,
        Kind::PodDisruptionBudget,
        Kind::HorizontalPodAutoscaler,
    ];

    /// Waits for an object, and for something to be so of it.
    async fn until(
        bed: &Bed<'_>,
        kind: Kind,
        name: &str,
        within: Duration,
        is: impl Fn(&kube::api::DynamicObject) -> bool,
    ) -> Result<kube::api::DynamicObject> {
        let api = bed.api(kind)?;
        eventually(&format!("{} {name}", kind.name()), within, || async {
            Ok(api.get_opt(name).await?.filter(|object| is(object)))
        })
        .await
    }

    #[tokio::test]
    async fn owned_objects_are_made_repaired_and_shared() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        // The fixture's operators serve no load and the cluster has no CPU metrics, so that there would be nothing to scale by.
        let operator = bed
            .start_with(
                "a",
                "metricsApi: { enabled: auto, listen: '127.0.0.1:0' }\n",
            )
            .await?;
        bed.service("scan", POOL).await?;
        for kind in MADE {
            let object = until(&bed, kind, "opes-scan", DEADLINE, |_| true).await?;
            assert_eq!(object.owner_references()[0].name, "scan", "{}", kind.name());
        }
        let secret = bed
            .plane
            .kubectl(&["get", "secret", "-n", &bed.namespace, "-o", "name"])?;
        eventually("the pool's certificate", DEADLINE, || async {
            Ok(bed
                .plane
                .kubectl(&["get", "secret", "opes-scan-tls", "-n", &bed.namespace])
                .ok())
        })
        .await
        .with_context(|| secret.clone())?;

        // Nobody but the autoscaler says how many.
        let deployment = until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |_| true).await?;
        assert!(owners_of(&deployment, "/f:spec/f:template").contains(&"opes-operator".to_owned()));
        assert!(
            !owners_of(&deployment, "/f:spec/f:replicas").contains(&"opes-operator".to_owned())
        );
        bed.plane.kubectl(&[
            "scale",
            "deployment",
            "opes-scan",
            "-n",
            &bed.namespace,
            "--replicas=7",
        ])?;

        // What is deleted comes back, within 5 s.
        for kind in MADE {
            let api = bed.api(kind)?;
            let before = api.get("opes-scan").await?.uid();
            api.delete("opes-scan", &DeleteParams::background()).await?;
            until(&bed, kind, "opes-scan", Duration::from_secs(5), |object| {
                object.uid() != before && object.metadata.deletion_timestamp.is_none()
            })
            .await?;
        }
        bed.plane.kubectl(&[
            "scale",
            "deployment",
            "opes-scan",
            "-n",
            &bed.namespace,
            "--replicas=7",
        ])?;

        // What is changed is put right, what is added stays.
        let patch = json!({
            "metadata": { "labels": { "team": "mail", "opes.dev/callout-service": "stolen" }, "annotations": { "example.com/note": "kept" } },
            "spec": { "template": { "spec": { "containers": [{ "name": "service", "image": "registry.example.com/other:1" }] } } },
        });
        bed.api(Kind::Deployment)?
            .patch(
                "opes-scan",
                &PatchParams::default(),
                &Patch::Strategic(&patch),
            )
            .await?;
        let image = |object: &kube::api::DynamicObject| {
            object.data["spec"]["template"]["spec"]["containers"][0]["image"].clone()
        };
        let ours = "registry.example.com/opes/opes-normalizer:1";
        let repaired = until(
            &bed,
            Kind::Deployment,
            "opes-scan",
            Duration::from_secs(5),
            |object| image(object) == ours,
        )
        .await?;
        assert_eq!(repaired.labels()["team"], "mail");
        assert_eq!(repaired.labels()["opes.dev/callout-service"], "scan");
        assert_eq!(repaired.annotations()["example.com/note"], "kept");
        assert_eq!(
            repaired.data["spec"]["replicas"], 7,
            "the operator does not fight over replicas"
        );

        // No autoscaler any more: it goes, and spec.replicas decides.
        bed.service("scan", "{ class: adapt, builtin: { name: normalizer, config: {} }, replicas: 3, pool: { engine: none } }").await?;
        until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |object| {
            object.data["spec"]["replicas"] == 3
        })
        .await?;
        let gone = bed.api(Kind::HorizontalPodAutoscaler)?;
        eventually("the HPA is gone", DEADLINE, || async {
            Ok(gone.get_opt("opes-scan").await?.is_none().then_some(()))
        })
        .await?;
        bed.expect(SERVICE, "scan", "ScalingActive", "False", "ScalingOff")
            .await?;
        // And back: the pool does not fall to one instance in between.
        bed.service("scan", POOL).await?;
        until(
            &bed,
            Kind::HorizontalPodAutoscaler,
            "opes-scan",
            DEADLINE,
            |_| true,
        )
        .await?;
        let handed = until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |object| {
            !owners_of(object, "/f:spec/f:replicas").contains(&"opes-operator".to_owned())
        })
        .await?;
        assert_eq!(handed.data["spec"]["replicas"], 3);

        // It runs elsewhere now: nothing of the pool is left.
        bed.service(
            "scan",
            "{ class: adapt, endpoint: 'https://filter.example.com:9000', builtin: null }",
        )
        .await?;
        for kind in MADE {
            let api = bed.api(kind)?;
            eventually(&format!("{} is gone", kind.name()), DEADLINE, || async {
                Ok(api.get_opt("opes-scan").await?.is_none().then_some(()))
            })
            .await?;
        }
        bed.expect(SERVICE, "scan", "Available", "Unknown", "NotManaged")
            .await?;
        let metrics = operator.metrics().await?;
        assert!(!metrics.contains("reason=\"Forbidden\""), "{metrics}");
        for name in [
            "opes_operator_reconcile_seconds_bucket{",
            "opes_operator_writes_total{",
            "opes_operator_queue{",
            "opes_operator_snapshot_info{revision=\"",
            "opes_operator_edges{",
            "opes_operator_edge_lag_revisions ",
            "opes_operator_leading 1",
        ] {
            assert!(metrics.contains(name), "{name}: {metrics}");
        }
        operator.stop().await
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_said_and_is_in_nobodys_way() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        let theirs = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: opes-taken }\ndata: { mine: 'yes' }\n";
        bed.plane
            .kubectl_with(&["apply", "-n", &bed.namespace, "-f", "-"], theirs)?;
        let operator = bed.start("a").await?;
        bed.service("taken", POOL).await?;
        bed.service(
            "keda",
            "{ class: adapt, builtin: { name: normalizer, config: {} }, pool: { engine: keda } }",
        )
        .await?;
        let said = bed
            .expect(SERVICE, "taken", "Available", "False", "NameTaken")
            .await?;
        assert!(said.message.contains("ConfigMap opes-taken"), "{said:?}");
        bed.expect(SERVICE, "taken", "Ready", "False", "NotReady")
            .await?;
        let kept = until(&bed, Kind::ConfigMap, "opes-taken", DEADLINE, |_| true).await?;
        assert_eq!(kept.data["data"], json!({ "mine": "yes" }));
        bed.expect(SERVICE, "keda", "ScalingActive", "False", "KedaMissing")
            .await?;
        let deployment = until(&bed, Kind::Deployment, "opes-keda", DEADLINE, |_| true).await?;
        assert_eq!(deployment.data["spec"]["replicas"], 2);
        bed.expect(SERVICE, "keda", "Progressing", "False", "UpToDate")
            .await
            .err()
            .context("no pod ever comes up here")?;
        operator.stop().await
    }

    #[tokio::test]
    async fn a_bad_edit_leaves_the_last_accepted_version_also_after_a_restart() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        let operator = bed.start("a").await?;
        bed.rule("r", ACCEPTS).await?;
        bed.rule("other", "{ at: [mailFrom], action: { continue: {} } }")
            .await?;
        let mut edge = bed.edge("edge-1", operator.routing).await?;
        bed.expect(RULE, "r", "Programmed", "True", "Programmed")
            .await?;
        let revision = edge.runs_other_than("").await?;
        bed.rule(
            "r",
            "{ at: [rcptTo], match: { cel: 'nonsense(rcpt)' }, action: { accept: {} } }",
        )
        .await?;
        let said = bed
            .expect(RULE, "r", "Accepted", "False", "Invalid")
            .await?;
        assert!(said.message.ends_with("generation 1 runs"), "{said:?}");
        bed.expect(RULE, "r", "Programmed", "False", "LastAccepted")
            .await?;
        bed.expect(RULE, "other", "Programmed", "True", "Programmed")
            .await?;
        assert_eq!(
            *edge.running.borrow(),
            revision,
            "a bad edit changes nothing"
        );
        operator.stop().await?;
        let again = bed.start("b").await?;
        let metrics = again.metrics().await?;
        assert!(
            metrics.contains(&format!("revision=\"{revision}\"")),
            "{metrics}"
        );
        again.stop().await
    }

    #[tokio::test]
    async fn a_tenant_may_do_something_with_its_own_domains_only() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        let tenants = format!(
            "tenants: [{{ namespace: {}, domains: [example.com] }}]\n",
            bed.namespace
        );
        let operator = bed.start_with("a", &tenants).await?;
        bed.rule("own", ACCEPTS).await?;
        bed.rule("greedy", "{ at: [rcptTo], action: { reject: {} } }")
            .await?;
        bed.expect(RULE, "own", "Accepted", "True", "Accepted")
            .await?;
        let said = bed
            .expect(RULE, "greedy", "Accepted", "False", "NotPermitted")
            .await?;
        assert!(
            said.message.starts_with("spec.match: ") && said.message.contains("example.com"),
            "{said:?}"
        );
        bed.expect(RULE, "greedy", "Programmed", "False", "NotAccepted")
            .await?;
        operator.stop().await
    }

    #[tokio::test]
    async fn the_leader_is_killed_and_another_takes_over() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        let mut first = bed.process("first").await?;
        bed.wait_for_leader("first").await?;
        let second = bed.start("second").await?;
        bed.announce(&[("first", first.routing), ("second", second.routing)])
            .await?;
        let mut edge = bed.edge("edge-1", first.routing).await?;
        bed.rule("before", ACCEPTS).await?;
        let before = bed
            .expect(RULE, "before", "Programmed", "True", "Programmed")
            .await?;
        first.kill()?;
        let killed = std::time::Instant::now();
        // Served by the one that is left while nobody writes.
        let revision = edge.running.borrow().clone();
        bed.rule("during", "{ at: [rcptTo], match: { recipientDomains: [during.example.com] }, action: { accept: {} } }").await?;
        bed.service("pool", POOL).await?;
        edge.runs_other_than(&revision).await?;
        assert_eq!(
            bed.leader().await?,
            "first",
            "nobody has taken the lease so far"
        );
        // What came in the dead time is written by the new leader, once.
        bed.expect(RULE, "during", "Accepted", "True", "Accepted")
            .await?;
        let taken = killed.elapsed();
        println!("written by the other replica {taken:.1?} after the kill");
        ensure!(taken < Duration::from_secs(15 + 2 + 8), "{taken:?}");
        assert_eq!(bed.leader().await?, "second");
        until(&bed, Kind::Deployment, "opes-pool", DEADLINE, |_| true).await?;
        bed.expect(RULE, "during", "Programmed", "True", "Programmed")
            .await?;
        assert_eq!(
            bed.condition(RULE, "before", "Programmed").await?,
            Some(before),
            "nothing has moved"
        );
        // SIGTERM gives the lease back: the next one need not wait.
        let third = bed.start("third").await?;
        second.stop().await?;
        let stopped = std::time::Instant::now();
        bed.wait_for_leader("third").await?;
        println!("taken over {:.1?} after a graceful stop", stopped.elapsed());
        ensure!(
            stopped.elapsed() < Duration::from_secs(6),
            "{:?}",
            stopped.elapsed()
        );
        third.stop().await
    }

    #[tokio::test]
    async fn the_api_server_may_go_and_edges_are_served() -> Result<()> {
        let plane = ControlPlane::start().await?;
        let bed = Bed::new(&plane).await?;
        let operator = bed.start("a").await?;
        bed.rule("r", ACCEPTS).await?;
        let mut edge = bed.edge("edge-1", operator.routing).await?;
        let before = bed
            .expect(RULE, "r", "Programmed", "True", "Programmed")
            .await?;
        let revision = edge.runs_other_than("").await?;
        let late = bed.edge_tls().await?;
        plane.kill_apiserver()?;
        // Long enough for the lease to be lost.
        let metric = "opes_operator_leading 0";
        eventually("it stops to lead", DEADLINE, || async {
            Ok(operator.metrics().await?.contains(metric).then_some(()))
        })
        .await?;
        assert!(operator.is_running());
        let mut newcomer = bed.edge_with("edge-2", operator.routing, late)?;
        assert_eq!(
            newcomer.runs_other_than("").await?,
            revision,
            "a new edge is served without an API server"
        );
        plane.start_apiserver().await?;
        bed.rule("after", "{ at: [rcptTo], match: { recipientDomains: [after.example.com] }, action: { accept: {} } }").await?;
        bed.expect(RULE, "after", "Programmed", "True", "Programmed")
            .await?;
        assert_eq!(
            bed.condition(RULE, "r", "Programmed").await?,
            Some(before),
            "nothing has moved"
        );
        operator.stop().await
    }

    #[tokio::test]
    async fn everything_can_be_deleted_without_an_operator() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        let operator = bed.start("a").await?;
        bed.service("scan", POOL).await?;
        bed.rule("r", &calls("scan")).await?;
        until(
            &bed,
            Kind::PodDisruptionBudget,
            "opes-scan",
            DEADLINE,
            |_| true,
        )
        .await?;
        bed.expect(RULE, "r", "Accepted", "True", "Accepted")
            .await?;
        operator.stop().await?;
        bed.api(SERVICE)?
            .delete("scan", &DeleteParams::background())
            .await?;
        for kind in [
            SERVICE,
            Kind::Deployment,
            Kind::Service,
            Kind::ServiceAccount,
        ] {
            let api = bed.api(kind)?;
            let name = if kind == SERVICE { "scan" } else { "opes-scan" };
            eventually(&format!("{} is gone", kind.name()), DEADLINE, || async {
                Ok(api.get_opt(name).await?.is_none().then_some(()))
            })
            .await?;
        }
        bed.plane
            .kubectl(&["delete", "namespace", &bed.namespace, "--timeout=60s"])?;
        Ok(())
    }

    #[tokio::test]
    async fn a_single_namespace_needs_roles_only_and_no_more_than_the_page_says() -> Result<()> {
        let bed = Bed::new(ControlPlane::shared().await?).await?;
        let other = bed.plane.namespace("other").await?;
        let may = |namespace: &str| -> Result<BTreeSet<(String, String)>> {
            let user = format!("--as={}", bed.user());
            let text = bed.plane.kubectl(&[
                "auth",
                "can-i",
                "--list",
                "--no-headers",
                "-n",
                namespace,
                &user,
                "--as-group=system:authenticated",
            ])?;
            let rows = text.lines().filter_map(|line| {
                let resource = line
                    .split_whitespace()
                    .next()
                    .filter(|_| !line.starts_with(' '))?
                    .to_owned();
                let verbs = line
                    .rsplit_once('[')
                    .map(|(_, verbs)| verbs.trim_end_matches(']').to_owned())?;
                Some((resource, verbs))
            });
            Ok(rows
                .flat_map(|(resource, verbs)| {
                    verbs
                        .split_whitespace()
                        .map(|verb| (resource.clone(), verb.to_owned()))
                        .collect::<Vec<_>>()
                })
                .collect())
        };
        let everybody = may(&other)?;
        let mut page = BTreeSet::new();
        for block in ["watched", "own"] {
            for rule in bed::rules(block)?.as_array().context("no list")? {
                let words = |field: &str| {
                    rule[field]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|word| word.as_str().map(str::to_owned))
                        .collect::<Vec<_>>()
                };
                let group = words("apiGroups").pop().unwrap_or_default();
                for resource in words("resources") {
                    let (plural, below) = resource
                        .split_once('/')
                        .map_or((resource.as_str(), String::new()), |(plural, below)| {
                            (plural, format!("/{below}"))
                        });
                    let full = if group.is_empty() {
                        resource.clone()
                    } else {
                        format!("{plural}.{group}{below}")
                    };
                    page.extend(words("verbs").into_iter().map(|verb| (full.clone(), verb)));
                }
            }
        }
        let own: BTreeSet<_> = may(&bed.namespace)?
            .difference(&everybody)
            .cloned()
            .collect();
        assert_eq!(
            own, page,
            "in its namespace it may do what the page says, and elsewhere nothing"
        );
        let operator = bed.start("a").await?;
        bed.rule("r", ACCEPTS).await?;
        bed.service("scan", POOL).await?;
        bed.expect(RULE, "r", "Accepted", "True", "Accepted")
            .await?;
        until(&bed, Kind::Deployment, "opes-scan", DEADLINE, |_| true).await?;
        assert!(!operator.metrics().await?.contains("reason=\"Forbidden\""));
        operator.stop().await
    }

    /// Requests that write, leases excluded: those are a heartbeat, of the operator's one every 5 s, and the API server has its own.
    async fn writes(plane: &ControlPlane) -> Result<f64> {
        let text = plane.metrics().await?;
        let counters = text
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{"));
        let writing = counters.filter(|line| {
            [
                "POST",
                "PUT",
                "PATCH",
                "APPLY",
                "DELETE",
                "DELETECOLLECTION",
            ]
            .iter()
            .any(|verb| line.contains(&format!("verb=\"{verb}\"")))
        });
        let counted = writing.filter(|line| !line.contains("resource=\"leases\""));
        Ok(counted
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, |sum, count| sum + count))
    }

    /// Name, generation, resource version of all objects of ours.
    async fn versions(bed: &Bed<'_>) -> Result<BTreeSet<(String, String)>> {
        let mut found = BTreeSet::new();
        for kind in [
            RULE,
            SERVICE,
            Kind::Deployment,
            Kind::Service,
            Kind::ConfigMap,
            Kind::PodDisruptionBudget,
        ] {
            for object in bed
                .api(kind)?
                .list(&kube::api::ListParams::default())
                .await?
            {
                found.insert((
                    format!("{} {}", kind.name(), object.name_any()),
                    object.resource_version().unwrap_or_default(),
                ));
            }
        }
        Ok(found)
    }

    const MANY: usize = 1_000;
    const POOLS: usize = 20;
    const INSTANCES: usize = 10;
    const IDLE: Duration = Duration::from_secs(20);
    const RESIDENT_MAX: u64 = 150 << 20;

    async fn make_many(bed: &Bed<'_>) -> Result<()> {
        use futures_util::StreamExt as _;
        let names: Vec<usize> = (0..MANY).collect();
        let made = futures_util::stream::iter(names).map(|number| async move {
            let spec = format!("{{ at: [rcptTo], match: {{ recipientDomains: [d{number}.example.com] }}, action: {{ accept: {{}} }} }}");
            bed.rule(&format!("rule-{number}"), &spec).await.map(|_| ())
        });
        let failed: Vec<_> = made
            .buffer_unordered(16)
            .filter_map(|made| async move { made.err() })
            .collect()
            .await;
        ensure!(failed.is_empty(), "{failed:?}");
        for pool in 0..POOLS {
            bed.service(&format!("s{pool}"), "{ class: adapt, builtin: { name: normalizer, config: {} }, pool: { engine: none } }").await?;
            let addresses = (0..INSTANCES).map(|instance| json!({ "addresses": [format!("198.51.100.{}", pool * INSTANCES + instance + 1)], "conditions": { "ready": true } }));
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": format!("s{pool}"), "labels": { "kubernetes.io/service-name": format!("opes-s{pool}"), "opes.dev/callout-service": format!("s{pool}") } },
                "addressType": "IPv4", "endpoints": addresses.collect::<Vec<_>>(),
                "ports": [{ "name": "ocp", "port": 9000, "protocol": "TCP" }],
            });
            bed.api(Kind::EndpointSlice)?
                .patch(
                    &format!("s{pool}"),
                    &PatchParams::apply("people").force(),
                    &Patch::Apply(&slice),
                )
                .await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_thousand_rules_cost_no_write_at_rest_and_little_memory() -> Result<()> {
        let plane = ControlPlane::start().await?;
        let bed = Bed::cluster_wide(&plane).await?;
        let mut operator = bed.process("a").await?;
        let begun = std::time::Instant::now();
        make_many(&bed).await?;
        println!("{MANY} rules made in {:.1?}", begun.elapsed());
        let mut edges = [
            bed.edge("edge-1", operator.routing).await?,
            bed.edge("edge-2", operator.routing).await?,
        ];
        let rules = bed.api(RULE)?;
        eventually("every rule is programmed", DEADLINE, || async {
            let all = rules.list(&kube::api::ListParams::default()).await?;
            let programmed = all.iter().filter(|rule| {
                bed::condition(rule, "Programmed").is_some_and(|said| said.status == "True")
            });
            Ok((programmed.count() == MANY).then_some(()))
        })
        .await?;
        println!(
            "all of them programmed {:.1?} after the first was made",
            begun.elapsed()
        );

        // One bad rule among them changes no other, before and after an edge restarts.
        let revision = edges[0].running.borrow().clone();
        bed.rule(
            "bad",
            "{ at: [rcptTo], match: { cel: 'nonsense(rcpt)' }, action: { reject: {} } }",
        )
        .await?;
        bed.expect(RULE, "bad", "Accepted", "False", "Invalid")
            .await?;
        let mut restarted = bed.edge("edge-1", operator.routing).await?;
        assert_eq!(restarted.runs_other_than("").await?, revision);
        assert_eq!(*edges[1].running.borrow(), revision);
        assert_eq!(*restarted.objects.borrow(), MANY + POOLS);
        drop(restarted);

        // A rule that changes is active everywhere before anybody notices.
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            let before = edges[0].running.borrow().clone();
            let spec = format!(
                "{{ at: [rcptTo], priority: {}, match: {{ recipientDomains: [d0.example.com] }}, action: {{ accept: {{}} }} }}",
                number + 1
            );
            let begun = std::time::Instant::now();
            bed.rule("rule-0", &spec).await?;
            for edge in &mut edges {
                edge.runs_other_than(&before).await?;
            }
            slowest = slowest.max(begun.elapsed());
        }
        println!(
            "slowest of 10 changes was active on both edges after {slowest:.1?} (unoptimised build)"
        );
        bed.expect(RULE, "rule-0", "Programmed", "True", "Programmed")
            .await?;

        // At rest nothing is written and nothing moves.
        eventually("it comes to rest", DEADLINE, || {
            let plane = &plane;
            async move {
                let first = writes(plane).await?;
                tokio::time::sleep(Duration::from_secs(6)).await;
                Ok((writes(plane).await? <= first).then_some(()))
            }
        })
        .await?;
        let (before, objects) = (writes(&plane).await?, versions(&bed).await?);
        tokio::time::sleep(IDLE).await;
        let written = writes(&plane).await? - before;
        assert!(written < 0.5, "{written} writes within {IDLE:?} of rest");
        assert_eq!(versions(&bed).await?, objects);
        let resident = operator.resident()?;
        println!(
            "RSS {} MiB with {MANY} rules and {} instances (unoptimised build)",
            resident >> 20,
            POOLS * INSTANCES
        );
        assert!(resident < RESIDENT_MAX, "{resident}");
        operator.kill()
    }
}
