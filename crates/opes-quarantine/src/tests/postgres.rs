//! A PostgreSQL of its own, on a Unix socket in a temporary folder. Ends with the test.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::PostgresConfig;

const DEADLINE: Duration = Duration::from_mins(1);

/// Debian's, which never runs as the superuser.
const USER: &str = "postgres";

pub(super) struct Postgres {
    server: Child,
    folder: tempfile::TempDir,
}

impl Postgres {
    pub(super) async fn start() -> Self {
        let programs = programs();
        let folder = tempfile::tempdir().unwrap();
        let user = superuser().then(|| (id("-u"), id("-g")));
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let mut init = command(&programs, "initdb", user);
        init.args([
            "--no-sync",
            "--auth=trust",
            "-U",
            USER,
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
        ])
        .arg(&data);
        let made = init.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut serve = command(&programs, "postgres", user);
        serve
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-D"])
            .arg(&data)
            .arg("-k")
            .arg(folder.path());
        let server = serve.spawn().unwrap();
        let postgres = Self { server, folder };
        let started = Instant::now();
        let socket = postgres.folder.path().join(".s.PGSQL.5432");
        while tokio::net::UnixStream::connect(&socket).await.is_err()
            || !postgres.answers(&programs)
        {
            assert!(started.elapsed() < DEADLINE, "PostgreSQL does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        postgres
    }

    fn answers(&self, programs: &Path) -> bool {
        let mut ready = Command::new(programs.join("pg_isready"));
        ready.arg("-q").arg("-h").arg(self.folder.path());
        ready.status().is_ok_and(|status| status.success())
    }

    pub(super) fn config(&self) -> PostgresConfig {
        PostgresConfig {
            url: format!(
                "postgres://{USER}@localhost/postgres?host={}",
                self.folder.path().display()
            ),
            password: Some("not asked for: @/?".into()),
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders
        .into_iter()
        .rfind(|folder| folder.join("initdb").exists())
        .expect("PostgreSQL is not installed: run `cargo xtask test`, which installs it")
}

fn command(programs: &Path, name: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(programs.join(name));
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn superuser() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .unwrap()
        .stdout
        .trim_ascii()
        == b"0"
}

fn id(which: &str) -> u32 {
    let output = Command::new("id").args([which, USER]).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}
