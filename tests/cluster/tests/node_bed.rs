//! The whole node of the fixture: pods run and are reached as in any cluster, and nothing of it stays on the machine.

mod whole_node {
    use std::io::{BufRead as _, BufReader};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use anyhow::{Context as _, Result, ensure};
    use opes_cluster::{DEADLINE, Node, eventually, group, node};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// Set: this process is the one that gets killed.
    const VICTIM: &str = "OPES_BED_VICTIM";
    const ECHO: &str = include_str!("node_bed/echo.yaml");

    /// A node is half a gigabyte and both cores while it starts: one after another.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// What a node could change of the machine that runs it.
    #[derive(Debug, PartialEq, Eq)]
    struct Machine {
        links: Vec<PathBuf>,
        settings: Vec<String>,
        folders: Vec<bool>,
        mounts: Vec<String>,
    }

    impl Machine {
        fn now() -> Result<Self> {
            let settings = [
                "vm/overcommit_memory",
                "kernel/panic",
                "kernel/panic_on_oops",
                "net/ipv4/ip_forward",
            ];
            let folders = [
                "/var/lib/kubelet",
                "/var/lib/cni",
                "/run/containerd",
                "/var/log/pods",
                "/var/log/containers",
                "/run/netns",
                "/etc/cni",
            ];
            let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
            Ok(Self {
                links: list("/sys/class/net")?,
                settings: settings
                    .map(|path| std::fs::read_to_string(format!("/proc/sys/{path}")))
                    .into_iter()
                    .collect::<std::io::Result<_>>()?,
                folders: folders.map(|path| Path::new(path).exists()).to_vec(),
                mounts: mounts
                    .lines()
                    .filter(|line| line.contains("opes-cluster"))
                    .map(str::to_owned)
                    .collect(),
            })
        }
    }

    fn list(folder: &str) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        let mut entries: Vec<PathBuf> = entries.collect::<Result<_>>()?;
        entries.sort();
        Ok(entries)
    }

    /// Processes, folders and cgroups of the node whose folder it was.
    fn left(folder: &Path) -> Vec<String> {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let processes = group::processes_of(folder)
            .into_iter()
            .map(|pid| format!("process {pid}"));
        let containers = list("/proc")
            .unwrap_or_default()
            .into_iter()
            .filter(|process| {
                std::fs::read_to_string(process.join("cgroup"))
                    .is_ok_and(|text| text.contains(&name))
            });
        let cgroups = list("/sys/fs/cgroup")
            .unwrap_or_default()
            .into_iter()
            .map(|controller| controller.join(&name));
        let folders = [
            folder.to_owned(),
            Path::new("/dev/shm").join(&name),
            Path::new("/sys/fs/cgroup").join(&name),
        ];
        let paths = cgroups.chain(folders).filter(|path| path.exists());
        processes
            .chain(
                containers
                    .chain(paths)
                    .map(|path| path.display().to_string()),
            )
            .collect()
    }

    async fn get(stream: std::net::TcpStream, path: &str) -> Result<String> {
        let mut stream = TcpStream::from_std(stream)?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(30), stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    /// The rollout, its wait, and the way in: with the time each took.
    async fn pods_answer(node: &Node) -> Result<()> {
        let image = node.load("busybox")?;
        let namespace = node.namespace("bed").await?;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        node.kubectl(&["label", "namespace", &namespace, restricted])?;
        let started = Instant::now();
        node.kubectl_with(
            &["-n", &namespace, "apply", "-f", "-"],
            &ECHO.replace("IMAGE", &image),
        )?;
        node.kubectl(&[
            "-n",
            &namespace,
            "rollout",
            "status",
            "deployment/echo",
            "--timeout=240s",
        ])?;
        println!("two pods available after {:.1?}", started.elapsed());

        let logs = node.kubectl(&["-n", &namespace, "logs", "deployment/echo"])?;
        assert!(logs.contains("serving"), "{logs}");
        let ask = |host: &str| {
            let url = format!("http://{host}/cgi-bin/who");
            node.kubectl(&[
                "-n",
                &namespace,
                "exec",
                "deployment/echo",
                "--",
                "/usr/bin/busybox",
                "wget",
                "-q",
                "-O",
                "-",
                &url,
            ])
        };
        for host in [
            format!("echo.{namespace}.svc.cluster.local"),
            "echo".to_owned(),
            "headless:8080".to_owned(),
        ] {
            let answer = eventually(&host, DEADLINE, || async { Ok(Some(ask(&host)?)) }).await?;
            assert!(answer.contains("203.0.113."), "{host}: {answer}");
        }
        let unknown = ask("unknown").err().map(|error| error.to_string());
        assert!(
            unknown.is_some_and(|error| error.contains("bad address")),
            "no such name"
        );

        let port = (node.node_ip(), 30080).into();
        let answer = eventually("NodePort", DEADLINE, || async {
            let stream = node.connect(port).await?;
            Ok(Some(get(stream, "/cgi-bin/who").await?))
        })
        .await?;
        // As an IPv6 server shows it.
        let client = format!("[::ffff:{}] asked echo-", node::OUTSIDE_IP);
        assert!(
            answer.contains(&client),
            "the client's own address: {answer}"
        );
        let relayed = std::net::TcpStream::connect(node.forward(port)?)?;
        relayed.set_nonblocking(true)?;
        assert!(get(relayed, "/cgi-bin/who").await?.contains(&client));
        Ok(())
    }

    /// Each program of ours finds its libraries and prints its help, as a user that is nobody, on a file system that is read only.
    async fn images_start(node: &Node) -> Result<()> {
        let namespace = node.namespace("images").await?;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        node.kubectl(&["label", "namespace", &namespace, restricted])?;
        for name in ["opes-edge", "opes-operator", "opes-security-filter"] {
            let image = node.load(name)?;
            let pod = format!(
                r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: it
      image: "{image}"
      imagePullPolicy: Never
      args: [--help]
      securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
"#
            );
            node.kubectl_with(&["-n", &namespace, "apply", "-f", "-"], &pod)?;
        }
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        let wait = node.kubectl(&[
            "-n",
            &namespace,
            "wait",
            "pods",
            "--all",
            done,
            "--timeout=240s",
        ]);
        if wait.is_err() {
            wait.context(node.kubectl(&["-n", &namespace, "describe", "pods"])?)?;
        }
        let help = node.kubectl(&["-n", &namespace, "logs", "opes-edge"])?;
        ensure!(help.contains("Usage: opes edge"), "{help}");
        Ok(())
    }

    /// Of an index with two platforms a node runs what is for it. What is for the other one can be loaded too, and for a third
    /// there is nothing.
    async fn a_node_takes_its_platform_from_an_index(node: &Node) -> Result<()> {
        let image = node.load("platforms")?;
        let namespace = node.namespace("platforms").await?;
        let pod = format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: platform}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  containers: [{{name: it, image: "{image}", imagePullPolicy: Never}}]
"#
        );
        node.kubectl_with(&["-n", &namespace, "apply", "-f", "-"], &pod)?;
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        let deadline = "--timeout=240s";
        node.kubectl(&["-n", &namespace, "wait", "pod/platform", done, deadline])?;
        let said = node.kubectl(&["-n", &namespace, "logs", "platform"])?;
        let expected = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        assert_eq!(said.trim(), expected);
        for platform in ["linux/amd64", "linux/arm64"] {
            node.load_for("platforms", platform)?;
        }
        let error = node.load_for("platforms", "linux/riscv64").err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains("no match for platform"), "{error}");
        // Of our own programs there is one, and the list of what is in it is none.
        let error = node.load_for("opes-edge", "linux/riscv64").err();
        ensure!(error.is_some(), "a list was taken for an image");
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pods_run_are_reached_and_leave_nothing() -> Result<()> {
        let _turn = TURN.lock().await;
        let before = Machine::now()?;
        let started = Instant::now();
        let node = Node::start().await?;
        println!("node Ready after {:.1?}", started.elapsed());
        let folder = node.folder().to_owned();
        if let Err(error) = pods_answer(&node).await {
            let to = std::env::temp_dir().join("opes-node-bed");
            node.dump(&to).await?;
            return Err(error.context(format!("see {}", to.display())));
        }
        let stopped = Instant::now();
        drop(node);
        println!("gone after {:.1?}", stopped.elapsed());
        assert_eq!(left(&folder), [] as [&str; 0]);
        assert_eq!(Machine::now()?, before);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn images_start_claims_get_volumes_and_helm_is_there() -> Result<()> {
        let _turn = TURN.lock().await;
        let node = Node::start().await?;
        images_start(&node).await?;
        a_node_takes_its_platform_from_an_index(&node).await?;
        let image = node.load("busybox")?;
        let namespace = node.namespace("volume").await?;
        node.hostpath_pv("spool-0", "1Gi").await?;
        let pod = format!(
            r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: spool}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: writer}}
