//! A PostgreSQL of the test's own, on a Unix socket in a temporary folder: stopped and started again as the test says, ended with it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::DEADLINE;

/// Debian's, which never runs as the superuser.
const USER: &str = "postgres";

/// See the module.
pub struct Postgres {
    server: Option<Child>,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    folder: tempfile::TempDir,
}

/// A client in the middle of a transaction.
pub struct Psql {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let user = rustix::process::geteuid().is_root().then(|| ids(USER));
        let user = user.transpose()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let mut postgres = Self {
            server: None,
            programs: programs()?,
            user,
            folder,
        };
        let mut init = postgres.command("initdb");
        init.args(["--no-sync", "--auth=trust", "-U", USER, "-E", "UTF8"])
            .args(["--locale=C", "-D"])
            .arg(postgres.data());
        let made = init.output()?;
        ensure!(made.status.success(), "{made:?}");
        postgres.resume().await?;
        Ok(postgres)
    }

    /// Ends it at once, as a crash of its machine would.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        if let Some(pid) = i32::try_from(server.id()).ok().and_then(Pid::from_raw) {
            // Immediate shutdown; its processes go with it.
            let _gone = kill_process(pid, Signal::QUIT);
        }
        let _reaped = server.wait();
    }

    /// Starts it with what was in it.
    pub async fn resume(&mut self) -> Result<()> {
        let mut serve = self.command("postgres");
        serve
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-D"])
            .arg(self.data())
            .arg("-k")
            .arg(self.folder.path());
        self.server = Some(serve.spawn()?);
        let started = Instant::now();
        while !self.answers() {
            ensure!(started.elapsed() < DEADLINE, "PostgreSQL does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Needs no password.
    pub fn url(&self) -> String {
        format!(
            "postgres://{USER}@localhost/postgres?host={}",
            self.folder.path().display()
        )
    }

    /// A client that has run `statements`.
    pub fn psql(&self, statements: &str) -> Result<Psql> {
        let mut psql = self.command("psql");
        psql.args(["-q", "-t", "-A", "-U", USER, "-h"])
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = psql.spawn()?;
        let input = process.stdin.take().context("no input")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        let mut psql = Psql {
            process,
            input,
            output,
        };
        psql.run(statements)?;
        Ok(psql)
    }

    fn answers(&self) -> bool {
        let mut ready = Command::new(self.programs.join("pg_isready"));
        ready.arg("-q").arg("-h").arg(self.folder.path());
        ready.status().is_ok_and(|status| status.success())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Psql {
    /// Runs statements and waits until they are done.
    pub fn run(&mut self, statements: &str) -> Result<()> {
        writeln!(self.input, "{statements}\n\\echo done")?;
        self.input.flush()?;
        let mut line = String::new();
        while line != "done\n" {
            line.clear();
            ensure!(self.output.read_line(&mut line)? > 0, "psql has ended");
        }
        Ok(())
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let mut folders: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    folders.sort();
    let newest = folders.into_iter().rfind(|folder| is_there(folder));
    newest.context("PostgreSQL is not installed: run `cargo xtask test`, which installs it")
}

fn is_there(folder: &Path) -> bool {
    folder.join("initdb").exists()
}

fn ids(user: &str) -> Result<(u32, u32)> {
    let id = |which| -> Result<u32> {
        let output = Command::new("id").args([which, user]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    Ok((id("-u")?, id("-g")?))
}
