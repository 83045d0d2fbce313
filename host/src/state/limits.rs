// SPDX-License-Identifier: Apache-2.0
//! Counters of limits: token buckets, fixed windows and calls at a time.
//!
//! A token bucket is one number, the time at which it will be full again if nothing more is taken (GCRA): taking is one
//! compare-and-swap, refilling needs no timer, and a debt is a time further away. Times are nanoseconds of the owner's
//! monotonic clock, so a jump of the wall clock neither unlocks nor locks anything.

use std::sync::atomic::{AtomicU64, Ordering};

use super::recent::{Key, KeyRef, Recent};

/// How a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Refills smoothly; a full bucket holds `limit`.
    TokenBucket,
    /// Starts at nothing with each window. Windows are cut from the start of the process, not by the wall clock.
    FixedWindow,
    /// So many at a time; given back by `release`.
    Concurrency,
}

/// What a call takes from one counter.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// Name of the counter.
    pub key: &'a str,
    /// How it counts.
    pub algorithm: Algorithm,
    /// So many in a window, or at a time.
    pub limit: u64,
    /// Window in milliseconds.
    pub window_ms: u64,
    /// How many the call takes; one for `Concurrency`, whatever this says.
    pub cost: u64,
}

/// A charge was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which one.
    pub index: usize,
    /// When it may be tried again, in milliseconds; at least 1. For calls at a time nobody knows: 1000.
    pub retry_after_ms: u64,
}

/// What a counter would still admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// So many.
    pub count: u64,
    /// When it will be full again, in milliseconds; 0 if it is, and for calls at a time.
    pub reset_ms: u64,
}

/// Bits of a fixed window's word that hold its count; the rest holds the number of the window, modulo 2^24.
const COUNT_BITS: u32 = 40;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

pub(super) struct Counters {
    words: Recent<AtomicU64>,
    // Apart, since a counter of calls under way must never be forgotten; it is removed when the last one ends.
    concurrent: papaya::HashMap<Key, u64>,
}

