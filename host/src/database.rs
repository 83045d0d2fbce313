// SPDX-License-Identifier: Apache-2.0
//! Embedded databases (redb), each in one file of the state directory that only its owner may read. Everything here blocks;
//! what has come back without an error is on the disk.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction, backends};

/// How often it is looked whether the last transaction of a database is over that was given up.
const FINISHING: Duration = Duration::from_millis(1);
/// Memory that a database may take for pages.
const CACHE_BYTES: usize = 8 << 20;

/// A database until it is given up, so that another process may open it while this one goes on.
pub struct Kept {
    database: ArcSwapOption<Database>,
}

impl Kept {
    /// Holds on to a database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database: ArcSwapOption::from_pointee(database) }
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
        let write = database.begin_write().map_err(redb::Error::from)?;
        change(&write)?; // dropping a transaction undoes it
        Ok(write.commit().map_err(redb::Error::from)?)
    }

    /// Lets go of the file. What has begun is finished; nothing begins any more.
    pub fn give_up(&self) {
        let given_up = self.database.swap(None).map(|database| Arc::downgrade(&database));
        while given_up.as_ref().is_some_and(|database| database.strong_count() > 0) {
            std::thread::sleep(FINISHING);
        }
    }

    fn there(&self) -> Result<Arc<Database>, redb::Error> {
        self.database.load_full().ok_or(redb::Error::DatabaseClosed)
    }
}

/// The database of this name in a state directory, made if there is none. `otherwise` says what to do if the file is damaged.
///
/// # Errors
/// What is wrong with the file, and what to do.
pub fn open(state: &Path, name: &str, otherwise: &str) -> Result<Database, String> {
    let path = state.join(name);
    let problem = |error: &dyn Display| format!("{}: {error}", path.display());
    let file = owned(&path).map_err(|error| problem(&error))?;
    let database = Database::builder().set_cache_size(CACHE_BYTES).create_file(file);
    let database = database.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            problem(&"another gateway has this state directory; give this one another (--state DIR)")
        }
        error => problem(&format_args!("{error}; {otherwise}")),
    })?;
    // A new name in a directory is on the disk only when the directory is.
    File::open(state).and_then(|state| state.sync_all()).map_err(|error| problem(&error))?;
    Ok(database)
}

/// A database that ends with the process.
///
/// # Errors
/// None that is known.
pub fn in_memory() -> Result<Database, String> {
    let builder = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backends::InMemoryBackend::new());
    builder.map_err(|error| error.to_string())
}

/// Opens a file that only its owner may read, and makes it so if it is not.
fn owned(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
