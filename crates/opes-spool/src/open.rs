//! Opening a spool: directory, lock, recovery, first segment, threads.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::FlockOperation;
use tokio::runtime::Handle;

use crate::disk::Disk;
use crate::error::no_space;
use crate::index::{Entry, Index};
use crate::own_file::OWN_FILES;
use crate::recovery::{Found, recover};
use crate::spool::Shared;
use crate::tail::{run_settler, run_settler_in_task};
use crate::writer::Writer;
use crate::{QueueId, Queued, Spool, SpoolConfig, SpoolError, StoredContent};

const LOCK_FILE: &str = "lock";

impl Spool {
    /// Opens the spool in `dir`, making the directory if need be, and gives the messages that wait there, oldest first.
    /// On a full volume it opens all the same: stores are refused until there is space, settlements are recorded. Reads all of it: about a second a GiB. Blocks; call it before the program serves.
    pub fn open(dir: &Path, config: SpoolConfig) -> Result<(Self, Vec<Queued>), SpoolError> {
        let own_files = dir.join(OWN_FILES);
        std::fs::create_dir_all(&own_files).map_err(SpoolError::directory(&own_files))?;
        let lock = lock(dir)?;
        sync_name(&*config.disk, dir)?;
        let recovered = recover(dir)?;
        let newest = recovered.segments.last().copied().unwrap_or_default();
        let next_number = newest.number + 1;
        let index = index(&recovered.messages);
        let shared = Arc::new(Shared::new(dir, config, next_number, index));
        let sealed: VecDeque<_> = recovered.segments.into();
        let mut writer = Writer::start(Arc::clone(&shared), lock, sealed, next_number)?;
        writer.clean();
        let handle = run(writer).map_err(SpoolError::directory(dir))?;
        let queued = recovered
            .messages
            .into_iter()
            .map(|(id, found)| queued(id, found, &shared))
            .collect();
        Ok((Self::new(shared, handle), queued))
    }
}

/// On threads, unless the disk asks for tasks.
fn run(writer: Writer) -> io::Result<Option<JoinHandle<()>>> {
    let Some(latency) = writer.shared.disk.in_tasks() else {
        return start_threads(writer).map(Some);
    };
    let runtime = Handle::try_current().map_err(io::Error::other)?;
    runtime.spawn(run_settler_in_task(Arc::clone(&writer.shared)));
    runtime.spawn(writer.run_in_task(latency));
    Ok(None)
}

fn start_threads(writer: Writer) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(&writer.shared);
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let settler = named("spool-settle").spawn({
        let shared = Arc::clone(&shared);
        move || run_settler(&shared)
    })?;
    let handle = named("spool").spawn(move || writer.run(settler));
    if handle.is_err() {
        shared.settles.close();
    }
    handle
}

/// A spool that was just made must not vanish with its messages.
fn sync_name(disk: &dyn Disk, dir: &Path) -> Result<(), SpoolError> {
    let dir = dir.canonicalize().map_err(SpoolError::directory(dir))?;
    match dir.parent() {
        // A parent that we may not read was not made by us.
        Some(parent) => match disk.sync_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other.map_err(SpoolError::sync(parent)),
        },
        None => Ok(()),
    }
}

fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(SpoolError::directory(&path))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(SpoolError::Locked {
            dir: dir.to_owned(),
            holder: holder(&mut file),
        });
    }
    match write_holder(&mut file) {
        // The lock holds without it, and who starts on a full volume must be able to deliver.
        Err(error) if no_space(&error) => Ok(file),
        other => other.map(|()| file).map_err(SpoolError::directory(&path)),
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(1..) => text.trim().to_owned(),
        _ => "?".to_owned(),
    }
}

fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn index(messages: &std::collections::BTreeMap<QueueId, Found>) -> Index {
    let mut index = Index::default();
    for (id, found) in messages {
        let entry = Entry {
            at: found.at.clone(),
            recipients: u32::try_from(found.envelope.recipients.len()).unwrap_or(u32::MAX),
            settled: found.settled.clone(),
        };
        index.insert(*id, entry);
    }
    index
}

fn queued(id: QueueId, found: Found, shared: &Arc<Shared>) -> Queued {
    let all = (0..).take(found.envelope.recipients.len());
    let pending = all
        .filter(|recipient| !found.settled.contains(recipient))
        .collect();
    Queued {
        id,
        content: StoredContent::new(id, found.at.content_len, None, Arc::clone(shared)),
        envelope: Arc::new(found.envelope),
        pending,
    }
}
