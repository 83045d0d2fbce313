// SPDX-License-Identifier: Apache-2.0
//! The order in which a routing plugin wants targets tried.

use crate::policy::Target;

/// Groups of targets, the first to be tried first. Within a group the host draws by weight, for each call anew: chance is not
/// the plugin's, and so one answer can hold for many calls ([`Wants::alike`](crate::call::Wants::alike)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order(Vec<Vec<Share>>);

/// A target to try, as one of a group (`routing.wit`, `share`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index of the target.
    pub target: usize,
    /// Its chance to be the next of its group, in proportion to the weights of those that are left; those of weight 0 come
    /// after the others, as listed.
    pub weight: u32,
}

impl Order {
    /// All targets, those with the least `key` first; those with the same key are drawn by `weight`.
    #[must_use]
    pub fn by_key<K: Ord>(targets: &[Target], key: impl Fn(&Target) -> K, weight: impl Fn(&Target) -> u32) -> Self {
        let mut keyed: Vec<(K, Share)> = targets
            .iter()
            .enumerate()
            .map(|(index, target)| (key(target), Share { target: index, weight: weight(target) }))
            .collect();
        keyed.sort_by(|(one, _), (other, _)| one.cmp(other));
        let groups = keyed.chunk_by(|(one, _), (other, _)| one == other);
        Self(groups.map(|group| group.iter().map(|(_, share)| *share).collect()).collect())
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[Vec<Share>] {
        &self.0
    }
}

/// Indices of targets, one after another.
impl FromIterator<usize> for Order {
    fn from_iter<I: IntoIterator<Item = usize>>(targets: I) -> Self {
        Self(targets.into_iter().map(|target| vec![Share { target, weight: 1 }]).collect())
    }
}

/// Indices of targets, one after another.
impl From<Vec<usize>> for Order {
    fn from(targets: Vec<usize>) -> Self {
        targets.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_one_key_are_one_group_in_the_order_of_the_policy() {
        let targets =
            [(2, 1), (1, 5), (2, 3)].map(|(priority, weight)| Target { priority, weight, ..Target::default() });
        let order = Order::by_key(&targets, |target| target.priority, |target| target.weight);
        let groups: Vec<Vec<(usize, u32)>> = order
            .groups()
            .iter()
            .map(|group| group.iter().map(|share| (share.target, share.weight)).collect())
            .collect();
        assert_eq!(groups, [vec![(1, 5)], vec![(0, 1), (2, 3)]]);
        assert_eq!(Order::by_key(&[], |_| 0, |_| 1), Order::default());
    }
}
