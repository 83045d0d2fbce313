// SPDX-License-Identifier: Apache-2.0
//! The state of limits as a request sees it: charge everything or nothing, and settle when the truth is known.
//!
//! Without a shared store the counters are in memory, and what was used in windows of an hour and more is in a journal before
//! [`Held::settle`] returns. With one, the store decides, and memory is what is left when it is away.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramOpts};
use serde::{Deserialize, Serialize};

use super::charge::{Algorithm, Charge, Exceeded, Remaining, Window};
use super::journal::Journal;
use super::limits::Refused;
use super::memory::Memory;
use super::owed::Step;
use super::redis::{self, Decision, Redis, Shared};

use crate::clock;
use crate::config::Away;

/// How long the use of a window is remembered after its end.
const LATE_MS: u64 = 86_400_000;
/// How often it is looked whether everything is told, at the end of the process.
const FLUSH: Duration = Duration::from_millis(5);

/// Name and help of the metric that [`State::round_trips`] is.
pub const ROUND_TRIP: (&str, &str) = (
    "penstock_state_round_trip_seconds",
    "Seconds that a decision of the shared store took: one for each call that has a limit.",
);
/// Upper bounds of the buckets of a round trip to the shared store, in seconds.
const ROUND_TRIP_SECONDS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];

/// Where the counters are.
pub struct State {
    memory: Arc<Memory>,
    journal: Option<Arc<Journal>>,
    shared: Option<Arc<Shared>>,
    /// How long decisions of the shared store took.
    round_trips: Option<Histogram>,
}

/// How to open a [`State`].
pub struct Options {
    /// Counters in memory, and values of plugins.
    pub memory: Arc<Memory>,
    /// Where the journals are; none keeps nothing beyond the process.
    pub folder: Option<PathBuf>,
    /// A store that many nodes share.
    pub redis: Option<Redis>,
    /// Name of this process, unlike that of any other one.
    pub session: String,
}

/// Why a call was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// A counter is exhausted.
    Exceeded(Exceeded),
    /// There is no room for another budget, or to remember what is used.
    Full,
    /// The shared store is away, and calls are not to go on without it.
    Away,
}

/// What is reserved for a call. Settling puts the truth in the place of the estimate; dropping it without keeps the estimate.
pub struct Held {
    state: Arc<State>,
    items: Vec<Item>,
    place: Place,
    settled: bool,
}

/// One charge of a call, as it was decided.
#[derive(Debug, Clone)]
pub struct Item {
    /// The charge.
    pub charge: Charge,
    /// What was left after it.
    pub remaining: Remaining,
    window: Window,
}

/// Where a call was charged.
#[derive(Debug, Clone)]
enum Place {
    /// In the memory of a node without a shared store.
    Memory,
    /// In the shared store, under this permit.
    Shared(Arc<str>),
    /// In memory, since the shared store is away.
    Local,
    /// Nowhere, since the shared store is away.
    Nowhere,
}

/// A line of the journal: what a call has used, as (key, window, its end, amount).
#[derive(Serialize, Deserialize)]
struct Used(Vec<(Arc<str>, u64, u64, u64)>);

impl State {
    /// Opens the state. With a shared store it is looked for once, and then in the background.
    ///
    /// # Errors
    /// The journal cannot be opened, or the address of the store is none.
    pub async fn open(options: Options) -> Result<Arc<Self>, String> {
        let Options { memory, folder, redis, session } = options;
        let Some(redis) = redis else {
            let journal = folder.map(|folder| recovered(&folder.join("used"), &memory)).transpose()?;
            return Ok(Arc::new(Self { memory, journal, shared: None, round_trips: None }));
        };
        let (journal, recorded) = match folder {
            Some(folder) => {
                let folder = folder.join("unsent");
                let opened = Journal::open(&folder, Box::new(redis::fold));
                let (journal, lines) = opened.map_err(|error| format!("{}: {error}", folder.display()))?;
                (Some(journal), lines)
            }
            None => (None, Vec::new()),
        };
        let (shared, mut sender) = Shared::new(&redis, session, journal, recorded)?;
        sender.look_for_it().await;
        tokio::spawn(sender.run());
        Ok(Arc::new(Self { memory, journal: None, shared: Some(shared), round_trips: round_trips() }))
    }

