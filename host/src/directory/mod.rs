// SPDX-License-Identifier: Apache-2.0
//! What operators manage while the gateway runs: virtual keys, teams, budgets, limits, vendor keys, features, services,
//! admin tokens, and the audit log of all changes.
//!
//! All of it is documents ([`document`]) that one writer changes ([`writer`]): it checks a change against everything else,
//! keeps it with its line of the audit log ([`store`]), and puts a new [`View`] in force. Requests read the view and take no
//! lock. Secrets of callers are kept as hashes ([`secret`]), those for vendors are sealed ([`seal`]).

pub mod audit;
pub mod beats;
pub mod document;
pub mod feed;
mod late;
pub mod pool;
pub mod rules;
pub mod seal;
mod secret;
pub mod settings;
pub mod store;
#[cfg(test)]
mod tests;
pub mod token;
pub mod usage;
mod view;
mod writer;

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::clock;
use crate::keys::{Secret, Source};
use crate::library::Refused;
use audit::{Actor, Line, Note, Query};
use document::Kind;
use feed::Feed;
use seal::Sealer;
use settings::Role;
use store::{Embedded, Store, StoreError};
use token::Token;
use usage::{Row, Usage, day_of};
use writer::Writer;

pub use view::{Allowed, PoolKey, View, VirtualKey, matches_any};
pub use writer::{Change, Changed, Left, News};

/// How often a change is tried anew when other gateways come before it.
const CONFLICTS_MAX: u32 = 8;

/// The directory of a gateway. A clone is the same directory.
#[derive(Clone)]
pub struct Directory(Arc<Inner>);

struct Inner {
    view: ArcSwap<View>,
    store: Arc<dyn Store>,
    writer: Mutex<Writer>,
    bootstrap: Option<Token>,
    usage: Usage,
    feed: Feed,
    peers: OnceLock<Arc<dyn Peers>>,
    /// What was used until the directory was handed over.
    handed_over: OnceLock<Vec<Row>>,
    /// Of the writer, for those who do not want to wait for it.
    revision: AtomicU64,
    last_line: AtomicU64,
}

/// Other gateways that change the same directory.
pub trait Peers: Send + Sync {
    /// Takes over what they have changed ([`Directory::follow`]).
    fn catch_up(&self) -> Pin<Box<dyn Future<Output = Result<(), Refused>> + Send + '_>>;
}

impl Directory {
    /// The directory in a state directory. `master` says where the key is that seals vendor keys; without it, one is made in
    /// the state directory. Blocks.
    ///
    /// # Errors
    /// What is wrong with a file, and what to do.
    pub fn open(state: &Path, master: Option<&Source>) -> Result<Self, String> {
        Self::shared(state, &seal::master(state, master)?, |own| Arc::new(own))
    }

