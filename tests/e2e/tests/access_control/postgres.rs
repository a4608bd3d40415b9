//! A PostgreSQL of the test's own, on a Unix socket in a temporary folder. Ends with the test.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use opes_e2e::DEADLINE;

/// Debian's, which never runs as the superuser.
const USER: &str = "postgres";

pub(crate) struct Postgres {
    server: Option<Child>,
    programs: PathBuf,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// With what the statements of `sql` make.
    pub(crate) async fn start(sql: &str) -> Result<Self> {
        let mut postgres = Self {
            server: None,
            programs: programs()?,
            folder: tempfile::tempdir()?,
        };
        if let Some((uid, gid)) = user()? {
            chown(postgres.folder.path(), Some(uid), Some(gid))?;
        }
        let mut init = postgres.command("initdb")?;
        init.args([
            "--no-sync",
            "--auth=trust",
            "-U",
            USER,
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
        ]);
        let made = init.arg(postgres.folder.path().join("data")).output()?;
        ensure!(made.status.success(), "initdb: {made:?}");
        postgres.run().await?;
        let mut psql = postgres.command("psql")?;
        psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-U", USER, "-c", sql, "-h"]);
        let filled = psql.arg(postgres.folder.path()).output()?;
        ensure!(filled.status.success(), "psql: {filled:?}");
        Ok(postgres)
    }

    /// Starts it again.
    pub(crate) async fn run(&mut self) -> Result<()> {
        self.server = Some(self.serve()?.spawn()?);
        tokio::time::timeout(DEADLINE, async {
            while !self.is_ready() {
                let server = self.server.as_mut().context("no server")?;
                // It refuses to start while a child of one that was killed still holds the shared memory.
                if server.try_wait()?.is_some() {
                    self.server = Some(self.serve()?.spawn()?);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        })
        .await
        .context("PostgreSQL does not start")?
    }

    fn is_ready(&self) -> bool {
        let mut ready = Command::new(self.programs.join("pg_isready"));
        let ready = ready.arg("-q").arg("-h").arg(self.folder.path()).status();
        ready.is_ok_and(|status| status.success())
    }

    fn serve(&self) -> Result<Command> {
        let mut serve = self.command("postgres")?;
        serve.args(["-c", "listen_addresses=", "-c", "fsync=off", "-D"]);
        serve
            .arg(self.folder.path().join("data"))
            .arg("-k")
            .arg(self.folder.path());
        serve.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(serve)
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://{USER}@localhost/postgres?host={}",
            self.folder.path().display()
        )
    }

    /// SIGKILL. Its own children see that it is gone, and go too.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Gone already is fine.
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir("/");
        if let Some((uid, gid)) = user()? {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders
        .into_iter()
        .rfind(|folder| folder.join("initdb").exists())
        .context("PostgreSQL is not installed: run `cargo xtask test`, which installs it")
}

/// Who it runs as, if we are the superuser.
fn user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let id = |which: &str| {
        let output = Command::new("id").args([which, USER]).output()?;
        anyhow::Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    Ok(Some((id("-u")?, id("-g")?)))
}
