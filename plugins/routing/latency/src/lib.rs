// SPDX-License-Identifier: Apache-2.0
//! Sends a call to who answers soonest, by the smoothed time to the first byte. Those that are about as fast as the fastest
//! share the calls, so that the fastest is not run over; who has not been measured yet is asked, and now and then somebody
//! slower, whose time may have become better.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Order, Routing, Target, Wants};
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
        Wants::nothing().alike(["load"])
    }

    fn rank(&self, _: &Call, targets: &[Target], seed: u64) -> Result<Order, Fault> {
        let explores = Random::new(seed).below(100) < u64::from(self.0.explore_percent);
        let healthy = targets.iter().filter(|target| target.healthy && target.latency_ms > 0);
        let fastest = u64::from(healthy.map(|target| target.latency_ms).min().unwrap_or(0));
        let good = fastest + fastest * u64::from(self.0.tolerance_percent) / 100;
        let time = |target: &Target| Some(u64::from(target.latency_ms)).filter(|latency| *latency > good && !explores);
        // What is not healthy is the last resort. Who explores goes by chance alone.
        Ok(Order::by_key(targets, |target| (!target.healthy, time(target)), |_| 1))
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
        let mut explored = 0;
        for seed in 0..8_000 {
            let order = plugin.rank(&Call::default(), &targets, seed).unwrap();
            let groups: Vec<Vec<usize>> =
                order.groups().iter().map(|group| group.iter().map(|share| share.target).collect()).collect();
            match groups.len() {
                1 => explored += 1,
                _ => assert_eq!(groups, [vec![0, 1, 2], vec![3]]),
            }
        }
        assert!(800_i32.abs_diff(explored) < 100, "{explored}");
    }
}
