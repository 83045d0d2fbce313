// SPDX-License-Identifier: Apache-2.0
//! Counters of limits in the memory of this process.
//!
//! A token bucket is one number, the time at which it will be full again if nothing more is taken (GCRA): taking is one
//! compare-and-swap, refilling needs no timer, and a debt is a time further away. A window is one number for each piece of
//! time. Times are nanoseconds since 1970 on a clock that only goes forward, so a jump of the wall clock neither unlocks nor
//! locks anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;

use super::charge::{Algorithm, Charge, Exceeded, Remaining, Window};
use super::recent::{Key, KeyRef, Recent};

/// After how many milliseconds a call at a time is told to try again.
const BUSY_MS: u64 = 1000;
const NS: u64 = 1_000_000;
/// How often at most windows that are over are looked for when there is no room.
const SWEEP_MS: u64 = 10_000;

pub(super) struct Counters {
    words: Recent<AtomicU64>,
    // Apart, since a budget must never be forgotten because others were used more recently.
    lasting: papaya::HashMap<Key, Arc<Lasting>, RandomState>,
    lasting_max: usize,
    swept_ms: AtomicU64,
    // Apart, since a counter of calls under way must never be forgotten; it is removed when the last one ends.
    concurrent: papaya::HashMap<Key, u64, RandomState>,
}

struct Lasting {
    count: AtomicU64,
    forgotten_ms: u64,
}

/// The number of one counter.
enum Word {
    Recent(Arc<AtomicU64>),
    Lasting(Arc<Lasting>),
}

impl std::ops::Deref for Word {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        match self {
            Self::Recent(word) => word,
            Self::Lasting(lasting) => &lasting.count,
        }
    }
}

/// Why a charge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Exceeded(Exceeded),
    /// There is no room for another lasting counter.
    Full,
}

/// What one charge came to.
type Taken = Result<(), Option<Exceeded>>;

impl Counters {
    pub(super) fn new(entries_max: usize, lasting_max: usize) -> Self {
        Self {
            words: Recent::new(entries_max, usize::MAX),
            lasting: papaya::HashMap::default(),
            lasting_max,
            swept_ms: AtomicU64::new(0),
            concurrent: papaya::HashMap::default(),
        }
    }

    pub(super) fn take(&self, charges: &[Charge], now: u64) -> Result<(), Refused> {
        for (index, charge) in charges.iter().enumerate() {
            if let Err(refused) = self.take_one(index, charge, now) {
                for taken in &charges[..index] {
                    self.give_back(taken, now);
                }
                return Err(refused.map_or(Refused::Full, Refused::Exceeded));
            }
        }
        Ok(())
    }

    /// Adds to what was charged before, in the window that it was charged to.
    pub(super) fn correct(&self, charge: &Charge, window: Window, delta: i64, now: u64) {
        if delta == 0 || charge.algorithm == Algorithm::Concurrency {
            return;
        }
        let Some(word) = self.word(charge, window, now) else { return };
        let amount = delta.unsigned_abs();
        change(&word, |old| match charge.algorithm {
            Algorithm::TokenBucket if delta > 0 => old.max(now).saturating_add(span(charge, amount)),
            Algorithm::TokenBucket => old.saturating_sub(span(charge, amount)),
            _ if delta > 0 => old.saturating_add(amount),
            _ => old.saturating_sub(amount),
        });
    }

    /// Takes back a whole charge.
    pub(super) fn give_back(&self, charge: &Charge, now: u64) {
        match charge.algorithm {
            Algorithm::Concurrency => self.release(&charge.key),
            _ => {
                let cost = i64::try_from(charge.cost).unwrap_or(i64::MAX);
                self.correct(charge, charge.window(now / NS), -cost, now);
            }
        }
    }

    pub(super) fn release(&self, key: &str) {
        self.concurrent.pin().compute(KeyRef(key, 0).into(), |entry| match entry {
            Some((_, count)) if *count > 1 => papaya::Operation::Insert(count - 1),
            Some(_) => papaya::Operation::Remove,
            None => papaya::Operation::Abort(()),
        });
    }

    /// Counts what was used before this process began.
    pub(super) fn recover(&self, key: &str, window: Window, amount: u64) {
        let forgotten_ms = forgotten_ms(window, 0);
        let key = KeyRef(key, window.number).into();
        let lasting = self.lasting.pin();
        let made = lasting.get_or_insert_with(key, || Arc::new(Lasting { count: AtomicU64::new(0), forgotten_ms }));
        change(&made.count, |old| old.saturating_add(amount));
    }

    /// Takes over what all nodes together have used, so that counting can go on here.
    pub(super) fn learn(&self, charge: &Charge, window: Window, used: u64, now: u64) {
        if charge.algorithm.is_window()
            && let Some(word) = self.word(charge, window, now)
        {
            word.store(used, Ordering::Relaxed);
        }
    }

    pub(super) fn remaining(&self, charge: &Charge, now: u64) -> Remaining {
        match charge.algorithm {
            Algorithm::TokenBucket => {
                let full_at = self.peek(charge, 0);
                let debt = full_at.saturating_sub(now);
                let taken = u128::from(debt) * u128::from(charge.limit);
                let taken = taken.div_ceil(u128::from(window_ns(charge)));
                let taken = u64::try_from(taken).unwrap_or(u64::MAX);
                Remaining { count: charge.burst.saturating_sub(taken), reset_ms: debt.div_ceil(NS) }
            }
            Algorithm::Concurrency => {
                let count = self.concurrent.pin().get(&KeyRef(&charge.key, 0)).copied().unwrap_or(0);
                Remaining { count: charge.limit.saturating_sub(count), reset_ms: 0 }
            }
            _ => {
                let window = charge.window(now / NS);
                let count = self.peek(charge, window.number).saturating_add(self.before(charge, window, now));
                let reset_ms = if count == 0 { 0 } else { window.left_ms(now / NS).unwrap_or(0) };
                Remaining { count: charge.limit.saturating_sub(count), reset_ms }
            }
        }
    }

