// SPDX-License-Identifier: Apache-2.0
//! Where jobs survive a restart: an embedded database (redb) in one file that only its owner may read. Everything here
//! blocks; what has come back without an error is on the disk.
//!
//! Four tables: records as JSON, and by the same id the caller's body, the answers of vendors, and the answer to the caller.
//! An answer is a line of JSON with all but its body, and then its body.

use std::path::Path;

use bytes::Bytes;
use redb::{TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::record::{Answer, Record};
use crate::attempt::Recorded;
use crate::database::{self, Kept};

/// Name of the file in the state directory.
pub(super) const FILE: &str = "jobs.redb";

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const BODIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bodies");
const ROUNDS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("rounds");
const ANSWERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("answers");

/// The database.
pub(super) struct Store {
    database: Kept,
}

/// Why something was not written or read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(String);

impl StoreError {
    /// What was to be done broke off.
    pub(super) fn of_task(error: &impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self(error.into().to_string())
    }
}

impl Store {
    /// The database of a state directory, made if there is none.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do.
    pub(super) fn open(state: &Path) -> Result<Self, String> {
        let database = database::open(state, FILE, "move the file away to begin without jobs")?;
        Self::with(database).map_err(|error| format!("{}: {error}", state.join(FILE).display()))
    }

    /// A database that ends with the process.
    ///
    /// # Errors
    /// None that is known.
    pub(super) fn in_memory() -> Result<Self, String> {
        let database = database::in_memory()?;
        Self::with(database).map_err(|error| error.to_string())
    }

    fn with(database: Kept) -> Result<Self, StoreError> {
        let store = Self { database };
        store.write(|write| {
            write.open_table(RECORDS)?;
            write.open_table(BODIES)?;
            write.open_table(ROUNDS)?;
            write.open_table(ANSWERS)?;
            Ok(())
        })?;
        Ok(store)
    }

    // -- reading

    /// Every record, and the ids of those that cannot be read.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn records(&self) -> Result<(Vec<Record>, Vec<String>), StoreError> {
        let table = self.database.read()?.open_table(RECORDS)?;
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for entry in table.range::<&str>(..)? {
            let (id, json) = entry?;
            match serde_json::from_slice(json.value()) {
                Ok(record) => records.push(record),
                Err(_) => unreadable.push(id.value().to_owned()),
            }
        }
        Ok((records, unreadable))
    }

    /// The caller's body.
    ///
    /// # Errors
    /// The database cannot be read, or has none.
    pub(super) fn body(&self, id: &str) -> Result<Bytes, StoreError> {
        let table = self.database.read()?.open_table(BODIES)?;
        let body = table.get(id)?.ok_or_else(|| StoreError("the body is not there".to_owned()))?;
        Ok(Bytes::copy_from_slice(body.value()))
    }

    /// The answers of vendors, by step.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn rounds(&self, id: &str) -> Result<Vec<Recorded>, StoreError> {
        let table = self.database.read()?.open_table(ROUNDS)?;
        let mut rounds = Vec::new();
        for entry in table.range((id, 0)..=(id, u32::MAX))? {
            let (_, packed) = entry?;
            let Answer { status, headers, body } = unpack(packed.value())?;
            rounds.push(Recorded { status, headers, body });
        }
        Ok(rounds)
    }

    /// The answer to the caller.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(super) fn answer(&self, id: &str) -> Result<Option<Answer>, StoreError> {
        let table = self.database.read()?.open_table(ANSWERS)?;
        table.get(id)?.map(|packed| unpack(packed.value())).transpose()
    }

    // -- writing

    /// Keeps a new job.
    ///
    /// # Errors
    /// It is not kept.
    pub(super) fn add(&self, record: &Record, body: &[u8]) -> Result<(), StoreError> {
        self.write(|write| {
            write.open_table(BODIES)?.insert(record.id.as_str(), body)?;
            put(write, record)
        })
    }

    /// Replaces a record.
    ///
    /// # Errors
    /// It is as it was.
    pub(super) fn put(&self, record: &Record) -> Result<(), StoreError> {
        self.write(|write| put(write, record))
    }

    /// Replaces a record and keeps the answer of a vendor; those of later steps are forgotten.
    ///
    /// # Errors
    /// It is as it was.
    pub(super) fn round(&self, record: &Record, step: u32, answer: &Recorded) -> Result<(), StoreError> {
        let id = record.id.as_str();
        self.write(|write| {
            let mut rounds = write.open_table(ROUNDS)?;
            rounds.retain_in((id, step)..=(id, u32::MAX), |_, _| false)?;
            rounds.insert((id, step), pack(answer.status, &answer.headers, &answer.body).as_slice())?;
            drop(rounds);
            put(write, record)
        })
    }

    /// Replaces a record that is over: its body and the answers of vendors are forgotten, its answer is kept.
    ///
    /// # Errors
    /// It is as it was.
    pub(super) fn end(&self, record: &Record, answer: Option<&Answer>) -> Result<(), StoreError> {
        let id = record.id.as_str();
        self.write(|write| {
            forget_inputs(write, id)?;
            if let Some(Answer { status, headers, body }) = answer {
                write.open_table(ANSWERS)?.insert(id, pack(*status, headers, body).as_slice())?;
            }
            put(write, record)
        })
    }

    /// Forgets jobs.
    ///
    /// # Errors
    /// All of them are still there.
    pub(super) fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        self.write(|write| {
            for id in ids {
                write.open_table(RECORDS)?.remove(id.as_str())?;
                write.open_table(ANSWERS)?.remove(id.as_str())?;
                forget_inputs(write, id)?;
            }
            Ok(())
        })
    }

    /// Lets go of the file, so that another process may open it; nothing is kept or read any more.
    pub(super) fn give_up(&self) {
        self.database.give_up();
    }

    fn write(&self, change: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.database.write(change)
    }
}