spec:
  restartPolicy: Never
  containers:
    - {{name: writer, image: "{image}", imagePullPolicy: Never, args: [sh, -c, "echo kept >/spool/file"], volumeMounts: [{{name: spool, mountPath: /spool}}]}}
  volumes: [{{name: spool, persistentVolumeClaim: {{claimName: spool}}}}]
"#
        );
        node.kubectl_with(&["-n", &namespace, "apply", "-f", "-"], &pod)?;
        let done = "--for=jsonpath={.status.phase}=Succeeded";
        node.kubectl(&[
            "-n",
            &namespace,
            "wait",
            "pod/writer",
            done,
            "--timeout=240s",
        ])?;
        let file = node.folder().join("volumes/spool-0/file");
        assert_eq!(std::fs::read_to_string(file)?, "kept\n");
        let version = node.helm(&["version", "--short"])?;
        assert!(version.starts_with("v4."), "{version}");
        node.helm(&["list", "-n", &namespace])?;
        let dump = tempfile::tempdir()?;
        node.dump(dump.path()).await?;
        let pods = std::fs::read_to_string(dump.path().join("pods.txt"))?;
        ensure!(pods.contains("writer") && dump.path().join("kubelet.log").exists());
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_left_after_kill_9_of_the_test() -> Result<()> {
        if std::env::var_os(VICTIM).is_some() {
            let node = Node::start().await?;
            pods_answer(&node).await?;
            // A line of its own: the harness has written the test's name without an end.
            println!("\nfolder {}", node.folder().display());
            std::thread::sleep(DEADLINE);
            return Ok(());
        }
        let _turn = TURN.lock().await;
        let before = Machine::now()?;
        let mut victim = Command::new(std::env::current_exe()?)
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("whole_node::nothing_is_left_after_kill_9_of_the_test")
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
            let left = left(&folder);
            ensure!(left.is_empty(), "{left:?}");
            Ok(Some(()))
        })
        .await?;
        assert_eq!(Machine::now()?, before);
        Ok(())
    }
}