impl Counters {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { words: Recent::new(entries_max, usize::MAX), concurrent: papaya::HashMap::new() }
    }

    pub(super) fn take(&self, namespace: &str, charges: &[Charge<'_>], now: u64) -> Result<(), Exceeded> {
        for (index, charge) in charges.iter().enumerate() {
            if let Err(retry_after_ms) = self.take_one(namespace, charge, now) {
                for taken in &charges[..index] {
                    self.give_back(namespace, taken, now);
                }
                return Err(Exceeded { index, retry_after_ms: retry_after_ms.max(1) });
            }
        }
        Ok(())
    }

    pub(super) fn correct(&self, namespace: &str, charge: &Charge<'_>, delta: i64, now: u64) {
        if delta == 0 || charge.algorithm == Algorithm::Concurrency {
            return;
        }
        let word = self.word(namespace, charge);
        let amount = delta.unsigned_abs();
        change(&word, |old| match charge.algorithm {
            Algorithm::TokenBucket if delta > 0 => old.max(now).saturating_add(span(charge, amount)),
            Algorithm::TokenBucket => old.saturating_sub(span(charge, amount)),
            Algorithm::FixedWindow | Algorithm::Concurrency => {
                let count = window_count(old, window_number(charge, now));
                let count = if delta > 0 { count.saturating_add(amount) } else { count.saturating_sub(amount) };
                window_word(charge, now, count)
            }
        });
    }

    pub(super) fn release(&self, namespace: &str, key: &str) {
        self.concurrent.pin().compute(KeyRef(namespace, key).into(), |entry| match entry {
            Some((_, count)) if *count > 1 => papaya::Operation::Insert(count - 1),
            Some(_) => papaya::Operation::Remove,
            None => papaya::Operation::Abort(()),
        });
    }

    pub(super) fn remaining(&self, namespace: &str, charge: &Charge<'_>, now: u64) -> Remaining {
        let word = || self.words.get(KeyRef(namespace, charge.key)).map_or(0, |word| word.load(Ordering::Relaxed));
        match charge.algorithm {
            Algorithm::TokenBucket => {
                let debt = word().saturating_sub(now);
                let taken = u128::from(debt) * u128::from(charge.limit);
                let taken = taken.div_ceil(u128::from(window_ns(charge)));
                let taken = u64::try_from(taken).unwrap_or(u64::MAX);
                Remaining { count: charge.limit.saturating_sub(taken), reset_ms: debt.div_ceil(1_000_000) }
            }
            Algorithm::FixedWindow => {
                let count = window_count(word(), window_number(charge, now));
                let reset_ms = if count == 0 { 0 } else { window_left_ms(charge, now) };
                Remaining { count: charge.limit.saturating_sub(count), reset_ms }
            }
            Algorithm::Concurrency => {
                let count = self.concurrent.pin().get(&KeyRef(namespace, charge.key)).copied().unwrap_or(0);
                Remaining { count: charge.limit.saturating_sub(count), reset_ms: 0 }
            }
        }
    }

    /// Takes one charge, or says after how many milliseconds to try again.
    fn take_one(&self, namespace: &str, charge: &Charge<'_>, now: u64) -> Result<(), u64> {
        match charge.algorithm {
            Algorithm::Concurrency => self.enter(namespace, charge),
            Algorithm::TokenBucket => {
                if charge.cost > charge.limit {
                    return Err(charge.window_ms);
                }
                let word = self.word(namespace, charge);
                try_change(&word, |old| {
                    let full_at = old.max(now).saturating_add(span(charge, charge.cost));
                    let over = full_at.saturating_sub(now).saturating_sub(window_ns(charge));
                    if over == 0 { Ok(full_at) } else { Err(over.div_ceil(1_000_000)) }
                })
            }
            Algorithm::FixedWindow => {
                let word = self.word(namespace, charge);
                try_change(&word, |old| {
                    let count = window_count(old, window_number(charge, now)).saturating_add(charge.cost);
                    if count > charge.limit.min(COUNT_MAX) {
                        return Err(window_left_ms(charge, now));
                    }
                    Ok(window_word(charge, now, count))
                })
            }
        }
    }

    fn enter(&self, namespace: &str, charge: &Charge<'_>) -> Result<(), u64> {
        let concurrent = self.concurrent.pin();
        let entered = concurrent.compute(KeyRef(namespace, charge.key).into(), |entry| {
            let count = entry.map_or(0, |(_, count)| *count);
            if count < charge.limit { papaya::Operation::Insert(count + 1) } else { papaya::Operation::Abort(()) }
        });
        if matches!(entered, papaya::Compute::Aborted(())) { Err(1000) } else { Ok(()) }
    }

    fn give_back(&self, namespace: &str, charge: &Charge<'_>, now: u64) {
        match charge.algorithm {
            Algorithm::Concurrency => self.release(namespace, charge.key),
            Algorithm::TokenBucket | Algorithm::FixedWindow => {
                let cost = i64::try_from(charge.cost).unwrap_or(i64::MAX);
                self.correct(namespace, charge, -cost, now);
            }
        }
    }

    fn word(&self, namespace: &str, charge: &Charge<'_>) -> std::sync::Arc<AtomicU64> {
        self.words.get_or_insert_with(KeyRef(namespace, charge.key), AtomicU64::default)
    }
}

fn change(word: &AtomicU64, next: impl Fn(u64) -> u64) {
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(next(old)));
}

fn try_change(word: &AtomicU64, next: impl Fn(u64) -> Result<u64, u64>) -> Result<(), u64> {
    let mut old = word.load(Ordering::Relaxed);
    loop {
        match word.compare_exchange_weak(old, next(old)?, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(current) => old = current,
        }
    }
}

/// How long the bucket needs to refill so many.
fn span(charge: &Charge<'_>, count: u64) -> u64 {
    let span = u128::from(count) * u128::from(window_ns(charge)) / u128::from(charge.limit.max(1));
    u64::try_from(span).unwrap_or(u64::MAX)
}

fn window_ns(charge: &Charge<'_>) -> u64 {
    charge.window_ms.max(1).saturating_mul(1_000_000)
}

fn window_number(charge: &Charge<'_>, now: u64) -> u64 {
    // Never 0, so that the word of a new counter belongs to no window.
    (now / window_ns(charge) + 1) & (u64::MAX >> COUNT_BITS)
}

fn window_count(word: u64, number: u64) -> u64 {
    if word >> COUNT_BITS == number { word & COUNT_MAX } else { 0 }
}

fn window_word(charge: &Charge<'_>, now: u64, count: u64) -> u64 {
    window_number(charge, now) << COUNT_BITS | count.min(COUNT_MAX)
}

