// SPDX-License-Identifier: Apache-2.0
//! Sends a call to who answers soonest, by the smoothed time to the first byte. Those that are about as fast as the fastest
//! share the calls, so that the fastest is not run over; who has not been measured yet is asked, and now and then somebody
//! slower, whose time may have become better.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Routing, Target, Wants};
use penstock_sdk::random::Random;

/// How to choose.
#[derive(Debug, Config)]
pub struct Options {
    /// Targets that are at most so much slower than the fastest are as good as it, in percent.
    #[config(default = 20, max = 1000)]
    tolerance_percent: u32,
    /// Calls in a hundred that go to any healthy target, to measure it anew.
    #[config(default = 5, max = 100)]
    explore_percent: u32,
}

/// The plugin.
#[derive(Debug)]
pub struct Latency(Options);

impl Routing for Latency {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn wants(&self) -> Wants {
        Wants::nothing().alike([""])
    }

    fn rank(&self, _: &Call, targets: &[Target], seed: u64) -> Result<Vec<usize>, Fault> {
        let mut random = Random::new(seed);
        let explores = random.below(100) < u64::from(self.0.explore_percent);
        let healthy = targets.iter().filter(|target| target.healthy && target.latency_ms > 0);
        let fastest = u64::from(healthy.map(|target| target.latency_ms).min().unwrap_or(0));
        let good = fastest + fastest * u64::from(self.0.tolerance_percent) / 100;
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_cached_key(|index| {
            let target = &targets[*index];
            let latency = u64::from(target.latency_ms);
            let time = if latency <= good { 0 } else { latency };
            let chance = random.number();
            // What is not healthy is the last resort. Who explores goes by chance alone.
            if explores { (!target.healthy, 0, chance) } else { (!target.healthy, time, chance) }
        });
        Ok(order)
    }
}

penstock_sdk::routing!(Latency);

#[cfg(test)]
mod tests {
    use penstock_sdk::prelude::{Call, Routing, Target};

    use super::{Latency, Options};

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Latency>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn the_fast_share_the_calls_and_the_slow_are_measured_now_and_then() {
        let plugin = Latency(Options { tolerance_percent: 20, explore_percent: 10 });
        let targets = [100, 115, 0, 900].map(|latency_ms| Target { latency_ms, ..Target::default() });
        let mut firsts = [0_u32; 4];
        for seed in 0..8_000 {
            firsts[plugin.rank(&Call::default(), &targets, seed).unwrap()[0]] += 1;
        }
        for fast in &firsts[..3] {
            assert!(fast.abs_diff(2_600) < 250, "{firsts:?}");
        }
        assert!(firsts[3].abs_diff(200) < 80, "{firsts:?}");
    }
}
