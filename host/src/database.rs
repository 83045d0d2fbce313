// SPDX-License-Identifier: Apache-2.0
//! Embedded databases (redb), each in one file of the state directory that only its owner may read. Everything here blocks;
//! what has come back without an error is on the disk. After an error of the disk a database takes no more changes until it is opened
//! again: that is done here, so that a disk that was full for a while needs no restart.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redb::{Database, ReadTransaction, ReadableDatabase, StorageError, TransactionError, WriteTransaction, backends};

/// How often it is looked whether the last transaction of a database is over that was given up.
const FINISHING: Duration = Duration::from_millis(1);
/// Memory that a database may take for pages.
const CACHE_BYTES: usize = 8 << 20;

/// A database until it is given up, so that another process may open it while this one goes on.
pub struct Kept {
    /// None after it was given up, or while it cannot be opened.
    database: ArcSwapOption<Database>,
    /// Where it may be opened again: none in memory, and after it was given up. Whoever opens or gives up holds the lock.
    file: Mutex<Option<PathBuf>>,
}

impl Kept {
    fn new(database: Database, file: Option<PathBuf>) -> Self {
        Self { database: ArcSwapOption::from_pointee(database), file: Mutex::new(file) }
    }

    /// Begins to read.
    ///
    /// # Errors
    /// It cannot be read, or was given up.
    pub fn read(&self) -> Result<ReadTransaction, redb::Error> {
        Ok(self.there()?.begin_read()?)
    }

    /// Makes a change, whole or not at all.
    ///
    /// # Errors
    /// Nothing is written.
    pub fn write<E: From<redb::Error>>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), E>,
    ) -> Result<(), E> {
        let database = self.there()?;
        let done = attempt(&database, change);
        // Dropped first: whoever opens it again waits for all others.
        let broken = (done.is_err() && is_broken(&database)).then(|| Arc::downgrade(&database));
        drop(database);
        if let Some(broken) = broken {
            self.open_again(&broken);
        }
        done
    }

    /// Lets go of the file. What has begun is finished; nothing begins any more.
    pub fn give_up(&self) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        *file = None;
        self.let_go();
    }

    fn let_go(&self) {
        let given_up = self.database.swap(None).map(|database| Arc::downgrade(&database));
        while given_up.as_ref().is_some_and(|database| database.strong_count() > 0) {
            std::thread::sleep(FINISHING);
        }
    }

    fn there(&self) -> Result<Arc<Database>, redb::Error> {
        if let Some(database) = self.database.load_full() {
            return Ok(database);
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if self.database.load().is_none() {
            let path = file.as_deref().ok_or(redb::Error::DatabaseClosed)?;
            self.database.store(Some(Arc::new(opened(path)?)));
        }
        drop(file);
        self.database.load_full().ok_or(redb::Error::DatabaseClosed)
    }

    /// Opens what is broken anew. If that fails, whoever needs it next tries again.
    fn open_again(&self, broken: &Weak<Database>) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = self.database.load().as_ref().is_some_and(|database| Arc::as_ptr(database) == broken.as_ptr());
        let Some(path) = file.as_deref().filter(|_| is_there) else { return };
        self.let_go();
        match opened(path) {
            Ok(database) => self.database.store(Some(Arc::new(database))),
            Err(error) => tracing::error!("{} cannot be opened again: {error}", path.display()),
        }
    }
}

fn attempt<E: From<redb::Error>>(
    database: &Database,
    change: impl FnOnce(&WriteTransaction) -> Result<(), E>,
) -> Result<(), E> {
    let write = database.begin_write().map_err(redb::Error::from)?;
    change(&write)?; // dropping a transaction undoes it
    Ok(write.commit().map_err(redb::Error::from)?)
}

/// Whether an error of the disk has ended it.
fn is_broken(database: &Database) -> bool {
    matches!(database.begin_write(), Err(TransactionError::Storage(StorageError::PreviousIo | StorageError::Io(_))))
}

/// The database of this name in a state directory, made if there is none. `otherwise` says what to do if the file is damaged.
///
/// # Errors
/// What is wrong with the file, and what to do.
pub fn open(state: &Path, name: &str, otherwise: &str) -> Result<Kept, String> {
    let path = state.join(name);
    let problem = |error: &dyn Display| format!("{}: {error}", path.display());
    let database = opened(&path).map_err(|error| match error {
        redb::Error::DatabaseAlreadyOpen => {
            problem(&"another gateway has this state directory; give this one another (--state DIR)")
        }
        redb::Error::Io(error) => problem(&error),
        error => problem(&format_args!("{error}; {otherwise}")),
    })?;
    // A new name in a directory is on the disk only when the directory is.
    File::open(state).and_then(|state| state.sync_all()).map_err(|error| problem(&error))?;
    Ok(Kept::new(database, Some(path)))
}

fn opened(path: &Path) -> Result<Database, redb::Error> {
    let file = owned(path)?;
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_file(file)?)
}

/// A database that ends with the process.
///
/// # Errors
/// None that is known.
pub fn in_memory() -> Result<Kept, String> {
    let builder = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backends::InMemoryBackend::new());
    builder.map(|database| Kept::new(database, None)).map_err(|error| error.to_string())
}

/// Opens a file that only its owner may read, and makes it so if it is not.
fn owned(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::{ReadableTable, StorageBackend, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("table");

    /// A disk that can be full.
    #[derive(Debug)]
    struct Disk(backends::FileBackend, Arc<AtomicBool>);

    impl StorageBackend for Disk {
        fn len(&self) -> Result<u64, io::Error> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
            self.0.read(offset, out)
        }

        fn set_len(&self, len: u64) -> Result<(), io::Error> {
            self.0.set_len(len)
        }

        fn sync_data(&self) -> Result<(), io::Error> {
            self.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
            if self.1.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.write(offset, data)
        }
    }

    fn put(kept: &Kept, key: u64) -> Result<(), redb::Error> {
        kept.write(|write| write.open_table(TABLE)?.insert(key, &[7; 9000][..]).map(drop).map_err(redb::Error::from))
    }

    #[test]
    fn a_disk_that_was_full_takes_changes_again_and_what_it_refused_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.redb");
        drop(opened(&path).unwrap());
        let full = Arc::new(AtomicBool::new(false));
        let disk = Disk(backends::FileBackend::new(owned(&path).unwrap()).unwrap(), Arc::clone(&full));
        let kept = Kept::new(Database::builder().create_with_backend(disk).unwrap(), Some(path));
        put(&kept, 1).unwrap();
        full.store(true, Ordering::Relaxed);
        put(&kept, 2).unwrap_err();
        // What it was opened as again has room.
        put(&kept, 3).unwrap();
        let table = kept.read().unwrap().open_table(TABLE).unwrap();
        let keys: Vec<_> = table.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
        assert_eq!(keys, [1, 3]);
        kept.give_up();
        assert!(put(&kept, 4).is_err() && kept.read().is_err(), "it is another process's now");
    }
}
