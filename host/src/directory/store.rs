// SPDX-License-Identifier: Apache-2.0
//! Where the directory survives a restart. [`Store`] is what the directory needs of it: everything at the start, and then
//! one commit after another, each of them whole or not at all, and only upon the revision that the writer has seen. The
//! embedded database (redb) keeps it in one file that only its owner may read. Everything here blocks.

use std::path::Path;
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::audit::{LINES_MAX, Line, PAGE_MAX, Query};
use super::document::{Document, Kind};
use super::usage::Row;
use crate::database::{self, Kept};

/// Name of the file in the state directory.
pub const FILE: &str = "directory.redb";

const DOCUMENTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("documents");
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
const USAGE: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("usage");
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("revision");

/// Keeps the directory.
pub trait Store: Send + Sync + 'static {
    /// Everything that is kept.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Keeps a change with its line of the audit log, in one transaction.
    ///
    /// # Errors
    /// Nothing is kept; [`StoreError::Conflict`] if somebody else has written since `expected`.
    fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError>;

    /// Keeps what other gateways have changed, and what the audit log says of it.
    ///
    /// # Errors
    /// Nothing is kept.
    fn follow(&self, followed: &Followed) -> Result<(), StoreError>;

    /// Lines of the audit log, the newest first.
    ///
    /// # Errors
    /// It cannot be read.
    fn audit(&self, query: &Query) -> Result<Vec<Line>, StoreError>;

    /// Puts sums of usage in the place of those that are kept, and forgets days before `first_day`.
    ///
    /// # Errors
    /// Nothing is kept.
    fn put_usage(&self, rows: &[Row], first_day: u64) -> Result<(), StoreError>;

    /// Sums of usage from one day to another, both included.
    ///
    /// # Errors
    /// It cannot be read.
    fn usage(&self, from: u64, to: u64) -> Result<Vec<Row>, StoreError>;

    /// Lets go of its file, so that another process may open it; nothing is kept or read any more.
    fn give_up(&self);
}

/// What a store has kept.
#[derive(Default)]
pub struct Loaded {
    /// The revision of the last commit.
    pub revision: u64,
    /// Number of the last line of the audit log.
    pub last_line: u64,
    /// Every document.
    pub documents: Vec<Document>,
}

/// A change.
pub struct Commit<'c> {
    /// The revision that it is made upon.
    pub expected: u64,
    /// The revision that it makes.
    pub revision: u64,
    /// The document as it is from now on.
    pub put: Option<&'c Document>,
    /// The document that is no more.
    pub remove: Option<(Kind, &'c str)>,
    /// What the audit log says of it.
    pub line: &'c Line,
}

/// What other gateways have changed.
#[derive(Default)]
pub struct Followed {
    /// The revision that all of it leads to.
    pub revision: u64,
    /// Documents as they are from now on.
    pub put: Vec<Arc<Document>>,
    /// Documents that are no more.
    pub remove: Vec<(Kind, String)>,
    /// Lines of the audit log.
    pub lines: Vec<Line>,
}

/// Why something was not kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has written in the meantime.
    #[error("the directory was changed in the meantime")]
    Conflict,
    /// Other gateways have to be told, and cannot be.
    #[error("{0}")]
    Away(String),
    /// Anything else.
    #[error("{0}")]
    Broken(String),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Broken(error.into().to_string())
    }
}

/// The embedded database.
pub struct Embedded {
    database: Kept,
}

impl Embedded {
    /// The database of a state directory, made if there is none.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub fn open(state: &Path) -> Result<Self, String> {
        let database = database::open(state, FILE, "put a copy in its place, or move it away to begin without keys")?;
        Self::with(database).map_err(|error| format!("{}: {error}", state.join(FILE).display()))
    }

    /// A database that ends with the process.
    ///
    /// # Errors
    /// None that is known.
    pub fn in_memory() -> Result<Self, String> {
        let database = database::in_memory()?;
        Self::with(database).map_err(|error| error.to_string())
    }

    fn with(database: Kept) -> Result<Self, StoreError> {
        let store = Self { database };
        store.write(|write| {
            write.open_table(DOCUMENTS)?;
            write.open_table(AUDIT)?;
            write.open_table(USAGE)?;
            write.open_table(REVISION)?;
            Ok(())
        })?;
        Ok(store)
    }

    fn write(&self, change: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.database.write(change)
    }
}

