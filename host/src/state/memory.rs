// SPDX-License-Identifier: Apache-2.0
//! State in the memory of this process.

use std::sync::Arc;
use std::time::Instant;

use super::charge::{Charge, Remaining, Window};
use super::limits::{Counters, Refused};
use super::values::{Space, TooLarge};

use crate::clock;

/// Namespaces of values: one for each configured plugin, so this is far out of reach of a sane configuration.
const SPACES_MAX: usize = 4096;

/// Lasting counters that there may be unless the policy says otherwise.
const LASTING_MAX: usize = 1_000_000;

/// All state of one process.
pub struct Memory {
    begin: Instant,
    /// Nanoseconds from 1970 to `begin`.
    epoch_ns: u64,
    counters: Counters,
    spaces: papaya::HashMap<String, Arc<Space>>,
}

impl Memory {
    /// Empty state with room for so many counters; past it the least recently used one goes first.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self::with_lasting(entries_max, LASTING_MAX)
    }

    /// The same, with room for so many counters that last.
    #[must_use]
    pub fn with_lasting(entries_max: usize, lasting_max: usize) -> Self {
        Self {
            begin: Instant::now(),
            // 584 years.
            epoch_ns: u64::try_from(clock::since_1970().as_nanos()).unwrap_or(u64::MAX),
            counters: Counters::new(entries_max, lasting_max),
            spaces: papaya::HashMap::new(),
        }
    }

    /// Charges all counters, or none of them.
    pub(super) fn take(&self, charges: &[Charge], now: Instant) -> Result<(), Refused> {
        self.counters.take(charges, self.nanoseconds(now))
    }

    /// Adds `delta` to what was charged before: the true cost less the estimate. A bucket may go into debt; what is
    /// given back never lifts it above its burst. `charge.cost` is not looked at. Calls at a time are not corrected.
    pub(super) fn correct(&self, charge: &Charge, window: Window, delta: i64, now: Instant) {
        self.counters.correct(charge, window, delta, self.nanoseconds(now));
    }

    /// Gives back one call of a counter of calls at a time.
    pub(super) fn release(&self, key: &str) {
        self.counters.release(key);
    }

    /// Counts what was used before this process began.
    pub(super) fn recover(&self, key: &str, window: Window, amount: u64) {
        self.counters.recover(key, window, amount);
    }

    /// Takes over what all nodes together have used.
    pub(super) fn learn(&self, charge: &Charge, window: Window, used: u64, now: Instant) {
        self.counters.learn(charge, window, used, self.nanoseconds(now));
    }

    /// What a counter would still admit.
    #[must_use]
    pub fn remaining(&self, charge: &Charge, now: Instant) -> Remaining {
        self.counters.remaining(charge, self.nanoseconds(now))
    }

    /// Milliseconds since 1970, on a clock that only goes forward.
    #[must_use]
    pub fn unix_ms(&self, now: Instant) -> u64 {
        self.nanoseconds(now) / 1_000_000
    }

    /// The value of a key; none if there is none or it has expired.
    #[must_use]
    pub fn get(&self, namespace: &str, key: &str, now: Instant) -> Option<Vec<u8>> {
        self.spaces.pin().get(namespace)?.get(key, self.milliseconds(now))
    }

    /// Sets a value that expires after `ttl_ms`.
    ///
    /// # Errors
    /// Key or value is over its limit.
    pub fn put(&self, namespace: &str, key: &str, value: Vec<u8>, ttl_ms: u64, now: Instant) -> Result<(), TooLarge> {
        self.space(namespace).put(key, value, ttl_ms, self.milliseconds(now))
    }

    /// Adds to a number, 0 if there is none, and answers with the sum. The time to live starts with the first add. A
    /// value that is no number counts as none.
    ///
    /// # Errors
    /// The key is over its limit.
    pub fn add(&self, namespace: &str, key: &str, delta: i64, ttl_ms: u64, now: Instant) -> Result<i64, TooLarge> {
        self.space(namespace).add(key, delta, ttl_ms, self.milliseconds(now))
    }

    fn space(&self, namespace: &str) -> Arc<Space> {
        let spaces = self.spaces.pin();
        if let Some(space) = spaces.get(namespace) {
            return Arc::clone(space);
        }
        if spaces.len() >= SPACES_MAX {
            spaces.clear();
        }
        Arc::clone(spaces.get_or_insert_with(namespace.to_owned(), || Arc::new(Space::new())))
    }

    fn nanoseconds(&self, now: Instant) -> u64 {
        let since = u64::try_from(now.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX);
        self.epoch_ns.saturating_add(since)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        self.nanoseconds(now) / 1_000_000
    }
}
