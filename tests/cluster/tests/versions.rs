//! What was stored in an older version of our kinds is served, and comes back as it was, when a newer one is stored. There is only
//! one version yet: the test makes the next one of it, as it would be made, and moves a cluster there.

mod control_plane {
    use std::path::Path;

    use anyhow::{Context as _, Result, ensure};
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{Api, Patch, PatchParams};
    use opes_cluster::{Cluster, ControlPlane, DEADLINE, eventually};
    use opes_k8s::{CalloutService, Kind as _, OpesRule};
    use serde_json::{Value, json};

    const KINDS: [&str; 2] = ["opesrules", "calloutservices"];
    const OLD: &str = "v1alpha1";
    const NEW: &str = "v1beta1";

    /// The examples, in one namespace.
    fn write_examples(cluster: &Cluster, namespace: &str) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/rules");
        let folder = folder.to_str().context("path")?;
        let arguments = ["apply", "--server-side", "-n", namespace, "-R", "-f"];
        cluster.kubectl(&[&arguments[..], &[folder]].concat())?;
        Ok(())
    }

    /// All objects of a kind as that version shows them, without the words that name it.
    fn read(cluster: &Cluster, namespace: &str, kind: &str, version: &str) -> Result<Vec<Value>> {
        let resource = format!("{kind}.{version}.opes.dev");
        let text = cluster.kubectl(&["get", &resource, "-n", namespace, "-o", "json"])?;
        let mut list: Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array_mut().context("no list")?;
        for item in items.iter_mut() {
            let shown = format!("opes.dev/{version}");
            ensure!(item["apiVersion"] == shown.as_str(), "{item}");
            item["apiVersion"] = Value::Null;
        }
        Ok(items.clone())
    }

    async fn definition(cluster: &Cluster, kind: &str) -> Result<CustomResourceDefinition> {
        let api: Api<CustomResourceDefinition> = Api::all(cluster.client()?);
        Ok(api.get(&format!("{kind}.opes.dev")).await?)
    }

    /// The next version: served and stored from now on, while the old one is served. No webhook converts.
    async fn add_version(cluster: &Cluster, kind: &str) -> Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(cluster.client()?);
        let mut versions = definition(cluster, kind).await?.spec.versions;
        ensure!(
            versions.len() == 1,
            "make this test one of the real versions"
        );
        let mut next = versions[0].clone();
        NEW.clone_into(&mut next.name);
        versions[0].storage = false;
        versions.push(next);
        let patch = json!({ "spec": { "versions": versions } });
        api.patch(
            &format!("{kind}.opes.dev"),
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await?;
        eventually("the new version is served", DEADLINE, || async {
            let resource = format!("{kind}.{NEW}.opes.dev");
            Ok(cluster.kubectl(&["get", &resource, "-A"]).ok())
        })
        .await?;
        Ok(())
    }

    #[tokio::test]
    async fn an_old_stored_version_is_served_and_comes_back_the_same() -> Result<()> {
        let plane = ControlPlane::start().await?;
        plane.apply_crds().await?;
        let namespace = plane.namespace("versions").await?;
        write_examples(&plane, &namespace)?;
        for kind in KINDS {
            let before = read(&plane, &namespace, kind, OLD)?;
            ensure!(!before.is_empty(), "no {kind} among the examples");
            add_version(&plane, kind).await?;
            for version in [OLD, NEW] {
                let now = read(&plane, &namespace, kind, version)?;
                ensure!(now == before, "{kind} as {version}: {now:?}");
            }
            // What is written is stored in the new version, whichever it is written in, and reads the same in both.
            for (version, label) in [(OLD, "old"), (NEW, "new")] {
                let resource = format!("{kind}.{version}.opes.dev");
                let label = format!("written={label}");
                let arguments = ["label", &resource, "--all", "--overwrite", "-n", &namespace];
                plane.kubectl(&[&arguments[..], &[&label]].concat())?;
                let (old, new) = (
                    read(&plane, &namespace, kind, OLD)?,
                    read(&plane, &namespace, kind, NEW)?,
                );
                ensure!(old == new, "{kind} written as {version}: {old:?} {new:?}");
                for (old, before) in old.iter().zip(&before) {
                    ensure!(old["spec"] == before["spec"], "{old} {before}");
                }
            }
            let status = definition(&plane, kind).await?.status;
            let stored = status.and_then(|status| status.stored_versions);
            ensure!(stored == Some(vec![OLD.into(), NEW.into()]), "{stored:?}");
        }

        // The operator asks for the version that it was built with, and gets what it understands.
        let rules: Api<OpesRule> = Api::namespaced(plane.client()?, &namespace);
        for rule in rules.list(&kube::api::ListParams::default()).await? {
            rule.object()
                .map_err(|found| anyhow::anyhow!("{found:?}"))?;
        }
        let services: Api<CalloutService> = Api::namespaced(plane.client()?, &namespace);
        for service in services.list(&kube::api::ListParams::default()).await? {
            service
                .object()
                .map_err(|found| anyhow::anyhow!("{found:?}"))?;
        }

        // What the old version refused, the new one refuses in the same words.
        let refused = |version: &str| {
            let rule = json!({ "apiVersion": format!("opes.dev/{version}"), "kind": "OpesRule",
                "metadata": { "name": "bad", "namespace": namespace }, "spec": { "at": [] } });
            let arguments = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
            let said = plane.kubectl_with(&arguments, &rule.to_string());
            said.err()
                .map(|error| format!("{error:#}").replace(version, ""))
        };
        let said = refused(OLD).context("the old version takes it")?;
        ensure!(Some(&said) == refused(NEW).as_ref(), "{said}");
        Ok(())
    }
}