    /// State in memory only, that ends with the process.
    #[must_use]
    pub fn in_memory(memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self { memory, journal: None, shared: None, round_trips: None })
    }

    /// Charges all counters, or none of them.
    ///
    /// # Errors
    /// Why the call is not to go on.
    pub async fn admit(self: &Arc<Self>, charges: Vec<Charge>) -> Result<Held, Denied> {
        let Some(shared) = &self.shared else { return self.admit_here(charges, Place::Memory) };
        let begun = Instant::now();
        let decided = shared.admit(&charges).await;
        if let (Ok(_), Some(time)) = (&decided, &self.round_trips) {
            time.observe(begun.elapsed().as_secs_f64());
        }
        match decided {
            Ok((permit, Decision::Granted(granted))) => {
                let now = Instant::now();
                let items = charges.into_iter().zip(granted).map(|(charge, (window, remaining))| {
                    if shared.mode == Away::Local {
                        self.memory.learn(&charge, window, charge.limit.saturating_sub(remaining.count), now);
                    }
                    Item { charge, remaining, window }
                });
                Ok(self.held(items.collect(), Place::Shared(permit)))
            }
            Ok((_, Decision::Refused(exceeded))) => Err(Denied::Exceeded(exceeded)),
            Err(redis::IsAway) if shared.mode == Away::Closed => Err(Denied::Away),
            Err(redis::IsAway) if !shared.has_room() => Err(Denied::Full),
            Err(redis::IsAway) if shared.mode == Away::Local => self.admit_here(charges, Place::Local),
            Err(redis::IsAway) => Ok(self.held(self.items(charges, Instant::now()), Place::Nowhere)),
        }
    }

    /// Charges what a call will come to, and reserves nothing: it was admitted before. Calls at a time are not for this.
    #[must_use]
    pub fn charge_later(self: &Arc<Self>, charges: Vec<Charge>) -> Held {
        let charges = charges.into_iter().map(|charge| Charge { cost: 0, ..charge }).collect();
        let place = if self.shared.is_some() { Place::Nowhere } else { Place::Memory };
        self.held(self.items(charges, Instant::now()), place)
    }

    /// Whether the shared store is away; never without one.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.is_away())
    }

    /// Settled calls that the shared store has not acknowledged; none without one.
    #[must_use]
    pub fn unsettled(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.unsettled())
    }

    /// How long decisions of the shared store took, in seconds; for whoever shows it.
    #[must_use]
    pub fn round_trips(&self) -> Option<&Histogram> {
        self.round_trips.as_ref()
    }

    /// What a counter would still admit, as far as this node knows.
    #[must_use]
    pub fn remaining(&self, charge: &Charge) -> Remaining {
        self.memory.remaining(charge, Instant::now())
    }

    /// Waits until the shared store has been told everything, or the time is over. What is not told by then stays in the
    /// journal for the next start.
    pub async fn flush(&self, within: Duration) {
        let Some(shared) = &self.shared else { return };
        let end = Instant::now() + within;
        while shared.unsettled() > 0 && Instant::now() < end {
            tokio::time::sleep(FLUSH).await;
        }
    }

    /// Lets another process open the state, while what is under way here is settled as before. What the shared store is still
    /// owed should have been told it by then ([`Self::flush`]). Blocks for a moment.
    ///
    /// # Errors
    /// The journal cannot be handed over.
    pub fn hand_over(&self) -> io::Result<()> {
        let journals = [self.journal.as_ref(), self.shared.as_ref().and_then(|shared| shared.journal())];
        journals.into_iter().flatten().try_for_each(|journal| journal.hand_over())
    }

    /// The last call of a process that has handed over is settled: forgets what the shared store was told. Without a shared store,
    /// the process that follows counts it.
    pub fn end_late(&self) {
        let Some(shared) = self.shared.as_ref().filter(|shared| shared.unsettled() == 0) else { return };
        if let Some(Err(error)) = shared.journal().map(|journal| journal.forget_late()) {
            tracing::warn!("what the shared store was told stays in the journal: {error}");
        }
    }

    /// Counts what processes before this one have settled after they had handed over. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn take_late(&self) -> io::Result<()> {
        let Some(journal) = &self.journal else { return Ok(()) };
        count(&journal.take_late()?, &self.memory);
        Ok(())
    }

    fn admit_here(self: &Arc<Self>, charges: Vec<Charge>, place: Place) -> Result<Held, Denied> {
        let now = Instant::now();
        match self.memory.take(&charges, now) {
            Ok(()) => Ok(self.held(self.items(charges, now), place)),
            Err(Refused::Exceeded(exceeded)) => Err(Denied::Exceeded(exceeded)),
            Err(Refused::Full) => Err(Denied::Full),
        }
    }

    fn items(&self, charges: Vec<Charge>, now: Instant) -> Vec<Item> {
        let now_ms = self.memory.unix_ms(now);
        let item = |charge: Charge| {
            let (remaining, window) = (self.memory.remaining(&charge, now), charge.window(now_ms));
            Item { charge, remaining, window }
        };
        charges.into_iter().map(item).collect()
    }

    fn held(self: &Arc<Self>, items: Vec<Item>, place: Place) -> Held {
        Held { state: Arc::clone(self), items, place, settled: false }
    }

    /// Corrects what was charged in memory.
    fn settle_here(&self, items: &[Item], actual: &dyn Fn(usize) -> u64) {
        let now = Instant::now();
        for (index, Item { charge, window, .. }) in items.iter().enumerate() {
            if charge.algorithm == Algorithm::Concurrency {
                self.memory.release(&charge.key);
                continue;
            }
            self.memory.correct(charge, *window, delta(actual(index), charge.cost), now);
        }
    }

    fn write_down(&self, items: &[Item], actual: &dyn Fn(usize) -> u64) {
        let Some(journal) = &self.journal else { return };
        let used = items.iter().enumerate().filter(|(index, item)| item.charge.is_lasting() && actual(*index) > 0);
        let used: Vec<_> = used
            .map(|(index, item)| (Arc::clone(&item.charge.key), item.window.number, item.kept_ms(), actual(index)))
            .collect();
        if used.is_empty() {
            return;
        }
        if let Ok(line) = serde_json::to_string(&Used(used)) {
            journal.append(&line);
        }
    }
}

