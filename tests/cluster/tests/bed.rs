//! The control plane of the fixture itself: it is there in seconds, it is real, and nothing of it stays.
//!
//! Tests that need no more than a control plane stand in a module `control_plane`, those that need a whole node in one called
//! `whole_node`: by these names `cargo xtask test` leaves out what a machine cannot run, and says so.

mod control_plane {
    use std::io::{BufRead as _, BufReader};
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use anyhow::{Context as _, Result};
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
    use opes_cluster::{ControlPlane, DEADLINE, eventually, group, programs};

    /// Set: this process is the one that gets killed.
    const VICTIM: &str = "OPES_BED_VICTIM";

    fn config_map(name: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    #[tokio::test]
    async fn it_is_ready_in_seconds_and_keeps_objects_while_the_api_server_is_gone() -> Result<()> {
        let started = Instant::now();
        let plane = ControlPlane::start().await?;
        println!("control plane ready after {:.1?}", started.elapsed());
        let namespace = plane.namespace("bed").await?;
        let maps: Api<ConfigMap> = Api::namespaced(plane.client()?, &namespace);
        maps.create(&PostParams::default(), &config_map("kept"))
            .await?;

        plane.kill_apiserver()?;
        assert!(maps.get("kept").await.is_err(), "the API server is dead");
        plane.start_apiserver().await?;
        maps.get("kept").await?;

        let folder = plane.folder()?.to_owned();
        assert!(!group::processes_of(&folder).is_empty());
        drop(plane);
        assert_eq!(group::processes_of(&folder), [] as [u32; 0]);
        assert!(!folder.exists());
        Ok(())
    }

    #[tokio::test]
    async fn rights_are_checked_and_requests_counted() -> Result<()> {
        let plane = ControlPlane::shared().await?;
        let namespace = plane.namespace("rights").await?;
        let version = plane.client()?.apiserver_version().await?;
        assert_eq!(version.git_version, programs::version()?);

        let stranger = plane.client_as("stranger", &["system:authenticated"])?;
        let theirs: Api<ConfigMap> = Api::namespaced(stranger, &namespace);
        let refused = theirs.list(&ListParams::default()).await;
        assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 403));

        let allow = [
            "create",
            "rolebinding",
            "stranger",
            "--clusterrole=view",
            "--user=stranger",
        ];
        plane.kubectl(&[&allow[..], &["-n", &namespace]].concat())?;
        eventually("the right to read", DEADLINE, || async {
            Ok(Some(theirs.list(&ListParams::default()).await?))
        })
        .await?;
        assert!(plane.metrics().await?.contains("apiserver_request_total{"));
        Ok(())
    }

    #[tokio::test]
    async fn controllers_delete_namespaces() -> Result<()> {
        let plane = ControlPlane::shared().await?;
        let name = plane.namespace("gone").await?;
        let maps: Api<ConfigMap> = Api::namespaced(plane.client()?, &name);
        maps.create(&PostParams::default(), &config_map("gone"))
            .await?;
        let namespaces: Api<Namespace> = Api::all(plane.client()?);
        namespaces.delete(&name, &DeleteParams::default()).await?;
        eventually("the namespace is gone", DEADLINE, || async {
            Ok(namespaces.get_opt(&name).await?.is_none().then_some(()))
        })
        .await
    }

    #[tokio::test]
    async fn nothing_is_left_after_kill_9_of_the_test() -> Result<()> {
        if std::env::var_os(VICTIM).is_some() {
            let plane = ControlPlane::start().await?;
            // A line of its own: the harness has written the test's name without an end.
            println!("\nfolder {}", plane.folder()?.display());
            std::thread::sleep(DEADLINE);
            return Ok(());
        }
        let mut victim = Command::new(std::env::current_exe()?)
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("control_plane::nothing_is_left_after_kill_9_of_the_test")
            .env(VICTIM, "1")
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = victim.stdout.take().context("no standard output")?;
        let folder = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("folder ").map(PathBuf::from));
        victim.kill()?;
        victim.wait()?;
        let folder = folder.context("the victim did not start")?;
        eventually("everything is gone", DEADLINE, || async {
            let gone = group::processes_of(&folder).is_empty() && !folder.exists();
            Ok(gone.then_some(()))
        })
        .await
    }
}
