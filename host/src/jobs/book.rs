// SPDX-License-Identifier: Apache-2.0
//! The jobs: store and index as one. A change is written first and seen afterwards, so that nobody is told what a crash
//! could take back. Functions that write block and are called off the async workers.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use penstock_dialects::job::Status;
use tokio::sync::Notify;

use super::index::Index;
use super::record::{Answer, Record, Sent};
use super::store::{Store, StoreError};
use crate::attempt::Recorded;
use crate::clock;
use crate::metrics::Metrics;
use crate::stages::{Permit, Served, Spent};

/// Jobs that may be kept.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// So many.
    pub max: usize,
    /// With so many bytes.
    pub bytes_max: u64,
}

/// A job that was asked for.
#[derive(Debug)]
pub struct Submitted {
    /// The job.
    pub record: Arc<Record>,
    /// Whether it was there before, by its caller's key.
    pub known: bool,
}

/// Why a job is not accepted.
#[derive(Debug)]
pub enum Refused {
    /// There is no room: the limit that is reached.
    Full(&'static str),
    /// The caller's key stands for another request.
    KeyReused,
    /// It cannot be kept.
    Broken(StoreError),
}

/// All jobs.
pub(super) struct Book {
    store: Store,
    /// Held from reading the index until it has followed the store.
    writing: Mutex<()>,
    index: RwLock<Index>,
    metrics: Arc<Metrics>,
    /// Something may have to be done.
    pub(super) wake: Notify,
    /// Since when nothing new is begun.
    holding: OnceLock<Instant>,
}

impl Book {
    /// Reads what is in a store. What was being worked on goes back into the queue.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn open(store: Store, metrics: Arc<Metrics>) -> Result<Self, String> {
        let (records, unreadable) = store.records().map_err(|error| error.to_string())?;
        if !unreadable.is_empty() {
            tracing::warn!(count = unreadable.len(), "jobs that cannot be read are forgotten");
            store.remove(&unreadable).map_err(|error| error.to_string())?;
        }
        let mut index = Index::default();
        for mut record in records {
            if record.status == Status::Running {
                record.status = Status::Queued;
            }
            if !record.status.is_over() || record.to_cancel {
                index.enqueue(&record);
            }
            index.put(&Arc::new(record));
        }
        index.show(&metrics);
        let (writing, index, wake) = (Mutex::new(()), RwLock::new(index), Notify::new());
        Ok(Self { store, writing, index, metrics, wake, holding: OnceLock::new() })
    }

    // -- reading: none of these waits

