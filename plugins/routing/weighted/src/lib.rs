// SPDX-License-Identifier: Apache-2.0
//! Spreads calls over the targets by their weights. The first target gets its share of the calls, and so on among the rest:
//! a fallback is spread by weight, too.

use penstock_sdk::prelude::{Call, Fault, Issue, Routing, Target, Wants};
use penstock_sdk::random::Random;

/// The plugin.
#[derive(Debug)]
pub struct Weighted;

impl Routing for Weighted {
    type Config = ();

    fn new((): ()) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }

    fn wants(&self) -> Wants {
        Wants::nothing().alike([""])
    }

    fn rank(&self, _: &Call, targets: &[Target], seed: u64) -> Result<Vec<usize>, Fault> {
        let (mut healthy, mut unhealthy): (Vec<_>, Vec<_>) =
            (0..targets.len()).partition(|index| targets[*index].healthy);
        let mut random = Random::new(seed);
        let mut order = Vec::with_capacity(targets.len());
        for group in [&mut healthy, &mut unhealthy] {
            while !group.is_empty() {
                order.push(group.remove(draw(group, targets, &mut random)));
            }
        }
        Ok(order)
    }
}

/// The position in `group` of the next target, each with a chance of its weight; those of weight 0 come last, in order.
fn draw(group: &[usize], targets: &[Target], random: &mut Random) -> usize {
    let weight = |index: &usize| u64::from(targets[*index].weight);
    let total: u64 = group.iter().map(weight).sum();
    if total == 0 {
        return 0;
    }
    let mut point = random.below(total);
    for (position, index) in group.iter().enumerate() {
        match point.checked_sub(weight(index)) {
            Some(rest) => point = rest,
            None => return position,
        }
    }
    0
}

penstock_sdk::routing!(Weighted);

#[cfg(test)]
mod tests {
    use penstock_sdk::prelude::{Call, Routing, Target};

    use super::Weighted;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Weighted>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn each_target_comes_first_as_often_as_its_weight_says() {
        let targets = [3, 1, 0, 4].map(|weight| Target { weight, ..Target::default() });
        let mut firsts = [0_u32; 4];
        for seed in 0..8_000 {
            firsts[Weighted.rank(&Call::default(), &targets, seed).unwrap()[0]] += 1;
        }
        assert_eq!(firsts[2], 0);
        for (first, expected) in firsts.into_iter().zip([3_000, 1_000, 0, 4_000_u32]) {
            assert!(first.abs_diff(expected) < 200, "{firsts:?}");
        }
    }
}
