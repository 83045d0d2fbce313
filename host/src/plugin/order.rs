// SPDX-License-Identifier: Apache-2.0
//! The order in which a routing plugin wants targets tried. Chance is the host's: so one answer can hold for many calls.

/// A target to try, as one of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index of the target.
    pub target: usize,
    /// Its chance, in proportion to the weights of those of its group that are left.
    pub weight: u32,
}

/// Groups of targets, the first to be tried first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order(pub Vec<Vec<Share>>);

impl Order {
    /// Draws within each group by weight; what has weight 0 comes after the others, as listed. `below` answers with a random
    /// number below its argument.
    pub fn drawn(&self, mut below: impl FnMut(u64) -> u64) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.0.iter().map(Vec::len).sum());
        for group in &self.0 {
            let begin = order.len();
            order.extend(0..group.len());
            // Those that are left stand behind those that are drawn, in their order.
            for at in begin..order.len() {
                let left = &mut order[at..];
                let drawn = if left.len() > 1 { draw(group, left, &mut below) } else { 0 };
                left[..=drawn].rotate_right(1);
            }
            for place in &mut order[begin..] {
                *place = group[*place].target;
            }
        }
        order
    }
}

/// The position in `left` of the next one.
fn draw(group: &[Share], left: &[usize], below: &mut impl FnMut(u64) -> u64) -> usize {
    let weight = |position: &usize| u64::from(group[*position].weight);
    let total: u64 = left.iter().map(weight).sum();
    let mut point = if total == 0 { return 0 } else { below(total) };
    for (place, position) in left.iter().enumerate() {
        match point.checked_sub(weight(position)) {
            Some(rest) => point = rest,
            None => return place,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn order(groups: &[&[(usize, u32)]]) -> Order {
        let share = |(target, weight): &(usize, u32)| Share { target: *target, weight: *weight };
        Order(groups.iter().map(|group| group.iter().map(share).collect()).collect())
    }

    #[test]
    fn each_target_comes_first_as_often_as_its_weight_says() {
        let order = order(&[&[(4, 3), (2, 1), (0, 0), (3, 4)], &[(1, 9)]]);
        let mut firsts = [0_u32; 5];
        for _ in 0..8_000 {
            let drawn = order.drawn(random::below);
            assert_eq!((drawn[3], drawn[4]), (0, 1), "weight 0 after the others, the next group after all");
            firsts[drawn[0]] += 1;
        }
        for (first, expected) in firsts.into_iter().zip([0, 0, 1_000, 4_000, 3_000_u32]) {
            assert!(first.abs_diff(expected) < 250, "{firsts:?}");
        }
    }

    #[test]
    fn the_rest_of_a_group_is_drawn_by_weight_too_and_without_weights_stays_as_listed() {
        let thirds = order(&[&[(0, 1_000_000), (1, 1), (2, 3)]]);
        let seconds = (0..4_000).filter(|_| thirds.drawn(random::below)[1] == 2).count();
        assert!(seconds.abs_diff(3_000) < 200, "{seconds}");
        assert_eq!(order(&[&[(2, 0), (0, 0), (1, 0)]]).drawn(random::below), [2, 0, 1]);
        assert!(order(&[]).drawn(random::below).is_empty());
    }
}
