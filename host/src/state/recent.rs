// SPDX-License-Identifier: Apache-2.0
//! A bounded map that forgets what was used least recently, with lock-free reads and no work in the background.
//!
//! Two generations: what is used is, or moves, in the young one; when that is half the bound, it becomes the old one
//! and the old one is dropped whole. So an entry survives if it was used at all while half the bound of others were,
//! and forgetting costs nothing on each use. A thread that holds a value across two changes of generation loses what it
//! writes there, which needs half the bound of new entries within one call.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;

/// A key with a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) key: Box<str>,
    pub(super) number: u64,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        KeyRef(&self.key, self.number).hash(state);
    }
}

/// A key that is looked up: a text, and a number such as that of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyRef<'a>(pub(super) &'a str, pub(super) u64);

impl papaya::Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.0 == *key.key && self.1 == key.number
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Self {
        Self { key: key.0.into(), number: key.1 }
    }
}

/// The map. Each entry weighs something; the bound is on entries and on their weights.
pub(super) struct Recent<V> {
    generations: ArcSwap<Generations<V>>,
    entries_max: usize,
    weight_max: usize,
}

struct Generations<V> {
    young: Arc<Generation<V>>,
    old: Arc<Generation<V>>,
}

struct Generation<V> {
    map: papaya::HashMap<Key, Arc<V>, RandomState>,
    weight: AtomicUsize,
}

impl<V> Generation<V> {
    fn new() -> Arc<Self> {
        Arc::new(Self { map: papaya::HashMap::default(), weight: AtomicUsize::new(0) })
    }
}

impl<V: Send + Sync + 'static> Recent<V> {
    /// A map that never holds more than so many entries of so much weight in all.
    pub(super) fn new(entries_max: usize, weight_max: usize) -> Self {
        let generations = Generations { young: Generation::new(), old: Generation::new() };
        Self { generations: ArcSwap::from_pointee(generations), entries_max, weight_max }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: KeyRef<'_>) -> Option<Arc<V>> {
        let generations = self.generations.load();
        if let Some(value) = generations.young.map.pin().get(&key) {
            return Some(Arc::clone(value));
        }
        let value = Arc::clone(generations.old.map.pin().get(&key)?);
        // Weighs nothing any more: its weight bought the room when it was new, and it is dropped with the rest.
        Some(Arc::clone(generations.young.map.pin().get_or_insert(key.into(), value)))
    }

    /// The value of a key, made if there is none.
    pub(super) fn get_or_insert_with(&self, key: KeyRef<'_>, make: impl FnOnce() -> V) -> Arc<V> {
        if let Some(value) = self.get(key) {
            return value;
        }
        self.make_room();
        let generations = self.generations.load();
        let young = generations.young.map.pin();
        Arc::clone(young.get_or_insert_with(key.into(), || Arc::new(make())))
    }

    /// Sets the value of a key.
    pub(super) fn insert(&self, key: KeyRef<'_>, value: V, weight: usize) {
        self.make_room();
        let generations = self.generations.load();
        generations.young.weight.fetch_add(weight, Ordering::Relaxed);
        generations.young.map.pin().insert(key.into(), Arc::new(value));
    }

    fn make_room(&self) {
        let generations = self.generations.load();
        let young = &generations.young;
        let full = young.map.len() >= self.entries_max.div_ceil(2)
            || young.weight.load(Ordering::Relaxed) >= self.weight_max.div_ceil(2);
        if !full {
            return;
        }
        let next = Arc::new(Generations { young: Generation::new(), old: Arc::clone(young) });
        // Whoever loses the race finds a young generation with room.
        self.generations.compare_and_swap(&generations, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let recent: Recent<u64> = Recent::new(100, usize::MAX);
        recent.get_or_insert_with(KeyRef("kept", 7), || 7);
        for number in 0..10_000 {
            recent.get_or_insert_with(KeyRef("n", number), || number);
            assert_eq!(recent.get(KeyRef("kept", 7)).as_deref(), Some(&7), "used all along, lost after {number}");
            let generations = recent.generations.load();
            assert!(generations.young.map.len() + generations.old.map.len() <= 101, "over the bound");
        }
        assert_eq!(recent.get(KeyRef("n", 0)), None, "the least recently used one goes first");
        assert_eq!(recent.get(KeyRef("kept", 8)), None, "numbers are apart");
    }

    #[test]
    fn weight_is_bounded_too() {
        let recent: Recent<Vec<u8>> = Recent::new(usize::MAX, 1000);
        for number in 0..1000 {
            recent.insert(KeyRef("n", number), vec![0; 100], 100);
        }
        let generations = recent.generations.load();
        assert!(generations.young.map.len() + generations.old.map.len() <= 12);
    }
}
