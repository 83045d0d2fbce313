// SPDX-License-Identifier: Apache-2.0
//! Embedded databases (redb), each in one file of the state directory that only its owner may read. Everything here blocks;
//! what has come back without an error is on the disk.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::{Database, DatabaseError, WriteTransaction, backends};

/// Memory that a database may take for pages.
const CACHE_BYTES: usize = 8 << 20;

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

/// Makes a change, whole or not at all.
///
/// # Errors
/// Nothing is written.
pub fn write<E: From<redb::TransactionError> + From<redb::CommitError>>(
    database: &Database,
    change: impl FnOnce(&WriteTransaction) -> Result<(), E>,
) -> Result<(), E> {
    let write = database.begin_write()?;
    change(&write)?; // dropping a transaction undoes it
    Ok(write.commit()?)
}

/// Opens a file that only its owner may read, and makes it so if it is not.
fn owned(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}