impl Held {
    /// The charges, in the order in which they were asked for.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Puts the truth in the place of the estimate: for each charge by its number what was used.
    pub fn settle(mut self, actual: &dyn Fn(usize) -> u64) {
        self.finish(actual);
    }

    /// Gives everything back, as if the call had not been.
    pub fn release(self) {
        self.settle(&|_| 0);
    }

    fn finish(&mut self, actual: &dyn Fn(usize) -> u64) {
        self.settled = true;
        let state = &self.state;
        match &self.place {
            Place::Memory => {
                state.write_down(&self.items, actual);
                state.settle_here(&self.items, actual);
            }
            Place::Local => {
                state.settle_here(&self.items, actual);
                self.owe(&"".into(), actual);
            }
            Place::Nowhere => self.owe(&"".into(), actual),
            Place::Shared(permit) => self.owe(permit, actual),
        }
    }

    /// Sees that the shared store is told; without a permit it has reserved nothing.
    fn owe(&self, permit: &Arc<str>, actual: &dyn Fn(usize) -> u64) {
        let Some(shared) = &self.state.shared else { return };
        let is_held = !permit.is_empty();
        let mut lasting = false;
        let mut steps = Vec::with_capacity(self.items.len());
        for (index, item) in self.items.iter().enumerate() {
            let Item { charge, window, .. } = item;
            let (key, amount) = (Arc::clone(&charge.key), actual(index));
            match charge.algorithm {
                Algorithm::Concurrency if is_held => {
                    steps.push(Step::Ended { key, member: redis::member(permit, index) });
                }
                Algorithm::TokenBucket => {
                    let delta = delta(amount, if is_held { charge.cost } else { 0 });
                    if delta != 0 {
                        steps.push(Step::Corrected { key, delta, window_ms: charge.window_ms, limit: charge.limit });
                    }
                }
                Algorithm::Concurrency => {}
                _ if amount > 0 || (is_held && charge.cost > 0) => {
                    lasting |= charge.is_lasting();
                    let (permit, window, kept_ms) = (Arc::clone(permit), window.number, item.kept_ms());
                    steps.push(Step::Used { key, permit, window, kept_ms, amount: amount.min(redis::EXACT_MAX) });
                }
                _ => {}
            }
        }
        if !steps.is_empty() {
            shared.owe(steps, lasting);
        }
    }
}