impl Store for Embedded {
    fn load(&self) -> Result<Loaded, StoreError> {
        let read = self.database.read()?;
        let revision = read.open_table(REVISION)?.get(())?.map_or(0, |revision| revision.value());
        let last_line = read.open_table(AUDIT)?.last()?.map_or(0, |(number, _)| number.value());
        let mut documents = Vec::new();
        for entry in read.open_table(DOCUMENTS)?.iter()? {
            let (key, bytes) = entry?;
            let (kind, id) = key.value();
            let unreadable = |why: &str| StoreError::Broken(format!("the {kind} {id} cannot be read: {why}"));
            let known = Kind::of_name(kind).ok_or_else(|| unreadable("this version does not know the kind"))?;
            documents.push(Document::of_bytes(known, id, bytes.value()).map_err(|why| unreadable(&why))?);
        }
        Ok(Loaded { revision, last_line, documents })
    }

    fn commit(&self, commit: &Commit<'_>) -> Result<(), StoreError> {
        self.write(|write| {
            let mut revision = write.open_table(REVISION)?;
            if revision.get(())?.map_or(0, |revision| revision.value()) != commit.expected {
                return Err(StoreError::Conflict);
            }
            revision.insert((), commit.revision)?;
            let mut documents = write.open_table(DOCUMENTS)?;
            if let Some(document) = commit.put {
                documents
                    .insert((document.kind.name(), document.id.as_str()), encode(document.to_bytes())?.as_slice())?;
            }
            if let Some((kind, id)) = commit.remove {
                documents.remove((kind.name(), id))?;
            }
            note(&mut write.open_table(AUDIT)?, commit.line)
        })
    }

    fn follow(&self, followed: &Followed) -> Result<(), StoreError> {
        self.write(|write| {
            write.open_table(REVISION)?.insert((), followed.revision)?;
            let mut documents = write.open_table(DOCUMENTS)?;
            for document in &followed.put {
                let name = (document.kind.name(), document.id.as_str());
                documents.insert(name, encode(document.to_bytes())?.as_slice())?;
            }
            for (kind, id) in &followed.remove {
                documents.remove((kind.name(), id.as_str()))?;
            }
            let mut audit = write.open_table(AUDIT)?;
            followed.lines.iter().try_for_each(|line| note(&mut audit, line))
        })
    }

    fn audit(&self, query: &Query) -> Result<Vec<Line>, StoreError> {
        let table = self.database.read()?.open_table(AUDIT)?;
        let mut lines = Vec::new();
        for entry in table.range(..query.before.unwrap_or(u64::MAX))?.rev() {
            let (_, bytes) = entry?;
            let line: Line = decode(bytes.value())?;
            if query.matches(&line) {
                lines.push(line);
            }
            if lines.len() >= query.limit.min(PAGE_MAX) {
                break;
            }
        }
        Ok(lines)
    }

    fn put_usage(&self, rows: &[Row], first_day: u64) -> Result<(), StoreError> {
        self.write(|write| {
            let mut usage = write.open_table(USAGE)?;
            for row in rows {
                usage.insert((row.day, row.name().as_str()), encode(serde_json::to_vec(row))?.as_slice())?;
            }
            usage.retain_in(..(first_day, ""), |_, _| false)?;
            Ok(())
        })
    }

    fn usage(&self, from: u64, to: u64) -> Result<Vec<Row>, StoreError> {
        let table = self.database.read()?.open_table(USAGE)?;
        let rows = table.range((from, "")..(to.saturating_add(1), ""))?;
        rows.map(|entry| decode(entry?.1.value())).collect()
    }

    fn give_up(&self) {
        self.database.give_up();
    }
}

fn note(audit: &mut redb::Table<'_, u64, &[u8]>, line: &Line) -> Result<(), StoreError> {
    audit.insert(line.number, encode(serde_json::to_vec(line))?.as_slice())?;
    if let Some(outdated) = line.number.checked_sub(LINES_MAX) {
        audit.remove(outdated)?;
    }
    Ok(())
}

fn encode(bytes: Result<Vec<u8>, serde_json::Error>) -> Result<Vec<u8>, StoreError> {
    bytes.map_err(|error| StoreError::Broken(error.to_string()))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Broken(format!("a line cannot be read ({error})")))
}
