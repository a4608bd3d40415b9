//! A cluster as a test sees it: clients, kubectl, helm, namespaces.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::{DEADLINE, eventually, programs};

/// On what tests make in a cluster that stays: `kubectl delete namespace -l opes.dev/made-by=tests`.
const MADE_BY: (&str, &str) = ("opes.dev/made-by", "tests");

/// Where the generated definitions are, from this crate's folder.
const CRDS: &str = "../../charts/opes/crds-src";

/// A way in, as administrator.
#[derive(Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
    config: Config,
    /// Where kubectl and helm keep their caches; `None` = the user's own home.
    home: Option<PathBuf>,
}

// === impl Cluster ===

impl Cluster {
    /// The cluster that a kubeconfig names.
    pub async fn new(kubeconfig: &Path, home: Option<&Path>) -> Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig)?;
        let options = KubeConfigOptions::default();
        Ok(Self {
            kubeconfig: kubeconfig.to_owned(),
            config: Config::from_custom_kubeconfig(read, &options).await?,
            home: home.map(Path::to_owned),
        })
    }

    /// A client of its own for the runtime that asks: one made in another test ends with that test's runtime.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    /// What clients are made of.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A client that is `user` in `groups` by impersonation, so with the rights that RBAC gives them.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(owned(groups));
        Ok(Client::try_from(config)?)
    }

    /// For programs that want a file: administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes a kubeconfig to `file` that is `user` in `groups`, as [`Self::client_as`]. A service account is
    /// `system:serviceaccount:NAMESPACE:NAME` in `system:serviceaccounts` and `system:authenticated`.
    pub fn kubeconfig_as(&self, file: &Path, user: &str, groups: &[&str]) -> Result<()> {
        let mut read = Kubeconfig::read_from(&self.kubeconfig)?;
        for named in &mut read.auth_infos {
            if let Some(info) = &mut named.auth_info {
                info.impersonate = Some(user.to_owned());
                info.impersonate_groups = Some(owned(groups));
            }
        }
        // JSON is YAML.
        std::fs::write(file, serde_json::to_vec(&read)?)?;
        Ok(())
    }

    /// A new namespace `PREFIX-…` that no other test has.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}-{}-{number}", std::process::id())),
                labels: Some([(MADE_BY.0.to_owned(), MADE_BY.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let made = Api::all(self.client()?)
            .create(&PostParams::default(), &namespace)
            .await?;
        made.metadata.name.context("a namespace without a name")
    }

    /// Runs kubectl to its end and returns its standard output. Blocks the thread.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run("kubectl", arguments, "")
    }

    /// As [`Self::kubectl`], with standard input: `kubectl_with(&["apply", "-f", "-"], yaml)`.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.run("kubectl", arguments, input)
    }

    /// Runs helm to its end and returns its standard output. Blocks the thread.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.run("helm", arguments, "")
    }

    /// What the API server counts, in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String> {
        self.raw("/metrics").await
    }

    /// What the API server answers to GET of a path, as `kubectl get --raw`.
    pub async fn raw(&self, path: &str) -> Result<String> {
        let request = kube::core::Request::new(path).list(&ListParams::default())?;
        Ok(self.client()?.request_text(request).await?)
    }

    /// Applies the project's custom resource definitions, if they have been generated, and waits until they are served. How many.
    pub async fn apply_crds(&self) -> Result<usize> {
        self.apply_crds_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(CRDS))
            .await
    }

    /// Applies the custom resource definitions of a folder, one in each `*.yaml`, and waits until they are served. How many.
    pub async fn apply_crds_of(&self, folder: &Path) -> Result<usize> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client()?);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            let definition: serde_json::Value = serde_saphyr::from_str(&text)
                .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
            let name = definition["metadata"]["name"].as_str().map(str::to_owned);
            let name = name.with_context(|| format!("{}: no metadata.name", path.display()))?;
            let parameters = PatchParams::apply("opes-tests").force();
            api.patch(&name, &parameters, &Patch::Apply(&definition))
                .await?;
            names.push(name);
        }
        for name in &names {
            eventually(&format!("{name} Established"), DEADLINE, || {
                established(&api, name)
            })
            .await?;
            // Discovery, by which kubectl goes, is a moment behind.
            eventually(&format!("{name} found"), DEADLINE, || async {
                self.kubectl(&["get", name, "-A", "-o", "name"]).map(Some)
            })
            .await?;
        }
        Ok(names.len())
    }

    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = programs::kubernetes(program)?;
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig);
        if let Some(home) = &self.home {
            command.env("HOME", home);
            for variable in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
                command.env_remove(variable);
            }
        }
        output(command, input)
    }
}

async fn established(api: &Api<CustomResourceDefinition>, name: &str) -> Result<Option<()>> {
    let status = api.get(name).await?.status.unwrap_or_default();
    let mut conditions = status.conditions.unwrap_or_default().into_iter();
    let is_there = conditions.any(|it| it.type_ == "Established" && it.status == "True");
    Ok(is_there.then_some(()))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Runs a command to its end with `input`; its standard output, or an error that holds its standard error.
pub(crate) fn output(mut command: Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_owned();
    // One that ends without reading all of it is judged by its status.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output()?;
    // A thread that only writes does not panic.
    let _ = writer.join();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
