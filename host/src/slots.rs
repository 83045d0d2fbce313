// SPDX-License-Identifier: Apache-2.0
//! A bounded table of values by digest, for what the request path may remember. No lock, no growth, no sweep: a digest has
//! [`WAYS`] places, and a value that finds them taken replaces the one that is worth least.
//!
//! Keys are SHA-256, so that they spread evenly whatever callers send.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use sha2::{Digest as _, Sha256};

/// Places of one digest.
const WAYS: usize = 8;

/// SHA-256 of what a value is remembered for.
pub type Digest = [u8; 32];

/// Makes a digest of parts, each with its length: two lists of parts that differ in anything are never taken for one.
#[derive(Debug, Default)]
pub struct Parts(Sha256);

impl Parts {
    /// One more.
    pub fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    /// All of them.
    #[must_use]
    pub fn digest(self) -> Digest {
        self.0.finalize().into()
    }
}

/// The table.
pub struct Slots<V> {
    places: Box<[ArcSwapOption<Slot<V>>]>,
}

/// A value with its key.
pub struct Slot<V> {
    key: Digest,
    /// The value.
    pub value: V,
}

impl<V> Slots<V> {
    /// A table of about `max` values: the next smaller power of two, at least 8.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let sets = (max / WAYS).max(1);
        let sets = if sets.is_power_of_two() { sets } else { sets.next_power_of_two() / 2 };
        Self { places: (0..sets * WAYS).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &Digest) -> Option<Arc<Slot<V>>> {
        self.set(key).iter().find_map(|place| {
            let slot = place.load();
            slot.as_ref().filter(|slot| slot.key == *key).map(Arc::clone)
        })
    }

    /// Puts a value into the place of this key, an empty one, or that of the value that is worth least.
    pub fn put(&self, key: Digest, value: V, worth: impl Fn(&V) -> u64) {
        let place = self.place(&key, worth);
        place.store(Some(Arc::new(Slot { key, value })));
    }

    /// The value of a key; `make` makes it if there is none.
    pub fn get_or_put(&self, key: &Digest, make: impl Fn() -> V, worth: impl Fn(&V) -> u64) -> Arc<Slot<V>> {
        if let Some(slot) = self.get(key) {
            return slot;
        }
        let made = Arc::new(Slot { key: *key, value: make() });
        let place = self.place(key, worth);
        let before = place.load_full();
        if before.as_ref().is_some_and(|before| before.key == *key) {
            return before.unwrap_or(made);
        }
        let found = place.compare_and_swap(&before, Some(Arc::clone(&made)));
        // Somebody else was faster; whoever made the same takes that.
        found.as_ref().filter(|found| found.key == *key).map_or(made, Arc::clone)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.places.iter().for_each(|place| place.store(None));
    }

    fn place(&self, key: &Digest, worth: impl Fn(&V) -> u64) -> &ArcSwapOption<Slot<V>> {
        let set = self.set(key);
        let rank = |place: &&ArcSwapOption<Slot<V>>| match &*place.load() {
            Some(slot) if slot.key == *key => (0, 0),
            None => (1, 0),
            Some(slot) => (2, worth(&slot.value)),
        };
        set.iter().min_by_key(rank).unwrap_or(&self.places[0])
    }

    fn set(&self, key: &Digest) -> &[ArcSwapOption<Slot<V>>] {
        let number = usize::from_le_bytes(key[..size_of::<usize>()].try_into().unwrap_or_default());
        let first = number & (self.places.len() / WAYS - 1);
        &self.places[first * WAYS..][..WAYS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(set: u8, number: u8) -> Digest {
        let mut key = [0; 32];
        (key[0], key[31]) = (set, number);
        key
    }

    #[test]
    fn what_is_worth_least_makes_room_and_nothing_else() {
        let slots: Slots<u64> = Slots::new(31);
        let value = |key| slots.get(&key).map(|slot| slot.value);
        for number in 0..8 {
            slots.put(key(1, number), 100 + u64::from(number), |worth| *worth);
            slots.put(key(0, number), 7, |worth| *worth);
        }
        slots.put(key(1, 3), 203, |worth| *worth);
        slots.put(key(1, 8), 108, |worth| *worth);
        assert_eq!((value(key(1, 0)), value(key(1, 3)), value(key(1, 8))), (None, Some(203), Some(108)));
        assert!((0..8).all(|number| value(key(0, number)) == Some(7)), "another set is not touched");
        assert_eq!(slots.get_or_put(&key(1, 8), || 0, |worth| *worth).value, 108);
        assert_eq!(slots.get_or_put(&key(1, 9), || 9, |worth| *worth).value, 9);
        assert_eq!((value(key(1, 1)), value(key(1, 9))), (None, Some(9)));
        slots.clear();
        assert_eq!(value(key(0, 0)), None);
    }

    #[test]
    fn threads_that_make_the_same_value_share_one() {
        let slots: Slots<u64> = Slots::new(64);
        std::thread::scope(|scope| {
            let made: Vec<_> = (0..8)
                .map(|number| {
                    let slots = &slots;
                    scope.spawn(move || {
                        (0..=255)
                            .map(|set| slots.get_or_put(&key(set, 0), || number, |worth| *worth).value)
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in made {
                assert_eq!(thread.join().unwrap().len(), 256);
            }
        });
    }
}