    fn take_one(&self, index: usize, charge: &Charge, now: u64) -> Taken {
        let exceeded = |retry_after_ms: Option<u64>| Some(Exceeded { index, retry_after_ms });
        match charge.algorithm {
            Algorithm::Concurrency => {
                if self.enter(charge) {
                    return Ok(());
                }
                Err(exceeded(Some(BUSY_MS)))
            }
            Algorithm::TokenBucket => {
                if charge.cost > charge.burst {
                    return Err(exceeded(Some(charge.window_ms)));
                }
                let word = self.word(charge, Window::default(), now).ok_or(None)?;
                try_change(&word, |old| {
                    let full_at = old.max(now).saturating_add(span(charge, charge.cost));
                    let over = full_at.saturating_sub(now).saturating_sub(span(charge, charge.burst));
                    if over == 0 { Ok(full_at) } else { Err(exceeded(Some(over.div_ceil(NS).max(1)))) }
                })
            }
            _ => {
                let window = charge.window(now / NS);
                let before = self.before(charge, window, now);
                let word = self.word(charge, window, now).ok_or(None)?;
                try_change(&word, |old| {
                    let count = old.saturating_add(charge.cost);
                    // What is used up is used up, even for a call that takes nothing yet.
                    let is_over = count.saturating_add(before) > charge.limit
                        || (charge.cost == 0 && old.saturating_add(before) >= charge.limit);
                    if is_over { Err(exceeded(window.left_ms(now / NS))) } else { Ok(count) }
                })
            }
        }
    }

    fn enter(&self, charge: &Charge) -> bool {
        let concurrent = self.concurrent.pin();
        let entered = concurrent.compute(KeyRef(&charge.key, 0).into(), |entry| {
            let count = entry.map_or(0, |(_, count)| *count);
            if count < charge.limit { papaya::Operation::Insert(count + 1) } else { papaya::Operation::Abort(()) }
        });
        !matches!(entered, papaya::Compute::Aborted(()))
    }

    /// What still counts of the window before.
    fn before(&self, charge: &Charge, window: Window, now: u64) -> u64 {
        if charge.algorithm != Algorithm::SlidingWindow {
            return 0;
        }
        charge.still_counts(self.peek(charge, window.number.wrapping_sub(1)), window, now / NS)
    }

    fn peek(&self, charge: &Charge, number: u64) -> u64 {
        let key = KeyRef(&charge.key, number);
        if charge.is_lasting() {
            self.lasting.pin().get(&key).map_or(0, |lasting| lasting.count.load(Ordering::Relaxed))
        } else {
            self.words.get(key).map_or(0, |word| word.load(Ordering::Relaxed))
        }
    }

    /// The number of a counter; none if there is no room for another one that lasts.
    fn word(&self, charge: &Charge, window: Window, now: u64) -> Option<Word> {
        let key = KeyRef(&charge.key, window.number);
        if !charge.is_lasting() {
            return Some(Word::Recent(self.words.get_or_insert_with(key, AtomicU64::default)));
        }
        let lasting = self.lasting.pin();
        if let Some(known) = lasting.get(&key) {
            return Some(Word::Lasting(Arc::clone(known)));
        }
        if lasting.len() >= self.lasting_max && !self.sweep(now / NS) {
            return None;
        }
        let further_ms = if charge.algorithm == Algorithm::SlidingWindow { charge.window_ms } else { 0 };
        let forgotten_ms = forgotten_ms(window, further_ms);
        let made = || Arc::new(Lasting { count: AtomicU64::new(0), forgotten_ms });
        Some(Word::Lasting(Arc::clone(lasting.get_or_insert_with(key.into(), made))))
    }

    /// Forgets windows that are over; answers whether there is room now.
    fn sweep(&self, now_ms: u64) -> bool {
        let swept = self.swept_ms.load(Ordering::Relaxed);
        let due = now_ms.saturating_sub(swept) >= SWEEP_MS;
        if due && self.swept_ms.compare_exchange(swept, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.lasting.pin().retain(|_, lasting| lasting.forgotten_ms > now_ms);
        }
        self.lasting.len() < self.lasting_max
    }
}

/// How long a window is kept: calls that were charged to it may still settle on the day after.
fn forgotten_ms(window: Window, further_ms: u64) -> u64 {
    window.ends_ms.saturating_add(further_ms).saturating_add(86_400_000)
}

fn change(word: &AtomicU64, next: impl Fn(u64) -> u64) {
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(next(old)));
}

fn try_change(word: &AtomicU64, next: impl Fn(u64) -> Result<u64, Option<Exceeded>>) -> Taken {
    let mut old = word.load(Ordering::Relaxed);
    loop {
        match word.compare_exchange_weak(old, next(old)?, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(current) => old = current,
        }
    }
}

/// How long the bucket needs to refill so many.
fn span(charge: &Charge, count: u64) -> u64 {
    let span = u128::from(count) * u128::from(window_ns(charge)) / u128::from(charge.limit.max(1));
    u64::try_from(span).unwrap_or(u64::MAX)
}

fn window_ns(charge: &Charge) -> u64 {
    charge.window_ms.max(1).saturating_mul(NS)
}

#[cfg(test)]
mod tests;
