// SPDX-License-Identifier: Apache-2.0
//! What is asked of jobs all the time, in memory: every record, the queue, keys, sums. It is made from the store at the start
//! and follows each change that the store has taken. Nothing here blocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use penstock_dialects::job::Status;
use tokio::sync::Notify;

use super::record::Record;
use crate::metrics::Metrics;
use crate::stages::Permit;

/// Route, subject, and the caller's key.
type Key = (String, String, String);

/// Every job.
#[derive(Default)]
pub(super) struct Index {
    jobs: BTreeMap<String, Arc<Record>>,
    keys: HashMap<Key, String>,
    /// Those that wait for their turn.
    queue: BTreeSet<String>,
    /// Those that are over, and whose vendors have to be told; they wait for nothing.
    called_off: BTreeSet<String>,
    /// When which report is due.
    reports: BTreeSet<(u64, String)>,
    live: HashMap<String, Live>,
    by_status: [usize; Status::ALL.len()],
    bytes: u64,
}

/// What does not outlive the process.
#[derive(Default)]
pub(super) struct Live {
    /// The budget that was reserved for the job.
    pub(super) permit: Option<Permit>,
    /// Tells whoever works on it to stop.
    pub(super) call_off: Arc<Notify>,
    /// Somebody works on it.
    pub(super) running: bool,
    /// A request that changes something is under way to a vendor.
    pub(super) sending: bool,
}

impl Index {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Record>> {
        self.jobs.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The job that a caller's key stands for.
    pub(super) fn by_key(&self, record: &Record) -> Option<&Arc<Record>> {
        self.keys.get(&key(record)?).and_then(|id| self.jobs.get(id)).filter(|record| !record.hidden)
    }

    /// Every job, the newest first, or the oldest.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Record>> {
        self.jobs.values()
    }

    /// Puts a record in the place of the one before it.
    pub(super) fn put(&mut self, record: &Arc<Record>) {
        self.take_out(&record.id);
        self.by_status[place(record.status)] += 1;
        self.bytes += record.bytes;
        if let Some(key) = key(record) {
            self.keys.insert(key, record.id.clone());
        }
        if let Some(due) = due(record) {
            self.reports.insert((due, record.id.clone()));
        }
        self.jobs.insert(record.id.clone(), Arc::clone(record));
    }

    /// Forgets a job altogether.
    pub(super) fn remove(&mut self, id: &str) -> Option<Live> {
        if let Some(record) = self.take_out(id)
            && let Some(key) = key(&record)
            && self.keys.get(&key).is_some_and(|of| of == id)
        {
            self.keys.remove(&key);
        }
        self.leave_queue(id);
        self.live.remove(id)
    }

    fn take_out(&mut self, id: &str) -> Option<Arc<Record>> {
        let record = self.jobs.remove(id)?;
        self.by_status[place(record.status)] -= 1;
        self.bytes -= record.bytes;
        if let Some(due) = due(&record) {
            self.reports.remove(&(due, record.id.clone()));
        }
        Some(record)
    }

    // -- work

    /// Puts a job into the queue that it belongs to.
    pub(super) fn enqueue(&mut self, record: &Record) {
        self.leave_queue(&record.id);
        let queue = if record.to_cancel { &mut self.called_off } else { &mut self.queue };
        queue.insert(record.id.clone());
    }

    /// Takes the first one that has to be called off, or else, if there is room for it, the first one that waits.
    pub(super) fn dequeue(&mut self, room: bool) -> Option<Arc<Record>> {
        let id = match self.called_off.pop_first() {
            Some(id) => id,
            None if room => self.queue.pop_first()?,
            None => return None,
        };
        self.jobs.get(&id).cloned()
    }

    pub(super) fn leave_queue(&mut self, id: &str) {
        self.queue.remove(id);
        self.called_off.remove(id);
    }

    pub(super) fn live(&mut self, id: &str) -> &mut Live {
        self.live.entry(id.to_owned()).or_default()
    }

    pub(super) fn is_running(&self, id: &str) -> bool {
        self.live.get(id).is_some_and(|live| live.running)
    }

    pub(super) fn end_live(&mut self, id: &str) -> Option<Live> {
        self.live.remove(id)
    }

    /// Whether a request that changes something is under way to some vendor.
    pub(super) fn is_sending(&self) -> bool {
        self.live.values().any(|live| live.sending)
    }

    // -- reports

    /// When the next report is due.
    pub(super) fn next_report_ms(&self) -> Option<u64> {
        self.reports.first().map(|(due, _)| *due)
    }

    /// Takes a report that is due; it is not taken again before its record has changed.
    pub(super) fn take_report(&mut self, now_ms: u64) -> Option<Arc<Record>> {
        let (due, _) = self.reports.first()?;
        if *due > now_ms {
            return None;
        }
        let (_, id) = self.reports.pop_first()?;
        self.jobs.get(&id).cloned()
    }

    pub(super) fn show(&self, metrics: &Metrics) {
        for status in Status::ALL {
            metrics.jobs(status.name(), self.by_status[place(status)]);
        }
        metrics.job_bytes(self.bytes);
    }
}

fn place(status: Status) -> usize {
    Status::ALL.iter().position(|known| *known == status).unwrap_or_default()
}

fn key(record: &Record) -> Option<Key> {
    Some((record.owner.route.clone(), record.owner.subject.clone(), record.key.clone()?))
}

fn due(record: &Record) -> Option<u64> {
    record.report.as_ref().filter(|_| record.status.is_over())?.next_ms
}
