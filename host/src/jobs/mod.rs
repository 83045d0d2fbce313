// SPDX-License-Identifier: Apache-2.0
//! Jobs: requests that go on when their callers have gone, and when the gateway itself was killed and started again.
//!
//! A job is written down before its caller is told of it ([`store`]). What changes something at a vendor is written down
//! before and after it is sent ([`journal`]), so that after a crash the job goes on where it was: nothing is sent twice that
//! must not be. The [`runner`] works on so many at a time; how the work is done is the gateway's part ([`Perform`]), which
//! does the same as for a caller who waits. [`asked`] answers requests about jobs, [`report`] tells webhooks of ends.

mod asked;
mod book;
mod index;
mod journal;
pub mod record;
mod report;
mod runner;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use penstock_dialects::job::{Job, JobAsk};

pub use asked::recognise;
pub use book::{Refused, Room, Submitted};
pub use journal::{Rounds, is_repeatable};
pub use runner::{Perform, Performed, Standing, Work};
pub use store::StoreError;

use crate::clock;
use crate::config::place::hex;
use crate::failure::Failure;
use crate::inbound::Asked;
use crate::metrics::Metrics;
use crate::plugin::types::Reply;
use crate::snapshot::Snapshot;
use crate::stages::{Permit, Principal};
use crate::underway::Underway;
use crate::upstream::Client;

use book::Book;
use record::Record;
use store::Store;

/// Between two looks whether anything is still on its way to a vendor.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// The jobs of a gateway. A clone is the same jobs.
#[derive(Clone)]
pub struct Jobs {
    book: Arc<Book>,
}

impl Jobs {
    /// The jobs in a state directory; without one, jobs that end with the process. Blocks.
    ///
    /// # Errors
    /// The store cannot be opened or read.
    pub fn open(state: Option<&Path>, metrics: Arc<Metrics>) -> Result<Self, String> {
        let store = state.map_or_else(Store::in_memory, Store::open)?;
        Ok(Self { book: Arc::new(Book::open(store, metrics)?) })
    }

    /// Works on jobs, with what is in force then.
    pub async fn run<P: Perform>(&self, perform: Arc<P>, client: Client, snapshot: Arc<ArcSwap<Snapshot>>) {
        runner::run(Arc::clone(&self.book), perform, client, snapshot).await;
    }

    /// Begins nothing new: the process is about to end.
    pub fn hold(&self) {
        self.book.hold();
    }

    /// Comes back when nothing is on its way to a vendor that could not be taken up again, or this long after [`Self::hold`].
    pub async fn drained(&self, patience: Duration) {
        self.hold();
        while self.book.is_sending() && self.book.held() < patience {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    /// Lets another process open the jobs and go on with them, after [`Self::drained`]. Blocks for a moment.
    pub fn hand_over(&self) {
        self.book.hand_over();
    }

    /// Keeps a new job, or finds the one that its caller's key stands for. A permit that no job has come of is settled at
    /// nothing.
    ///
    /// # Errors
    /// Why there is no job.
    pub async fn submit(
        &self,
        record: Record,
        body: Bytes,
        permit: Option<Permit>,
        room: Room,
    ) -> Result<Submitted, Refused> {
        let book = Arc::clone(&self.book);
        tokio::task::spawn_blocking(move || book.submit(record, &body, permit, room))
            .await
            .unwrap_or_else(|error| Err(Refused::Broken(StoreError::of_task(&error))))
    }

    /// So many jobs of anybody, the newest first.
    #[must_use]
    pub fn newest(&self, limit: usize, is_meant: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        self.book.newest(limit, is_meant)
    }

    /// Answers a request about jobs.
    ///
    /// # Errors
    /// `unknown-job`, `job-without-answer`, `jobs-broken`.
    pub async fn answer(
        &self,
        ask: JobAsk,
        underway: &Underway,
        asked: &Asked,
        principal: &Principal,
    ) -> Result<Reply, Failure> {
        asked::answer(&self.book, ask, underway, asked, principal).await
    }
}

/// A new id: it begins with the time, later ones of this process with a later one, and its rest cannot be guessed. Where a
/// route is open, to know it is all that it takes to see a job.
///
/// # Errors
/// The operating system has no random numbers.
pub fn new_id() -> Result<(String, u64), StoreError> {
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|error| StoreError::of_task(&error))?;
    let now = later_ms(clock::unix_ms());
    Ok((format!("{now:012x}{}", hex(&random)), now))
}

/// The time, or the first millisecond that no id of this process has begun with: lists go by ids, the newest first.
fn later_ms(now: u64) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let next = |last: u64| now.max(last.saturating_add(1));
    LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last))).map_or(now, next)
}

/// A job as its caller may know it.
#[must_use]
pub fn shown<'r>(record: &'r Record, kept: Duration, answer: Option<&'r [u8]>) -> Job<'r> {
    let ended = record.ended_ms.map(|ended| ended / 1000);
    Job {
        id: &record.id,
        status: record.status,
        operation: &record.asked.operation,
        model: &record.asked.model,
        created: record.created_ms / 1000,
        started: record.started_ms.map(|started| started / 1000),
        ended,
        expires: ended.map(|ended| ended.saturating_add(kept.as_secs())),
        request_id: &record.asked.request_id,
        target: &record.target,
        asked: &record.asked.repeated,
        answer,
    }
}

/// Does something with the store off the async workers. It is done even if the caller goes.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(StoreError::of_task(&error)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn later_ids_are_greater_though_they_come_in_one_millisecond() {
        let ids: Vec<_> = (0..1_000).map(|_| super::new_id().expect("random numbers").0).collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
    }
}