fn put(write: &WriteTransaction, record: &Record) -> Result<(), StoreError> {
    let json = serde_json::to_vec(record).map_err(|error| StoreError(error.to_string()))?;
    write.open_table(RECORDS)?.insert(record.id.as_str(), json.as_slice())?;
    Ok(())
}

fn forget_inputs(write: &WriteTransaction, id: &str) -> Result<(), StoreError> {
    write.open_table(BODIES)?.remove(id)?;
    write.open_table(ROUNDS)?.retain_in((id, 0)..=(id, u32::MAX), |_, _| false)?;
    Ok(())
}

fn pack(status: u16, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let mut packed = json!([status, headers]).to_string().into_bytes();
    packed.push(b'\n');
    packed.extend_from_slice(body);
    packed
}

fn unpack(packed: &[u8]) -> Result<Answer, StoreError> {
    fn read<T: DeserializeOwned>(value: Option<&Value>) -> Option<T> {
        serde_json::from_value(value?.clone()).ok()
    }
    let end = memchr::memchr(b'\n', packed);
    let line: Option<Value> = end.and_then(|end| serde_json::from_slice(&packed[..end]).ok());
    let parts = line.and_then(|line| Some((read(line.get(0))?, read(line.get(1))?)));
    match (parts, end) {
        (Some((status, headers)), Some(end)) => {
            Ok(Answer { status, headers, body: Bytes::copy_from_slice(&packed[end + 1..]) })
        }
        _ => Err(StoreError("an answer cannot be read".to_owned())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::jobs::record::{Asked, Owner};
    use penstock_dialects::job::Status;

    pub(in crate::jobs) fn record(id: &str) -> Record {
        Record {
            id: id.to_owned(),
            owner: Owner { route: "ai".to_owned(), subject: "alice".to_owned(), ..Owner::default() },
            asked: Asked { operation: "images".to_owned(), model: "m".to_owned(), ..Asked::default() },
            status: Status::Queued,
            created_ms: 1000,
            started_ms: None,
            ended_ms: None,
            deadline_ms: 9000,
            key: None,
            digest: "d".to_owned(),
            sent: None,
            to_cancel: false,
            hidden: false,
            target: String::new(),
            report: None,
            bytes: 0,
        }
    }

    fn recorded(body: &'static str) -> Recorded {
        let headers = vec![("x".to_owned(), "a\nb".to_owned())];
        Recorded { status: 200, headers, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn what_was_written_is_there_when_the_file_is_opened_again() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        store.add(&record("1"), b"{\n}").unwrap();
        store.add(&record("2"), b"two").unwrap();
        let one = Record { status: Status::Running, ..record("1") };
        store.round(&one, 0, &recorded("submitted")).unwrap();
        store.round(&one, 1, &recorded("more")).unwrap();
        store.round(&one, 0, &recorded("again\n")).unwrap();
        let (busy, problem) = (Store::open(state.path()).err().unwrap(), "another gateway has this state directory");
        assert!(busy.contains(problem), "{busy}");
        drop(store);
        let store = Store::open(state.path()).unwrap();
        assert_eq!(store.records().unwrap(), (vec![one.clone(), record("2")], vec![]));
        assert_eq!(&store.body("1").unwrap()[..], b"{\n}");
        assert_eq!(store.rounds("1").unwrap(), [recorded("again\n")], "a step forgets those behind it");
        assert_eq!(store.rounds("2").unwrap(), []);

        let answer = Answer { status: 502, headers: vec![("a".into(), "b".into())], body: Bytes::from_static(b"\n\n") };
        store.end(&Record { status: Status::Failed, ..one }, Some(&answer)).unwrap();
        assert_eq!(store.answer("1").unwrap(), Some(answer));
        assert!(store.body("1").is_err() && store.rounds("1").unwrap().is_empty(), "what was asked is not kept longer");
        store.remove(&["1".to_owned()]).unwrap();
        assert_eq!(store.answer("1").unwrap(), None);
        assert_eq!(store.records().unwrap().0.len(), 1);
    }

    #[test]
    fn only_the_owner_may_read_the_file() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(FILE);
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(Store::open(state.path()).unwrap());
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        drop(Store::open(state.path()).unwrap());
        assert_eq!(mode(), 0o600);
        fs::write(&path, b"not a database, but long enough to be looked at").unwrap();
        let problem = Store::open(state.path()).err().unwrap();
        assert!(problem.contains("jobs.redb"), "{problem}");
    }
}