    /// The job of an id, if it was not forgotten.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Record>> {
        self.read().get(id).filter(|record| !record.hidden).cloned()
    }

    /// So many of a caller's jobs after another one, the newest first or the oldest, and whether there are more.
    pub(super) fn page(&self, page: &Page<'_>) -> (Vec<Arc<Record>>, bool) {
        let index = self.read();
        let is_meant = |record: &&Arc<Record>| {
            record.owner.is(page.route, page.subject)
                && !record.hidden
                && page.operation.is_none_or(|operation| record.asked.operation == operation)
                && page.after.is_none_or(|id| if page.oldest_first { *record.id > *id } else { *record.id < *id })
        };
        let take = page.limit.saturating_add(1);
        let mut found: Vec<_> = if page.oldest_first {
            index.iter().filter(is_meant).take(take).cloned().collect()
        } else {
            index.iter().rev().filter(is_meant).take(take).cloned().collect()
        };
        let more = found.len() > page.limit;
        found.truncate(page.limit);
        (found, more)
    }

    /// So many jobs of anybody, the newest first.
    pub(super) fn newest(&self, limit: usize, is_meant: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let index = self.read();
        index.iter().rev().filter(|record| !record.hidden && is_meant(record)).take(limit).cloned().collect()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether a request that changes something is under way to some vendor.
    pub(super) fn is_sending(&self) -> bool {
        self.read().is_sending()
    }

    /// When the next report is due.
    pub(super) fn next_report_ms(&self) -> Option<u64> {
        self.read().next_report_ms()
    }

    /// Whether nothing new is begun any more.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.get().is_some()
    }

    /// Begins nothing new any more.
    pub(super) fn hold(&self) {
        self.holding.get_or_init(Instant::now);
    }

    /// Lets go of the store.
    pub(super) fn hand_over(&self) {
        let _writing = self.lock();
        self.store.give_up();
    }

    /// How long nothing new has been begun.
    pub(super) fn held(&self) -> Duration {
        self.holding.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    // -- the life of a job

    /// Keeps a new job, or finds the one that its key stands for. A permit that no job has come of is settled at nothing.
    pub(super) fn submit(
        &self,
        record: Record,
        body: &[u8],
        permit: Option<Permit>,
        room: Room,
    ) -> Result<Submitted, Refused> {
        let _writing = self.lock();
        if let Some(found) = self.admit(&record, body.len() as u64, room).transpose() {
            permit.into_iter().for_each(settle_at_nothing);
            return found;
        }
        let record = Record { bytes: body.len() as u64, ..record };
        if let Err(error) = self.store.add(&record, body) {
            permit.into_iter().for_each(settle_at_nothing);
            return Err(Refused::Broken(error));
        }
        let record = Arc::new(record);
        self.update(|index| {
            index.put(&record);
            index.live(&record.id).permit = permit;
            index.enqueue(&record);
        });
        self.wake.notify_one();
        Ok(Submitted { record, known: false })
    }

    /// The job that a new one would be for the second time; none if there is none, and room for a new one.
    fn admit(&self, record: &Record, bytes: u64, room: Room) -> Result<Option<Submitted>, Refused> {
        let index = self.read();
        if let Some(known) = index.by_key(record) {
            let same = known.digest == record.digest;
            return if same {
                Ok(Some(Submitted { record: Arc::clone(known), known: true }))
            } else {
                Err(Refused::KeyReused)
            };
        }
        if index.len() >= room.max {
            return Err(Refused::Full("jobs.max"));
        }
        if index.bytes().saturating_add(bytes) > room.bytes_max {
            return Err(Refused::Full("jobs.bytes_max"));
        }
        Ok(None)
    }

    /// Takes a job to work on, one that waits only if there is room for it: with the budget that was reserved for it, and what tells that it is called off. Nothing is
    /// written: after a crash it is in the queue again, where it was.
    pub(super) fn take(&self, room: bool) -> Option<Taken> {
        let mut taken = None;
        self.update(|index| {
            let Some(record) = index.dequeue(room) else { return };
            let record = match record.status {
                Status::Queued => {
                    let started_ms = record.started_ms.or_else(|| Some(clock::unix_ms()));
                    Arc::new(Record { status: Status::Running, started_ms, ..Record::clone(&record) })
                }
                _ => record,
            };
            index.put(&record);
            let live = index.live(&record.id);
            live.running = true;
            taken = Some(Taken { permit: live.permit.take(), call_off: Arc::clone(&live.call_off), record });
        });
        taken
    }

    /// What a job was asked with, and what vendors have answered so far.
    pub(super) fn inputs(&self, id: &str) -> Result<(bytes::Bytes, Vec<Recorded>), StoreError> {
        Ok((self.store.body(id)?, self.store.rounds(id)?))
    }

    /// The answer of a job.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn answer(&self, id: &str) -> Result<Option<Answer>, StoreError> {
        self.store.answer(id)
    }

    /// A request is under way to a vendor, or is not any more.
    pub(super) fn sending(&self, id: &str, sending: bool) {
        self.update(|index| {
            if index.is_running(id) {
                index.live(id).sending = sending;
            }
        });
    }

    /// A request is about to go out.
    pub(super) fn sent(&self, id: &str, target: &str, step: u32) -> Result<(), StoreError> {
        let sent = Sent { target: target.to_owned(), step, answered: false };
        self.change(id, |record| record.sent = Some(sent), Store::put).map(|_| ())
    }

    /// A vendor has answered it.
    pub(super) fn answered(&self, id: &str, target: &str, step: u32, answer: &Recorded) -> Result<(), StoreError> {
        let sent = Sent { target: target.to_owned(), step, answered: true };
        self.change(id, |record| record.sent = Some(sent), |store, record| store.round(record, step, answer))
            .map(|_| ())
    }

    /// A job is over. One that was called off meanwhile stays so.
    pub(super) fn end(&self, id: &str, status: Status, target: &str, answer: &Answer) -> Result<(), StoreError> {
        let mut was_over = false;
        let ended = |record: &mut Record| {
            was_over = record.status.is_over();
            if was_over {
                record.to_cancel = false;
                record.bytes = 0;
                return;
            }
            record.status = status;
            target.clone_into(&mut record.target);
            record.bytes = answer.body.len() as u64;
            over(record);
        };
        let write = |store: &Store, record: &Record| {
            let is_wanted = record.status != Status::Cancelled;
            store.end(record, is_wanted.then_some(answer))
        };
        let changed = self.change(id, ended, write)?;
        self.update(|index| drop(index.end_live(id)));
        self.tell(changed.as_deref().filter(|_| !was_over));
        self.clear_hidden(changed.as_deref())
    }

    /// Calls a job off. What has been asked of a vendor is called off there, too, by whoever works on it.
    ///
    /// # Errors
    /// It goes on.
    pub(super) fn call_off(&self, id: &str, hide: bool) -> Result<Option<Arc<Record>>, StoreError> {
        let _writing = self.lock();
        let Some(before) = self.find(id) else { return Ok(None) };
        let mut record = Record::clone(&before);
        record.hidden = hide;
        if !before.status.is_over() {
            record.status = Status::Cancelled;
            record.to_cancel = record.sent.is_some();
            over(&mut record);
        }
        if record.hidden {
            record.report = None;
        }
        let ends = !before.status.is_over() && !record.to_cancel;
        if ends {
            record.bytes = 0;
            self.store.end(&record, None)?;
        } else if record != *before {
            self.store.put(&record)?;
        }
        let record = Arc::new(record);
        let mut idle = None;
        self.update(|index| {
            index.put(&record);
            if index.is_running(id) {
                index.live(id).call_off.notify_one();
            } else if record.to_cancel {
                index.enqueue(&record);
            } else {
                index.leave_queue(id);
                idle = index.end_live(id);
            }
        });
        idle.and_then(|live| live.permit).into_iter().for_each(settle_at_nothing);
        if !before.status.is_over() {
            self.tell(Some(&record));
        }
        self.wake.notify_one();
        let is_gone = record.hidden && !self.read().is_running(id) && !record.to_cancel;
        if is_gone {
            self.remove(&[id.to_owned()])?;
        }
        Ok(Some(record))
    }

    /// Whoever worked on a job that was called off has stopped.
    pub(super) fn called_off(&self, id: &str) -> Result<(), StoreError> {
        let done = |record: &mut Record| {
            record.to_cancel = false;
            record.bytes = 0;
        };
        let changed = self.change(id, done, |store, record| store.end(record, None))?;
        self.update(|index| drop(index.end_live(id)));
        self.clear_hidden(changed.as_deref())
    }

    /// Forgets jobs that ended before this time.
    pub(super) fn forget_before(&self, before_ms: u64) -> Result<usize, StoreError> {
        let _writing = self.lock();
        let is_old = |record: &&Arc<Record>| {
            !record.to_cancel && record.status.is_over() && record.ended_ms.is_some_and(|ended| ended < before_ms)
        };
        let ids: Vec<_> = self.read().iter().filter(is_old).map(|record| record.id.clone()).collect();
        if !ids.is_empty() {
            self.remove(&ids)?;
        }
        Ok(ids.len())
    }

    // -- reports

    /// Takes a report that is due.
    pub(super) fn take_report(&self) -> Option<Arc<Record>> {
        let mut taken = None;
        self.update(|index| taken = index.take_report(clock::unix_ms()));
        taken
    }

    /// A report was tried; the next try is due then.
    pub(super) fn reported(&self, id: &str, next_ms: Option<u64>) -> Result<(), StoreError> {
        let tried = |record: &mut Record| {
            if let Some(report) = &mut record.report {
                report.tries += 1;
                report.next_ms = next_ms;
            }
        };
        self.change(id, tried, Store::put).map(|_| ())
    }

    // -- below

    fn change(
        &self,
        id: &str,
        edit: impl FnOnce(&mut Record),
        write: impl FnOnce(&Store, &Record) -> Result<(), StoreError>,
    ) -> Result<Option<Arc<Record>>, StoreError> {
        let _writing = self.lock();
        let Some(before) = self.read().get(id).cloned() else { return Ok(None) };
        let mut record = Record::clone(&before);
        edit(&mut record);
        write(&self.store, &record)?;
        let record = Arc::new(record);
        self.update(|index| index.put(&record));
        Ok(Some(record))
    }

    fn clear_hidden(&self, record: Option<&Record>) -> Result<(), StoreError> {
        let Some(record) = record.filter(|record| record.hidden) else { return Ok(()) };
        let _writing = self.lock();
        self.remove(std::slice::from_ref(&record.id))
    }

    fn remove(&self, ids: &[String]) -> Result<(), StoreError> {
        self.store.remove(ids)?;
        self.update(|index| ids.iter().for_each(|id| drop(index.remove(id))));
        Ok(())
    }

    /// Says in the log and in the metrics that a job is over.
    fn tell(&self, record: Option<&Record>) {
        let Some(record) = record else { return };
        self.metrics.job_ended(&record.asked.operation, record.status.name());
        tracing::info!(
            job = record.id,
            request = record.asked.request_id,
            route = record.owner.route,
            operation = record.asked.operation,
            target = record.target,
            status = record.status.name(),
            ms = record.ended_ms.unwrap_or_default().saturating_sub(record.created_ms),
            "a job is over"
        );
        if record.report.is_some() {
            self.wake.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Index)) {
        let mut index: RwLockWriteGuard<'_, Index> = self.index.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut index);
        index.show(&self.metrics);
    }
}

/// Which jobs are asked for.
#[derive(Debug)]
pub(super) struct Page<'p> {
    /// Made at this route.
    pub(super) route: &'p str,
    /// By this subject.
    pub(super) subject: &'p str,
    /// Of this operation; none for all.
    pub(super) operation: Option<&'p str>,
    /// Behind this one.
    pub(super) after: Option<&'p str>,
    /// In the order in which they were made.
    pub(super) oldest_first: bool,
    /// So many.
    pub(super) limit: usize,
}

/// A job that is worked on.
pub(super) struct Taken {
    pub(super) record: Arc<Record>,
    pub(super) permit: Option<Permit>,
    pub(super) call_off: Arc<Notify>,
}

/// Nothing was done, so it costs nothing but the request itself.
fn settle_at_nothing(permit: Permit) {
    permit.settle(&Spent { served: Served::Tried, usage: None, partial: false, cost: None });
}

/// Notes that a job is over, and that this is to be reported.
fn over(record: &mut Record) {
    let now = clock::unix_ms();
    record.ended_ms = Some(now);
    if let Some(report) = &mut record.report {
        report.next_ms = Some(now);
    }
}

#[cfg(test)]
mod tests;