impl Drop for Held {
    /// Whoever was not told what a call has used takes what was reserved.
    fn drop(&mut self) {
        if !self.settled {
            let costs: Vec<_> = self.items.iter().map(|item| item.charge.cost).collect();
            self.finish(&|index| costs.get(index).copied().unwrap_or(0));
        }
    }
}

impl Item {
    /// Until when what was used in this window still counts.
    fn kept_ms(&self) -> u64 {
        let further = if self.charge.algorithm == Algorithm::SlidingWindow { self.charge.window_ms } else { 0 };
        self.window.ends_ms.saturating_add(further)
    }
}

fn round_trips() -> Option<Histogram> {
    let (name, help) = ROUND_TRIP;
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(ROUND_TRIP_SECONDS.to_vec())).ok()
}

fn delta(actual: u64, estimate: u64) -> i64 {
    i64::try_from(actual).unwrap_or(i64::MAX) - i64::try_from(estimate).unwrap_or(i64::MAX)
}

/// Opens the journal of a node without a shared store, and counts what it has.
fn recovered(folder: &std::path::Path, memory: &Memory) -> Result<Arc<Journal>, String> {
    let now_ms = memory.unix_ms(Instant::now());
    let begun = Instant::now();
    let at = move || now_ms.saturating_add(clock::millis(begun.elapsed()));
    let opened = Journal::open(folder, Box::new(move |lines| sums(lines, at())));
    let (journal, lines) = opened.map_err(|error| format!("{}: {error}", folder.display()))?;
    count(&lines, memory);
    Ok(journal)
}

/// Counts what is in lines of the journal.
fn count(lines: &[String], memory: &Memory) {
    for used in lines.iter().filter_map(|line| serde_json::from_str::<Used>(line).ok()) {
        for (key, number, ends_ms, amount) in used.0 {
            memory.recover(&key, Window { number, ends_ms }, amount);
        }
    }
}

/// One line for each counter that still counts.
fn sums(lines: &[String], now_ms: u64) -> Vec<String> {
    let mut sums: BTreeMap<(Arc<str>, u64, u64), u64> = BTreeMap::new();
    for line in lines {
        match serde_json::from_str::<Used>(line) {
            Ok(used) => used.0.into_iter().for_each(|(key, window, ends_ms, amount)| {
                let sum = sums.entry((key, window, ends_ms)).or_default();
                *sum = sum.saturating_add(amount);
            }),
            Err(error) => tracing::warn!("a line of the journal cannot be read: {error}"),
        }
    }
    let kept = sums.into_iter().filter(|((_, _, ends_ms), _)| ends_ms.saturating_add(LATE_MS) > now_ms);
    let line = |((key, window, ends_ms), amount)| serde_json::to_string(&Used(vec![(key, window, ends_ms, amount)]));
    kept.filter_map(|entry| line(entry).ok()).collect()
}
