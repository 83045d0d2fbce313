// SPDX-License-Identifier: Apache-2.0
//! Tries the fastest target first.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Order, Routing, Target};

/// What operators configure; these comments are what they read.
#[derive(Debug, Config)]
pub struct Options {
    /// How long a target is taken to need that has not been tried yet, in milliseconds.
    #[config(default = 500)]
    unknown_ms: u32,
}

/// The plugin.
#[derive(Debug)]
pub struct MyPlugin(Options);

impl Routing for MyPlugin {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn rank(&self, _: &Call, targets: &[Target], _seed: u64) -> Result<Order, Fault> {
        let latency_ms = |target: &Target| if target.latency_ms == 0 { self.0.unknown_ms } else { target.latency_ms };
        // Those that are equally fast share the calls by their weights.
        Ok(Order::by_key(targets, |target| (!target.healthy, latency_ms(target)), |target| target.weight))
    }
}

penstock_sdk::routing!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::MyPlugin;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<MyPlugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
