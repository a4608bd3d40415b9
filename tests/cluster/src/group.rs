//! Daemons that belong together, and a folder of theirs: all gone when the [`Group`] is dropped or the test's process is.
//!
//! A shell runs beside the test and holds the other end of a pipe. When the pipe ends, it runs `tear-down.sh`; so success, panic and
//! `kill -9` take the same way. What a dead shell left (the machine's owner killed it too) is removed when the next group starts.
//! What it must not know: Kubernetes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

const PREFIX: &str = "opes-cluster-";
const TEAR_DOWN: &str = include_str!("group/tear-down.sh");

/// In the environment of every process of a group: by it they are found.
const MARK: &str = "OPES_CLUSTER";

/// A folder may exist for so long before its lock does.
const YOUNG: Duration = Duration::from_mins(1);

/// Octets at the end of a log that an error shows.
const TAIL: u64 = 4 << 10;

/// Running daemons with their folder.
pub struct Group {
    folder: PathBuf,
    daemons: Mutex<Vec<Daemon>>,
    supervisor: Child,
    /// Dropping it is the signal.
    alive: Option<ChildStdin>,
    lock: Option<File>,
}

/// A daemon has ended that should not.
#[derive(Debug, thiserror::Error)]
#[error("{name} ended, {status}: {log}")]
pub struct Ended {
    name: String,
    status: ExitStatus,
    log: String,
}

struct Daemon {
    name: String,
    child: Child,
}

// === impl Group ===

impl Group {
    /// A new empty one. Removes what dead ones left.
    pub fn new() -> Result<Self> {
        remove_leftovers(&std::env::temp_dir());
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
        let lock = File::create(folder.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let mut supervisor = tear_down(&folder, Stdio::piped()).spawn().context("sh")?;
        let alive = supervisor.stdin.take();
        Ok(Self {
            folder,
            daemons: Mutex::default(),
            supervisor,
            alive,
            lock: Some(lock),
        })
    }

    /// Where its files are, removed with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last part of [`Self::folder`], unique on this machine: for everything else that needs a name.
    pub fn name(&self) -> &str {
        let name = self.folder.file_name().and_then(|name| name.to_str());
        name.unwrap_or(PREFIX)
    }

    /// A folder in memory, for what is synced to disk all the time; one of [`Self::folder`] where there is no such thing.
    pub fn memory(&self) -> Result<PathBuf> {
        let memory = Path::new("/dev/shm").join(self.name());
        if fs::create_dir_all(&memory).is_ok() {
            return Ok(memory);
        }
        let folder = self.folder.join("memory");
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Starts a daemon in a process group of its own, so that ^C reaches the test alone; output goes to [`Self::log`].
    pub fn spawn(&self, name: &str, mut command: Command) -> Result<u32> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log(name))?;
        command
            .env(MARK, &self.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let pid = child.id();
        self.daemons().push(Daemon {
            name: name.to_owned(),
            child,
        });
        Ok(pid)
    }

    /// The file that holds the output of a daemon.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// An error, with the end of its output, if a daemon has ended.
    pub fn check(&self) -> Result<()> {
        for daemon in self.daemons().iter_mut() {
            if let Some(status) = daemon.child.try_wait()? {
                let (name, log) = (daemon.name.clone(), self.tail(&daemon.name));
                return Err(Ended { name, status, log }.into());
            }
        }
        Ok(())
    }

    /// The last lines of a daemon.
    pub fn tail(&self, name: &str) -> String {
        tail(&self.log(name)).unwrap_or_default()
    }

    /// `kill -9` to the daemons of this name, and their end awaited.
    pub fn kill(&self, name: &str) {
        let mut daemons = self.daemons();
        for daemon in daemons.iter_mut().filter(|daemon| daemon.name == name) {
            // Already gone is fine.
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
        }
        daemons.retain(|daemon| daemon.name != name);
    }

    fn daemons(&self) -> std::sync::MutexGuard<'_, Vec<Daemon>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.lock.take());
        drop(self.alive.take());
        // It gives up by itself after ten seconds. Its children are ours to reap meanwhile, but zombies do not count.
        let _ = self.supervisor.wait();
        for daemon in self.daemons().iter_mut() {
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
        }
    }
}

fn tear_down(folder: &Path, stdin: Stdio) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", TEAR_DOWN, "tear-down"])
        .arg(folder)
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Tears down what belongs to nobody who lives. What cannot be removed (another user's) stays.
fn remove_leftovers(place: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for folder in entries
        .map(|entry| entry.path())
        .filter(|path| is_left(path))
    {
        // What happens to it is not this test's matter.
        let _ = tear_down(&folder, Stdio::null()).status();
    }
}

fn is_left(folder: &Path) -> bool {
    let ours = folder
        .file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.starts_with(PREFIX));
    let old = || {
        let made = fs::metadata(folder).and_then(|folder| folder.modified());
        made.is_ok_and(|made| {
            SystemTime::now()
                .duration_since(made)
                .is_ok_and(|age| age > YOUNG)
        })
    };
    let unlocked = || {
        let lock = File::options().append(true).open(folder.join("lock"));
        lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
    };
    // The lock last: held here for a moment, it would be missed by who has just made the folder.
    ours && old() && unlocked()
}

fn tail(path: &Path) -> Result<String> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut octets = Vec::new();
    file.read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// Processes that carry the mark of `folder`, for tests of tear-down.
pub fn processes_of(folder: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", folder.display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|octet| *octet == 0)
            .any(|variable| variable == mark.as_bytes())
    })
    .collect()
}

/// Does the work until it gives something, asking the group whether its daemons live; pauses of 50 ms.
pub(crate) async fn until<T, F: Future<Output = Result<T>>>(
    group: &Group,
    what: &str,
    deadline: Duration,
    mut work: impl FnMut() -> F,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let error = match work().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        group.check()?;
        if Instant::now() > end {
            return Err(error.context(format!("{what}: not within {deadline:?}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_owns_any_more_is_removed_and_nothing_else() -> Result<()> {
        let place = tempfile::tempdir()?;
        let make = |name: &str, age: Duration| -> Result<(PathBuf, File)> {
            let folder = place.path().join(name);
            fs::create_dir(&folder)?;
            let lock = File::create(folder.join("lock"))?;
            File::open(&folder)?.set_modified(SystemTime::now() - age)?;
            Ok((folder, lock))
        };
        let old = Duration::from_mins(5);
        let (left, _) = make("opes-cluster-left", old)?;
        let (young, _) = make("opes-cluster-young", Duration::ZERO)?;
        let (foreign, _) = make("foreign", old)?;
        let (owned, lock) = make("opes-cluster-owned", old)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let mut orphan = Command::new("sleep").arg("600").env(MARK, &left).spawn()?;

        remove_leftovers(place.path());
        assert!(!left.exists() && young.exists() && foreign.exists() && owned.exists());
        assert!(!orphan.wait()?.success(), "killed, not ended");
        Ok(())
    }

    #[tokio::test]
    async fn a_daemon_that_ends_is_an_error_with_its_last_words() -> Result<()> {
        let group = Group::new()?;
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such flag; exit 7"]);
        group.spawn("daemon", command)?;
        let never = || async { Err::<(), _>(anyhow::anyhow!("not yet")) };
        let outcome = until(&group, "ready", crate::DEADLINE, never).await;
        let error = outcome
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            error.contains("daemon ended") && error.contains("no such flag"),
            "{error}"
        );
        Ok(())
    }
}
