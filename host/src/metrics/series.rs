// SPDX-License-Identifier: Apache-2.0
//! Series by the values of their labels, found without a lock, and their ceilings.
//!
//! Values that a caller or the directory can make as many of as it likes (models, keys, teams) are counted over all metrics:
//! beyond the ceiling of their label a value is `other`, in every metric alike.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use prometheus::Registry;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

use super::{Family, SERIES_MAX};

/// Value of a label, or of every label, in the series that takes what is over a ceiling.
pub(super) const OTHER: &str = "other";
/// Labels of one metric.
const LABELS_MAX: usize = 8;

/// The crate's metrics with labels, whose builders have no public names.
pub(super) trait Labelled: Collector + Clone + 'static {
    type Metric: Clone;

    fn metric(&self, values: &[&str]) -> Option<Self::Metric>;
}

impl<B: MetricVecBuilder + 'static> Labelled for MetricVec<B> {
    type Metric = B::M;

    fn metric(&self, values: &[&str]) -> Option<B::M> {
        self.get_metric_with_label_values(values).ok()
    }
}

/// Values of one label, up to a ceiling; shared by all metrics that have the label.
pub(super) struct Names {
    max: usize,
    known: papaya::HashMap<Box<str>, ()>,
}

impl Names {
    pub(super) fn new(max: usize) -> Self {
        Self { max, known: papaya::HashMap::new() }
    }

    /// The value, or `other` if there are too many already. An empty one stands for none and is always there.
    fn admit<'v>(&self, value: &'v str) -> &'v str {
        let known = self.known.pin();
        if value.is_empty() || known.contains_key(value) {
            return value;
        }
        if known.len() >= self.max {
            return OTHER;
        }
        known.insert(value.into(), ());
        value
    }
}

/// The ceilings of labels, by their names.
pub(super) type Ceilings = Arc<[(&'static str, Names)]>;

/// Things by the values of labels: each is found by one hash, and no lock is taken.
pub(super) struct Known<T> {
    labels: &'static [&'static str],
    ceilings: Ceilings,
    /// Those used so far, by the hash of their labels; replaced whole when there is one more.
    used: ArcSwap<ByHash<Arc<Used<T>>>>,
    hash: RandomState,
}

struct Used<T> {
    values: Vec<Box<str>>,
    thing: T,
}

impl<T> Known<T> {
    pub(super) fn new(labels: &'static [&'static str], ceilings: &Ceilings) -> Self {
        let ceilings = Arc::clone(ceilings);
        Self { labels, ceilings, used: ArcSwap::default(), hash: RandomState::default() }
    }

    /// Does something with the thing of these values, which `make` makes when there is none. Nothing happens if it cannot, or
    /// if the number of values is wrong.
    pub(super) fn with<R>(
        &self,
        values: &[&str],
        make: impl FnOnce(&[&str]) -> Option<T>,
        act: impl FnOnce(&T) -> R,
    ) -> Option<R> {
        let key = self.hash.hash_one(values);
        if let Some(used) = self.used.load().get(&key).filter(|used| used.has(values)) {
            return Some(act(&used.thing));
        }
        self.add(values, make).map(|used| act(&used.thing))
    }

    #[cold]
    fn add(&self, values: &[&str], make: impl FnOnce(&[&str]) -> Option<T>) -> Option<Arc<Used<T>>> {
        if values.len() != self.labels.len() || values.len() > LABELS_MAX {
            return None;
        }
        let mut capped = [OTHER; LABELS_MAX];
        for ((place, value), label) in capped.iter_mut().zip(values).zip(self.labels) {
            let ceiling = self.ceilings.iter().find(|(name, _)| name == label);
            *place = ceiling.map_or(*value, |(_, names)| names.admit(value));
        }
        if self.used.load().len() >= SERIES_MAX {
            capped = [OTHER; LABELS_MAX];
        }
        let capped = capped.get(..values.len())?;
        let key = self.hash.hash_one(capped);
        if let Some(used) = self.used.load().get(&key).filter(|used| used.has(capped)) {
            return Some(Arc::clone(used));
        }
        let values = capped.iter().map(|value| Box::from(*value)).collect();
        let added = Arc::new(Used { values, thing: make(capped)? });
        self.used.rcu(|used| {
            let mut used = ByHash::clone(used);
            used.insert(key, Arc::clone(&added));
            used
        });
        Some(added)
    }
}

impl<T> Used<T> {
    fn has(&self, values: &[&str]) -> bool {
        self.values.iter().map(|value| &**value).eq(values.iter().copied())
    }
}

/// One metric: its series by the values of its labels.
pub(super) struct Series<V: Labelled> {
    all: V,
    known: Known<V::Metric>,
}

impl<V: Labelled> Series<V> {
    pub(super) fn new(
        all: V,
        family: Family,
        registry: &Registry,
        ceilings: &Ceilings,
    ) -> Result<Self, prometheus::Error> {
        registry.register(Box::new(all.clone()))?;
        Ok(Self { all, known: Known::new(family.labels, ceilings) })
    }

    /// The metric itself.
    pub(super) fn all(&self) -> &V {
        &self.all
    }

    /// Does something with the series that has these values; nothing when their number is wrong.
    pub(super) fn with(&self, values: &[&str], act: impl FnOnce(&V::Metric)) {
        self.known.with(values, |values| self.all.metric(values), act);
    }

    /// The series that has these values, to be kept.
    pub(super) fn of(&self, values: &[&str]) -> Option<V::Metric> {
        self.known.with(values, |values| self.all.metric(values), V::Metric::clone)
    }
}

/// Values by a hash that is one already, and need not be hashed again.
type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

/// Takes a hash as it is.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for completeness: a u64 comes by `write_u64`.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_over_the_ceiling_of_their_label_are_one_and_the_others_keep_their_names() {
        let ceilings: Ceilings = Arc::new([("model", Names::new(3))]);
        let known = Known::new(&["vendor", "model"], &ceilings);
        let shown = |values: &[&str]| known.with(values, |values| Some(values.join("/")), Clone::clone);
        for (model, expected) in [("a", "v/a"), ("b", "v/b"), ("c", "v/c"), ("d", "v/other"), ("e", "v/other")] {
            assert_eq!(shown(&["v", model]).as_deref(), Some(expected));
        }
        assert_eq!(shown(&["w", "b"]).as_deref(), Some("w/b"), "a name that is known is known everywhere");
        assert_eq!(shown(&["w", ""]).as_deref(), Some("w/"));
        assert_eq!(shown(&["v"]), None, "a wrong number of values counts nothing");
    }

    #[test]
    fn a_metric_has_a_ceiling_over_all_of_its_labels() {
        let known = Known::new(&["what"], &(Arc::new([]) as Ceilings));
        for number in 0..SERIES_MAX + 5 {
            let name = number.to_string();
            let shown = known.with(&[&name], |values| values.first().map(ToString::to_string), Clone::clone);
            assert_eq!(shown.as_deref(), Some(if number < SERIES_MAX { name.as_str() } else { OTHER }));
        }
    }
}
