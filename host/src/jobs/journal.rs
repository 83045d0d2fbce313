// SPDX-License-Identifier: Apache-2.0
//! The journal of one job: what its vendors have answered, written down before anything is built on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_dialects::codec::Operation;
use tokio::task::JoinHandle;

use super::blocking;
use super::book::Book;
use super::record::Record;
use crate::attempt::{Journal, Recorded, Writing};
use crate::failure::{Failure, Kind};

/// How long the end of a job waits for its vendor to be told.
const TELLING: Duration = Duration::from_secs(10);

/// The journal of a job that is worked on.
pub struct Rounds {
    book: Arc<Book>,
    id: String,
    repeatable: bool,
    deadline: Instant,
    given_up: AtomicBool,
    known: Mutex<Known>,
    telling: Mutex<Vec<JoinHandle<()>>>,
}

/// The answers of one target, by step.
struct Known {
    target: String,
    answers: Vec<Recorded>,
}

/// Whether a request of this operation may be sent again when nobody knows whether it has arrived: it makes tokens that
/// somebody pays for a second time, but it leaves nothing at the vendor, and whoever asks without us sends it again, too.
/// Pictures and films are made by work that goes on at the vendor; a second request would begin it a second time.
#[must_use]
pub fn is_repeatable(operation: &str) -> bool {
    let operation = Operation::from_name(operation);
    operation.is_some_and(|operation| {
        operation.is_conversation() || matches!(operation, Operation::Embeddings | Operation::Rerank)
    })
}

impl Rounds {
    pub(super) fn new(book: &Arc<Book>, record: &Record, answers: Vec<Recorded>, deadline: Instant) -> Self {
        let target = record.sent.as_ref().map(|sent| sent.target.clone()).unwrap_or_default();
        Self {
            book: Arc::clone(book),
            id: record.id.clone(),
            repeatable: is_repeatable(&record.asked.operation),
            deadline,
            given_up: AtomicBool::new(record.status.is_over()),
            known: Mutex::new(Known { target, answers }),
            telling: Mutex::default(),
        }
    }

    /// The work is not wanted any more.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Comes back when vendors have been told that their work is not wanted any more, or cannot be told.
    pub(super) async fn told_vendors(&self) {
        let telling = std::mem::take(&mut *self.telling.lock().unwrap_or_else(PoisonError::into_inner));
        for told in telling {
            // One that takes longer goes on by itself.
            let _ = tokio::time::timeout(TELLING, told).await;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Rounds {
    fn recorded(&self, target: &str, step: u32) -> Option<Recorded> {
        let known = self.known();
        let answer = known.answers.get(usize::try_from(step).ok()?);
        answer.filter(|_| known.target == target).cloned()
    }

    fn sending<'j>(&'j self, target: &'j str, step: u32) -> Writing<'j, Result<(), Failure>> {
        Box::pin(async move {
            if self.book.is_holding() {
                // The process is about to end, and takes this future with it; the next one begins here.
                return std::future::pending().await;
            }
            self.book.sending(&self.id, true);
            if self.repeatable {
                return Ok(());
            }
            let (book, id, target) = (Arc::clone(&self.book), self.id.clone(), target.to_owned());
            let sent = blocking(move || book.sent(&id, &target, step)).await;
            sent.map_err(|error| Failure::new(Kind::JobsBroken, "the job cannot be written down").because(error))
        })
    }

    fn record<'j>(&'j self, target: &'j str, step: u32, answer: &'j Recorded) -> Writing<'j, ()> {
        {
            let mut known = self.known();
            if known.target != target {
                target.clone_into(&mut known.target);
                known.answers.clear();
            }
            known.answers.truncate(usize::try_from(step).unwrap_or(usize::MAX));
            known.answers.push(answer.clone());
        }
        let (book, id, target, answer) = (Arc::clone(&self.book), self.id.clone(), target.to_owned(), answer.clone());
        Box::pin(async move {
            let written = blocking(move || book.answered(&id, &target, step, &answer)).await;
            if let Err(error) = written {
                // The work goes on; only after a crash nobody will know of it.
                tracing::error!(job = self.id, %error, "the answer of a vendor cannot be written down");
            }
            self.book.sending(&self.id, false);
        })
    }

    fn telling(&self, told: JoinHandle<()>) {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }

    fn gives_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}
