// SPDX-License-Identifier: Apache-2.0
//! Sends a call where the fewest are under way, for the weight of the target. Among equals chance decides, so that gateways
//! that know nothing of each other do not all take the first.

use penstock_sdk::prelude::{Call, Fault, Issue, Routing, Target, Wants};
use penstock_sdk::random::Random;

/// Calls under way are compared in parts of this size, so that weights count.
const PARTS: u64 = 1_000_000;

/// The plugin.
#[derive(Debug)]
pub struct LeastBusy;

impl Routing for LeastBusy {
    type Config = ();

    fn new((): ()) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }

    fn wants(&self) -> Wants {
        Wants::nothing().alike([""])
    }

    fn rank(&self, _: &Call, targets: &[Target], seed: u64) -> Result<Vec<usize>, Fault> {
        let mut random = Random::new(seed);
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_cached_key(|index| {
            let target = &targets[*index];
            let load = u64::from(target.inflight) * PARTS / u64::from(target.weight.max(1));
            // What is not healthy is the last resort, and what has no weight is to be asked only then.
            (!target.healthy, target.weight == 0, load, random.number())
        });
        Ok(order)
    }
}

penstock_sdk::routing!(LeastBusy);

#[cfg(test)]
mod tests {
    use penstock_sdk::prelude::{Call, Routing, Target};

    use super::LeastBusy;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<LeastBusy>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn equals_are_asked_equally_often() {
        let targets = [Target::default(), Target::default(), Target { inflight: 1, ..Target::default() }];
        let mut firsts = [0_u32; 3];
        for seed in 0..2_000 {
            firsts[LeastBusy.rank(&Call::default(), &targets, seed).unwrap()[0]] += 1;
        }
        assert_eq!(firsts[2], 0);
        assert!(firsts[0].abs_diff(1_000) < 120, "{firsts:?}");
    }
}
