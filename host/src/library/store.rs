// SPDX-License-Identifier: Apache-2.0
//! Versions of plugins on disk: `plugins/<name>/<digest>.wasm` in the state directory, and beside them `record.json`, which
//! says which one is active and which ones were before. What a crash leaves half done is not seen: files appear by rename.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::place::hex;

/// Versions of a plugin that are kept.
pub const VERSIONS_MAX: usize = 8;

/// What is known of a plugin's versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Digest of the active version.
    pub active: String,
    /// It was activated by the admin API, and stays until the file in the directory is another one.
    pub pinned: bool,
    /// Digest of the file that was in the directory then.
    pub over: Option<String>,
    /// The file that the active version came from.
    pub file: Option<PathBuf>,
    /// Digests of the versions that were active before, the last one first.
    pub previous: Vec<String>,
    /// Digests of the versions that are kept here, the newest one first.
    pub stored: Vec<String>,
}

impl Record {
    /// Notes that another version is active now.
    pub fn activate(&mut self, digest: &str) {
        if self.active != digest {
            let before = std::mem::replace(&mut self.active, digest.to_owned());
            self.previous.retain(|other| *other != before && other != digest);
            if !before.is_empty() {
                self.previous.insert(0, before);
            }
            self.previous.truncate(VERSIONS_MAX);
        }
    }

    /// Notes that the last version but one is active again.
    pub fn roll_back(&mut self, digest: &str) {
        self.active = digest.to_owned();
        self.previous.retain(|other| other != digest);
    }
}

/// The directory; without one nothing is kept.
#[derive(Debug, Clone)]
pub struct Store {
    root: Option<PathBuf>,
    writes: bool,
}

impl Store {
    /// A store in this directory, which need not exist. If not `writes`, what is to be kept is forgotten.
    pub fn new(root: Option<PathBuf>, writes: bool) -> Self {
        Self { root, writes }
    }

    /// All records. One that cannot be read is reported and left out.
    pub fn records(&self) -> (BTreeMap<String, Record>, Vec<String>) {
        let (mut records, mut troubles) = (BTreeMap::new(), Vec::new());
        let Some(Ok(entries)) = self.root.as_ref().map(fs::read_dir) else { return (records, troubles) };
        for entry in entries.flatten() {
            let path = entry.path().join("record.json");
            let Some(name) = entry.file_name().to_str().map(str::to_owned).filter(|name| is_name(name)) else {
                continue;
            };
            match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
                Ok(Ok(record)) => drop(records.insert(name, record)),
                Ok(Err(error)) => troubles.push(format!("{}: {error}", path.display())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => troubles.push(format!("{}: {error}", path.display())),
            }
        }
        (records, troubles)
    }

    /// Keeps a version, and forgets the oldest one when there are too many. The record is not written yet.
    pub fn put(&self, record: &mut Record, name: &str, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let Some(directory) = self.writable(name)? else { return Ok(()) };
        if !record.stored.iter().any(|stored| stored == digest) {
            fs::create_dir_all(&directory)?;
            write_whole(&directory.join(format!("{digest}.wasm")), bytes)?;
            record.stored.insert(0, digest.to_owned());
        }
        while record.stored.len() > VERSIONS_MAX {
            let oldest = record.stored.iter().rposition(|stored| *stored != record.active && stored != digest);
            let Some(oldest) = oldest.map(|index| record.stored.remove(index)) else { break };
            record.previous.retain(|previous| *previous != oldest);
            remove_if_there(&directory.join(format!("{oldest}.wasm")))?;
        }
        Ok(())
    }

    /// The file of a version, if it is kept and still what it was.
    pub fn read(&self, name: &str, digest: &str, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(directory) = self.directory(name)?.filter(|_| is_digest(digest)) else { return Ok(None) };
        let file = match fs::File::open(directory.join(format!("{digest}.wasm"))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        if digest_of(&bytes) != digest {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the stored file is not what its name says"));
        }
        Ok(Some(bytes))
    }

    /// Writes a record.
    pub fn save(&self, name: &str, record: &Record) -> io::Result<()> {
        let Some(directory) = self.writable(name)? else { return Ok(()) };
        fs::create_dir_all(&directory)?;
        write_whole(&directory.join("record.json"), &serde_json::to_vec_pretty(record)?)
    }

    /// Forgets all versions of a plugin.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.writable(name)?.map(fs::remove_dir_all) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn writable(&self, name: &str) -> io::Result<Option<PathBuf>> {
        Ok(self.directory(name)?.filter(|_| self.writes))
    }

    fn directory(&self, name: &str) -> io::Result<Option<PathBuf>> {
        if !is_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a plugin"));
        }
        Ok(self.root.as_ref().map(|root| root.join(name)))
    }
}

/// Whether this can be the name of a plugin, and so of a directory.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '_'])
}

/// Whether this is a SHA-256 in hex.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// SHA-256 in hex.
pub fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The file has either its old content or all of the new one, whenever the power goes.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("part");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_records_survive_a_restart_and_the_oldest_version_goes() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(Some(directory.path().join("plugins")), true);
        let mut record = Record::default();
        let bytes: Vec<Vec<u8>> = (0..VERSIONS_MAX + 2).map(|n| format!("version {n}").into_bytes()).collect();
        for version in &bytes {
            let digest = digest_of(version);
            record.activate(&digest);
            store.put(&mut record, "echo", &digest, version).unwrap();
        }
        store.save("echo", &record).unwrap();
        let (records, troubles) = Store::new(Some(directory.path().join("plugins")), true).records();
        assert_eq!((records.get("echo"), troubles.as_slice()), (Some(&record), &[][..]));
        assert_eq!(record.stored.len(), VERSIONS_MAX);
        let read = |version: &[u8]| store.read("echo", &digest_of(version), 1 << 20).unwrap();
        assert_eq!(read(&bytes[0]), None);
        assert_eq!(read(&bytes[9]).as_deref(), Some(&*bytes[9]));
        assert!(!record.previous.contains(&digest_of(&bytes[0])), "what is gone cannot be rolled back to");
        store.remove("echo").unwrap();
        assert_eq!(store.records().0.len(), 0);
    }

    #[test]
    fn a_stored_file_that_was_changed_is_not_given_out() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(Some(directory.path().to_owned()), true);
        let digest = digest_of(b"good");
        store.put(&mut Record::default(), "echo", &digest, b"good").unwrap();
        fs::write(directory.path().join("echo").join(format!("{digest}.wasm")), b"evil").unwrap();
        assert_eq!(store.read("echo", &digest, 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let store = Store::new(Some(PathBuf::from("/nonexistent")), true);
        for name in ["", "..", "a/b", "/etc", "A", "a b", "-x", "é", &"a".repeat(65)] {
            assert!(store.save(name, &Record::default()).is_err(), "{name}");
            assert!(store.remove(name).is_err(), "{name}");
        }
        assert_eq!(store.read("a", "../../etc/passwd", 9).unwrap(), None);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_reported_and_left_out() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("echo")).unwrap();
        fs::write(directory.path().join("echo/record.json"), b"{").unwrap();
        let (records, troubles) = Store::new(Some(directory.path().to_owned()), true).records();
        assert_eq!((records.len(), troubles.len()), (0, 1));
    }

    #[test]
    fn rolling_back_twice_goes_back_two_versions() {
        let mut record = Record::default();
        for digest in ["a", "b", "c"] {
            record.activate(digest);
        }
        assert_eq!(record.previous, ["b", "a"]);
        record.roll_back("b");
        assert_eq!((record.active.as_str(), record.previous.as_slice()), ("b", &["a".to_owned()][..]));
    }
}
