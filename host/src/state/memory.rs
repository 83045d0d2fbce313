// SPDX-License-Identifier: Apache-2.0
//! State in the memory of this process.

use std::sync::Arc;
use std::time::Instant;

use super::limits::{Charge, Counters, Exceeded, Remaining};
use super::values::{Space, TooLarge};

/// Namespaces of values: one for each configured plugin, so this is far out of reach of a sane configuration.
const SPACES_MAX: usize = 4096;

/// All state of one process.
pub struct Memory {
    begin: Instant,
    counters: Counters,
    spaces: papaya::HashMap<String, Arc<Space>>,
}

impl Memory {
    /// Empty state with room for so many counters; past it the least recently used one goes first.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { begin: Instant::now(), counters: Counters::new(entries_max), spaces: papaya::HashMap::new() }
    }

    /// Charges all counters, or none of them if one is exhausted.
    ///
    /// # Errors
    /// Which charge was refused, and when it may be tried again.
    pub fn take(&self, namespace: &str, charges: &[Charge<'_>], now: Instant) -> Result<(), Exceeded> {
        self.counters.take(namespace, charges, self.nanoseconds(now))
    }

    /// Adds `delta` to what was charged before: the true cost less the estimate. A bucket may go into debt; what is
    /// given back never lifts it above its limit. `charge.cost` is not looked at. Calls at a time are not corrected.
    pub fn correct(&self, namespace: &str, charge: &Charge<'_>, delta: i64, now: Instant) {
        self.counters.correct(namespace, charge, delta, self.nanoseconds(now));
    }

    /// Gives back one call of a counter of calls at a time.
    pub fn release(&self, namespace: &str, key: &str) {
        self.counters.release(namespace, key);
    }

    /// What a counter would still admit.
    #[must_use]
    pub fn remaining(&self, namespace: &str, charge: &Charge<'_>, now: Instant) -> Remaining {
        self.counters.remaining(namespace, charge, self.nanoseconds(now))
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
        // 584 years.
        u64::try_from(now.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        self.nanoseconds(now) / 1_000_000
    }
}