fn window_left_ms(charge: &Charge<'_>, now: u64) -> u64 {
    (window_ns(charge) - now % window_ns(charge)).div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MS: u64 = 1_000_000;

    fn charge(algorithm: Algorithm, limit: u64, window_ms: u64, cost: u64) -> Charge<'static> {
        Charge { key: "k", algorithm, limit, window_ms, cost }
    }

    #[test]
    fn a_bucket_admits_its_limit_refills_smoothly_and_tells_when() {
        let counters = Counters::new(100);
        let one = charge(Algorithm::TokenBucket, 10, 1000, 1);
        for taken in 0..10 {
            assert_eq!(counters.take("n", &[one], 0), Ok(()), "number {taken}");
        }
        assert_eq!(counters.take("n", &[one], 0), Err(Exceeded { index: 0, retry_after_ms: 100 }));
        assert_eq!(counters.take("n", &[one], 99 * MS), Err(Exceeded { index: 0, retry_after_ms: 1 }));
        assert_eq!(counters.take("n", &[one], 100 * MS), Ok(()));
        assert_eq!(counters.remaining("n", &one, 1100 * MS), Remaining { count: 10, reset_ms: 0 });
        assert_eq!(
            counters.take("n", &[charge(Algorithm::TokenBucket, 10, 1000, 11)], 9999 * MS).map_err(|e| e.index),
            Err(0)
        );
    }

    #[test]
    fn a_correction_makes_a_debt_or_gives_back_but_never_more_than_the_limit() {
        let counters = Counters::new(100);
        let ten = charge(Algorithm::TokenBucket, 100, 1000, 10);
        counters.take("n", &[ten], 0).expect("room");
        counters.correct("n", &ten, 190, 0);
        assert_eq!(counters.take("n", &[ten], 1000 * MS), Err(Exceeded { index: 0, retry_after_ms: 100 }));
        counters.correct("n", &ten, -100_000, 1000 * MS);
        assert_eq!(counters.remaining("n", &ten, 1000 * MS).count, 100);
    }

    #[test]
    fn a_window_starts_anew() {
        let counters = Counters::new(100);
        let two = charge(Algorithm::FixedWindow, 5, 1000, 2);
        assert_eq!(counters.take("n", &[two, two], 300 * MS), Ok(()));
        assert_eq!(counters.take("n", &[two], 300 * MS), Err(Exceeded { index: 0, retry_after_ms: 700 }));
        assert_eq!(counters.remaining("n", &two, 300 * MS), Remaining { count: 1, reset_ms: 700 });
        assert_eq!(counters.take("n", &[two], 1000 * MS), Ok(()));
    }

    #[test]
    fn calls_at_a_time_are_released_and_leave_nothing_behind() {
        let counters = Counters::new(100);
        let call = charge(Algorithm::Concurrency, 2, 0, 1);
        assert_eq!(counters.take("n", &[call], 0), Ok(()));
        assert_eq!(counters.take("n", &[call], 0), Ok(()));
        assert_eq!(counters.take("n", &[call], 0).map_err(|e| e.index), Err(0));
        counters.release("n", "k");
        assert_eq!(counters.take("n", &[call], 0), Ok(()));
        counters.release("n", "k");
        counters.release("n", "k");
        counters.release("n", "k");
        assert!(counters.concurrent.is_empty());
    }

    #[test]
    fn either_all_charges_are_taken_or_none() {
        let counters = Counters::new(100);
        let bucket = Charge { key: "a", ..charge(Algorithm::TokenBucket, 10, 1000, 4) };
        let window = Charge { key: "b", ..charge(Algorithm::FixedWindow, 10, 1000, 4) };
        let call = Charge { key: "c", ..charge(Algorithm::Concurrency, 5, 0, 1) };
        let none = Charge { key: "d", ..charge(Algorithm::FixedWindow, 0, 1000, 1) };
        let refused = counters.take("n", &[bucket, window, call, none], 0).expect_err("the last one has no room");
        assert_eq!(refused.index, 3);
        assert_eq!(counters.remaining("n", &bucket, 0).count, 10);
        assert_eq!(counters.remaining("n", &window, 0).count, 10);
        assert_eq!(counters.remaining("n", &call, 0).count, 5);
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow, Algorithm::Concurrency] {
            let counters = Arc::new(Counters::new(100));
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let counters = Arc::clone(&counters);
                    std::thread::spawn(move || {
                        let one = charge(algorithm, 1000, 3_600_000, 1);
                        (0..1000).filter(|_| counters.take("n", &[one], 0).is_ok()).count()
                    })
                })
                .collect();
            let taken: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
            assert_eq!(taken, 1000, "{algorithm:?}");
        }
    }
}