    /// As [`Self::open`], with a store that is made of the one in the state directory.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn shared(
        state: &Path,
        master: &Secret,
        share: impl FnOnce(Embedded) -> Arc<dyn Store>,
    ) -> Result<Self, String> {
        let (token, path) = Token::open(state)?;
        let directory = Self::with(share(Embedded::open(state)?), Sealer::with(master)?, Some(token))?;
        tracing::info!("the admin API's token is in {}", path.display());
        Ok(directory)
    }

    /// A directory that ends with the process, and has no admin token.
    ///
    /// # Errors
    /// None that is known.
    pub fn in_memory() -> Result<Self, String> {
        let mut master = [0; 32];
        getrandom::fill(&mut master).map_err(|error| error.to_string())?;
        Self::with(Arc::new(Embedded::in_memory()?), Sealer::with(&Secret::new(master.to_vec()))?, None)
    }

    fn with(store: Arc<dyn Store>, sealer: Sealer, bootstrap: Option<Token>) -> Result<Self, String> {
        let problem = |error: StoreError| format!("{}: {error}", store::FILE);
        let today = day_of(clock::unix_s());
        let usage = Usage::new(store.usage(today, today).map_err(problem)?);
        let (writer, view) = Writer::start(Arc::clone(&store), sealer)?;
        let inner = Inner {
            view: ArcSwap::from_pointee(view),
            store,
            bootstrap,
            usage,
            feed: Feed::new(),
            peers: OnceLock::new(),
            handed_over: OnceLock::new(),
            revision: AtomicU64::new(0),
            last_line: AtomicU64::new(0),
            writer: Mutex::new(writer),
        };
        inner.stand(&inner.lock());
        Ok(Self(Arc::new(inner)))
    }

    // -- reading

    /// What is in force.
    #[must_use]
    pub fn view(&self) -> Guard<Arc<View>> {
        self.0.view.load()
    }

    /// The virtual key that a caller presents, and until when it is accepted under this secret, in seconds since 1970; one that is
    /// not accepted any more is found, too.
    #[must_use]
    pub fn find(&self, presented: &[u8]) -> Option<(Arc<VirtualKey>, Option<u64>)> {
        self.view().find(presented, clock::unix_s()).map(|(key, until)| (Arc::clone(key), until))
    }

    /// The virtual key of an id.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<Arc<VirtualKey>> {
        self.view().key(id).cloned()
    }

    /// Who has an admin token.
    #[must_use]
    pub fn actor(&self, presented: &[u8]) -> Option<Actor> {
        if self.0.bootstrap.as_ref().is_some_and(|token| token.is(presented)) {
            return Some(Actor { name: token::FILE.to_owned(), role: Role::Admin });
        }
        self.view().actor(presented, clock::unix_s())
    }

    /// What was used.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }

    /// What happens.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Lines of the audit log, the newest first.
    ///
    /// # Errors
    /// `directory-broken`
    pub async fn audit(&self, query: Query) -> Result<Vec<Line>, Refused> {
        self.blocking(move |inner| inner.store.audit(&query).map_err(|error| broken(&error))).await
    }

    /// Sums of usage from one day to another, both included, as days since 1970.
    ///
    /// # Errors
    /// `directory-broken`
    pub async fn used(&self, from: u64, to: u64) -> Result<Vec<Row>, Refused> {
        self.blocking(move |inner| {
            inner.flush()?;
            inner.store.usage(from, to).map_err(|error| broken(&error))
        })
        .await
    }

    // -- changing

    /// Makes a change and writes it down. What it returns is in force on this gateway. Dropping the future does not take
    /// the change back.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn change(&self, actor: Actor, change: Change) -> Result<Changed, Refused> {
        let asked = Arc::new((actor, change));
        self.upon_the_latest(move |inner| {
            // Writers wait for each other here, on threads for waiting; no request does.
            let mut writer = inner.lock();
            let (changed, view, line) = writer.change(&inner.view.load(), &asked.0, &asked.1)?;
            inner.view.store(Arc::new(view));
            inner.stand(&writer);
            drop(writer);
            inner.tell(&line);
            Ok(changed)
        })
        .await
    }

    /// Writes down a change of something that is not in the directory.
    ///
    /// # Errors
    /// `directory-broken`
    pub async fn note(&self, actor: Actor, note: Note) -> Result<(), Refused> {
        self.upon_the_latest(move |inner| {
            let mut writer = inner.lock();
            let line = writer.note(&actor, note.clone())?;
            inner.stand(&writer);
            drop(writer);
            inner.tell(&line);
            Ok(())
        })
        .await
    }

    // -- following

    /// Whom to ask what others have changed, when a change comes upon one of theirs.
    pub fn share_with(&self, peers: Arc<dyn Peers>) {
        let _ = self.0.peers.set(peers); // a second one is a mistake, and changes nothing
    }

    /// Puts in force what other gateways have changed. The kinds that have changed, and documents that cannot be in force.
    ///
    /// # Errors
    /// Nothing has changed.
    pub async fn follow(&self, news: News) -> Result<(BTreeSet<Kind>, Vec<Left>), Refused> {
        self.blocking(move |inner| {
            let mut writer = inner.lock();
            let taken = writer.follow(&inner.view.load(), news)?;
            if let Some(view) = taken.view {
                inner.view.store(Arc::new(view));
            }
            inner.stand(&writer);
            drop(writer);
            taken.lines.iter().for_each(|line| inner.tell(line));
            Ok((taken.kinds, taken.refused))
        })
        .await
    }

    /// The revision of the directory, and the number of the last line of its audit log.
    #[must_use]
    pub fn revision(&self) -> (u64, u64) {
        (self.0.revision.load(Ordering::Acquire), self.0.last_line.load(Ordering::Acquire))
    }

    /// Writes what was used to the store, again and again.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(usage::FLUSH_EVERY).await;
            self.flush().await;
        }
    }

    /// Writes what was used to the store.
    pub async fn flush(&self) {
        if let Err(error) = self.blocking(|inner| inner.flush()).await {
            tracing::warn!("usage cannot be kept, it is tried again: {error}");
        }
    }

    // -- handing over

    /// Lets another process open the directory. What this one knows holds until it ends, and nothing can be changed any more.
    ///
    /// # Errors
    /// What was used cannot be kept; the directory is given up all the same.
    pub async fn hand_over(&self) -> Result<(), Refused> {
        self.blocking(|inner| {
            let writer = inner.lock(); // whoever changes something has done so
            let rows = inner.usage.all();
            let first_day = day_of(clock::unix_s()).saturating_sub(usage::DAYS_KEPT);
            let kept = inner.store.put_usage(&rows, first_day).map_err(|error| broken(&error));
            let _ = inner.handed_over.set(rows); // only a second hand-over finds it set
            inner.store.give_up();
            drop(writer);
            kept
        })
        .await
    }

    /// Writes what was used since [`Self::hand_over`] to a file for the process that follows ([`Self::take_late`]). Blocks.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn leave_late(&self, state: &Path) -> std::io::Result<()> {
        let Some(before) = self.0.handed_over.get() else { return Ok(()) };
        late::leave(state, &usage::growth(self.0.usage.all(), before))
    }

    /// Counts what processes before this one have left ([`Self::leave_late`]).
    ///
    /// # Errors
    /// A file cannot be read, or what is in it cannot be kept.
    pub async fn take_late(&self, state: &Path) -> Result<(), Refused> {
        let state = state.to_owned();
        self.blocking(move |inner| {
            late::take(&state, |rows| {
                inner.usage.add(rows);
                inner.flush()
            })
        })
        .await
    }

    /// Does something that others may have come before: then again, upon what they have made of it.
    async fn upon_the_latest<T: Send + 'static>(
        &self,
        work: impl Fn(&Inner) -> Result<T, Refused> + Send + Sync + 'static,
    ) -> Result<T, Refused> {
        let work = Arc::new(work);
        let mut conflicts = 0;
        loop {
            let once = Arc::clone(&work);
            match (self.blocking(move |inner| once(inner)).await, self.0.peers.get()) {
                (Err(refused), Some(peers)) if refused.code == "conflict" && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    peers.catch_up().await?;
                }
                (done, _) => return done,
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| Err(Refused::new("internal", error.to_string(), "report this")))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stand(&self, writer: &Writer) {
        self.revision.store(writer.revision(), Ordering::Release);
        self.last_line.store(writer.last_line(), Ordering::Release);
    }

    fn flush(&self) -> Result<(), Refused> {
        let now = clock::unix_s();
        let rows = self.usage.grown(now);
        if rows.is_empty() {
            return Ok(());
        }
        let first_day = day_of(now).saturating_sub(usage::DAYS_KEPT);
        self.store.put_usage(&rows, first_day).map_err(|error| {
            self.usage.keep(&rows);
            broken(&error)
        })
    }

    fn tell(&self, line: &Line) {
        tracing::info!(target: "audit", number = line.number, actor = line.actor, action = line.action, kind = line.kind, id = line.id, "changed");
        let what = serde_json::json!({
            "audit": line.number, "at_unix_ms": line.at_unix_ms, "actor": line.actor, "action": line.action,
            "kind": line.kind, "id": line.id,
        });
        self.feed.change("change", what);
    }
}

fn broken(error: &StoreError) -> Refused {
    Refused::new("directory-broken", error.to_string(), "see that the state directory can be written")
}
