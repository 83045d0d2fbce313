// SPDX-License-Identifier: Apache-2.0
//! Works on jobs: so many at a time, the oldest first; and does what time demands (reports, forgetting).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use penstock_dialects::job::Status;
use tokio::sync::Notify;

use super::book::{Book, Taken};
use super::journal::Rounds;
use super::record::{Answer, Record};
use super::{blocking, report};
use crate::clock;
use crate::snapshot::Snapshot;
use crate::stages::Permit;
use crate::upstream::Client;

/// Between two looks for jobs that are old enough to be forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// First pause before the end of a job is written again that could not be written; it doubles.
const WRITE_PAUSE: Duration = Duration::from_millis(200);
/// Longest such pause.
const WRITE_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Does what a job asks for.
pub trait Perform: Send + Sync + 'static {
    /// Does it. Dropping the future stops it.
    fn perform(&self, work: Work) -> impl Future<Output = Performed> + Send;
}

/// A job, to be done.
pub struct Work {
    /// What it is.
    pub record: Arc<Record>,
    /// The caller's body.
    pub body: Bytes,
    /// What vendors have answered so far, and will answer.
    pub journal: Arc<Rounds>,
    /// The budget that was reserved for it; none after a restart.
    pub permit: Option<Permit>,
    /// When it is given up.
    pub deadline: Instant,
    /// How it stands with its vendor.
    pub standing: Standing,
}

/// How a job stands with a vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// None has been asked.
    Fresh,
    /// This target has begun to work on it.
    Begun(String),
    /// A request was on its way to this target when the gateway ended.
    Unclear(String),
    /// What was asked cannot be read.
    Unreadable,
}

/// What came of a job.
pub struct Performed {
    /// The answer that its caller would have got.
    pub answer: Answer,
    /// Whether it is an answer, not an error.
    pub well: bool,
    /// Who has given it; may be empty.
    pub target: String,
}

/// Works on jobs until the process ends.
pub(super) async fn run<P: Perform>(
    book: Arc<Book>,
    perform: Arc<P>,
    client: Client,
    snapshot: Arc<ArcSwap<Snapshot>>,
) {
    let (running, reporting) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut swept = None::<Instant>;
    loop {
        let concurrent = snapshot.load().jobs.concurrent.max(1);
        while !book.is_holding() {
            let Some(taken) = book.take(running.load(Ordering::Relaxed) < concurrent) else { break };
            let one = One::begin(&running, &book);
            let (book, perform) = (Arc::clone(&book), Arc::clone(&perform));
            tokio::spawn(async move {
                work(&book, &*perform, taken).await;
                drop(one);
            });
        }
        while !book.is_holding() && reporting.load(Ordering::Relaxed) < report::CONCURRENT {
            let Some(record) = book.take_report() else { break };
            let one = One::begin(&reporting, &book);
            let (book, client, snapshot) = (Arc::clone(&book), client.clone(), snapshot.load_full());
            tokio::spawn(async move {
                report::send(&book, &client, &snapshot.jobs, &record).await;
                drop(one);
            });
        }
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            swept = Some(Instant::now());
            sweep(&book, snapshot.load().jobs.kept).await;
        }
        let due = book.next_report_ms().map(|due| Duration::from_millis(due.saturating_sub(clock::unix_ms()).max(10)));
        let pause = due.filter(|_| reporting.load(Ordering::Relaxed) < report::CONCURRENT).unwrap_or(SWEEP).min(SWEEP);
        let _ = tokio::time::timeout(pause, book.wake.notified()).await;
    }
}

/// One of so many; its end wakes the runner.
struct One {
    count: Arc<AtomicUsize>,
    book: Arc<Book>,
}

impl One {
    fn begin(count: &Arc<AtomicUsize>, book: &Arc<Book>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self { count: Arc::clone(count), book: Arc::clone(book) }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.book.wake.notify_one();
    }
}

async fn sweep(book: &Arc<Book>, kept: Duration) {
    let book = Arc::clone(book);
    let before_ms = clock::unix_ms().saturating_sub(clock::millis(kept));
    match blocking(move || book.forget_before(before_ms)).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "jobs are forgotten (jobs.kept_hours)"),
        Err(error) => tracing::error!(%error, "old jobs cannot be forgotten"),
    }
}

async fn work<P: Perform>(book: &Arc<Book>, perform: &P, taken: Taken) {
    let Taken { record, permit, call_off } = taken;
    let id = record.id.clone();
    let cancelling = record.status.is_over();
    let read = {
        let (book, id) = (Arc::clone(book), id.clone());
        blocking(move || book.inputs(&id)).await
    };
    let mut standing = match &record.sent {
        None => Standing::Fresh,
        Some(sent) if sent.answered => Standing::Begun(sent.target.clone()),
        Some(sent) => Standing::Unclear(sent.target.clone()),
    };
    let (body, answers) = read.unwrap_or_else(|error| {
        tracing::error!(job = id, %error, "a job cannot be read");
        standing = Standing::Unreadable;
        Default::default()
    });
    // One that only has to be called off gets as far as it stands, and no further.
    let left = if cancelling { 0 } else { record.deadline_ms.saturating_sub(clock::unix_ms()) };
    let deadline = Instant::now() + Duration::from_millis(left);
    let journal = Arc::new(Rounds::new(book, &record, answers, deadline));
    let work = Work { record, body, journal: Arc::clone(&journal), permit, deadline, standing };
    let performed = tokio::select! {
        performed = perform.perform(work) => Some(performed),
        () = called_off(&call_off, &journal) => None,
    };
    journal.told_vendors().await;
    conclude(book, id, performed.filter(|_| !cancelling)).await;
}

/// Comes back when the work is not wanted any more; the journal knows it by then.
async fn called_off(call_off: &Notify, journal: &Rounds) {
    call_off.notified().await;
    journal.give_up();
}

/// Writes down what came of a job, until that has succeeded: its caller would ask for ever.
async fn conclude(book: &Arc<Book>, id: String, performed: Option<Performed>) {
    let performed = Arc::new(performed);
    let mut pause = WRITE_PAUSE;
    loop {
        let (book, id, performed) = (Arc::clone(book), id.clone(), Arc::clone(&performed));
        let written = blocking(move || match &*performed {
            Some(Performed { answer, well, target }) => {
                let status = if *well { Status::Succeeded } else { Status::Failed };
                book.end(&id, status, target, answer)
            }
            None => book.called_off(&id),
        });
        let Err(error) = written.await else { return };
        tracing::error!(%error, "the end of a job cannot be written down; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(WRITE_PAUSE_MAX);
    }
}
