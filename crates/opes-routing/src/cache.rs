//! The last good table on disk: one file, whole or not there.
//!
//! Format: 8 octets that name it and its version, the length of the body (8 octets, big endian), the SHA-256 of the body,
//! and the body, a `Table` of the routing protocol. It is written aside, synced and renamed. When an operator last
//! confirmed it is the time of the file. What cannot be read is no table, and is told in the log: the next one that is put
//! in force replaces it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use opes_proto::routing::{TABLE_OCTETS_MAX, Table};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// Name and version of the format.
const MAGIC: &[u8; 8] = b"OPESRT\x00\x01";
const HASH_OCTETS: usize = 32;
const HEADER_OCTETS: usize = MAGIC.len() + 8 + HASH_OCTETS;

const NAME: &str = "routing-table";

/// A folder with the file.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) table: Table,
    /// Since an operator last confirmed it.
    pub(crate) age: Duration,
}

/// Why there is no table in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {reason}; it is ignored, and replaced by the next table", path.display())]
    Broken { path: PathBuf, reason: &'static str },
}

// === impl Cache ===

impl Cache {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    fn failed(&self, error: io::Error) -> CacheError {
        let path = self.file();
        CacheError::Io { path, error }
    }

    /// None: nothing was ever kept. Blocks.
    pub(crate) fn load(&self) -> Result<Option<Cached>, CacheError> {
        let (octets, age) = match self.octets() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| self.failed(error))?,
        };
        match decode(&octets) {
            Ok(table) => Ok(Some(Cached { table, age })),
            Err(reason) => Err(CacheError::Broken {
                path: self.file(),
                reason,
            }),
        }
    }

    fn octets(&self) -> io::Result<(Vec<u8>, Duration)> {
        let file = File::open(self.file())?;
        let age = SystemTime::now().duration_since(file.metadata()?.modified()?);
        let octets_max = (HEADER_OCTETS + TABLE_OCTETS_MAX) as u64;
        let mut octets = Vec::new();
        // One more tells a file of exactly the limit from one beyond it.
        file.take(octets_max + 1).read_to_end(&mut octets)?;
        Ok((octets, age.unwrap_or_default()))
    }

    /// Durable when it returns. Blocks.
    pub(crate) fn store(&self, table: &Table) -> Result<(), CacheError> {
        let (path, aside) = (self.file(), self.folder.join(format!(".{NAME}.new")));
        self.replace(&path, &aside, table)
            .map_err(|error| self.failed(error))
    }

    fn replace(&self, path: &Path, aside: &Path, table: &Table) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        // Parameters of rules may be nobody else's business.
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(aside)?;
        file.write_all(&encode(table))?;
        file.sync_all()?;
        fs::rename(aside, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// An operator has confirmed what is kept. Blocks.
    pub(crate) fn confirm(&self) -> Result<(), CacheError> {
        let opened = OpenOptions::new().write(true).open(self.file());
        opened
            .and_then(|file| file.set_modified(SystemTime::now()))
            .map_err(|error| self.failed(error))
    }
}

fn encode(table: &Table) -> Vec<u8> {
    let body = table.encode_to_vec();
    let mut octets = Vec::with_capacity(HEADER_OCTETS + body.len());
    octets.extend_from_slice(MAGIC);
    octets.extend_from_slice(&(body.len() as u64).to_be_bytes());
    octets.extend_from_slice(&Sha256::digest(&body));
    octets.extend_from_slice(&body);
    octets
}

fn decode(octets: &[u8]) -> Result<Table, &'static str> {
    const SHORT: &str = "it is too short";
    let (magic, rest) = octets.split_first_chunk::<{ MAGIC.len() }>().ok_or(SHORT)?;
    if magic != MAGIC {
        return Err("it is not a routing table of this version");
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(SHORT)?;
    let (hash, body) = rest.split_first_chunk::<HASH_OCTETS>().ok_or(SHORT)?;
    if u64::from_be_bytes(*length) != body.len() as u64 {
        return Err("it is shorter or longer than it says");
    }
    if Sha256::digest(body).as_slice() != hash {
        return Err("its checksum is wrong");
    }
    Table::decode(body).map_err(|_| "it makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            revision: "0123456789abcdef".into(),
            objects: vec!["{}".into(), "{\"a\":1}".into()],
            endpoints: None,
        }
    }

    #[test]
    fn what_was_stored_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        let cache = Cache::new(below.clone());
        assert!(cache.load().unwrap().is_none());
        cache.store(&table()).unwrap();
        let cached = cache.load().unwrap().unwrap();
        assert_eq!(cached.table, table());
        assert!(cached.age < Duration::from_mins(1));
        let left = fs::read_dir(below).unwrap().count();
        assert_eq!(left, 1, "nothing is left aside");
    }

    #[test]
    fn its_age_is_since_it_was_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        assert!(cache.confirm().is_err(), "there is nothing to confirm");
        cache.store(&table()).unwrap();
        let file = OpenOptions::new().write(true).open(cache.file()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(2))
            .unwrap();
        assert!(cache.load().unwrap().unwrap().age > Duration::from_hours(1));
        cache.confirm().unwrap();
        assert!(cache.load().unwrap().unwrap().age < Duration::from_mins(1));
    }

    #[test]
    fn every_damage_is_seen() {
        let whole = encode(&table());
        assert_eq!(decode(&whole), Ok(table()));
        for place in 0..whole.len() {
            assert!(decode(&whole[..place]).is_err(), "cut at {place}");
            let mut bad = whole.clone();
            bad[place] ^= 0x20;
            assert!(decode(&bad).is_err(), "changed at {place}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn a_broken_file_is_no_table_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned());
        fs::write(cache.file(), b"garbage").unwrap();
        let error = cache.load().unwrap_err().to_string();
        assert!(error.contains("ignored"), "{error}");
        cache.store(&table()).unwrap();
        assert!(cache.load().unwrap().is_some());
    }
}
