// SPDX-License-Identifier: Apache-2.0
//! Tries the fastest target first.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Routing, Target};

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

    fn rank(&self, _: &Call, targets: &[Target], _seed: u64) -> Result<Vec<usize>, Fault> {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|index| {
            let target = &targets[*index];
            let latency_ms = if target.latency_ms == 0 { self.0.unknown_ms } else { target.latency_ms };
            (!target.healthy, latency_ms)
        });
        Ok(order)
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
