// SPDX-License-Identifier: Apache-2.0
//! Tries the targets in order of their priority: the first as long as it works, then the next. Targets of one priority are
//! tried as declared, or spread evenly.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Order, Routing, Target, Wants};

/// How to order.
#[derive(Debug, Config)]
pub struct Options {
    /// Which of the targets of one priority comes first.
    #[config(default)]
    ties: Ties,
}

/// What decides between targets of one priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Config)]
pub enum Ties {
    /// The order of the policy.
    #[default]
    Declared,
    /// Weight: the greatest first.
    Weight,
    /// Calls under way in relation to weight: the least first.
    LeastBusy,
}

/// The plugin.
#[derive(Debug)]
pub struct Priority(Options);

impl Routing for Priority {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn wants(&self) -> Wants {
        Wants::nothing().alike([if self.0.ties == Ties::LeastBusy { "load" } else { "" }])
    }

    fn rank(&self, _: &Call, targets: &[Target], _seed: u64) -> Result<Order, Fault> {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        // What is not healthy is the last resort, whatever its priority.
        order.sort_by_key(|index| {
            let target = &targets[*index];
            let tie = match self.0.ties {
                Ties::Declared => 0,
                Ties::Weight => u64::from(u32::MAX - target.weight),
                Ties::LeastBusy => u64::from(target.inflight) * 1_000 / u64::from(target.weight.max(1)),
            };
            (!target.healthy, target.priority, tie)
        });
        Ok(order.into())
    }
}

penstock_sdk::routing!(Priority);

#[cfg(test)]
mod tests {
    use super::Priority;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Priority>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
