// SPDX-License-Identifier: Apache-2.0
//! Sends a call where the fewest are under way, for the weight of the target. Among equals chance decides, so that gateways
//! that know nothing of each other do not all take the first.

use penstock_sdk::prelude::{Call, Fault, Issue, Order, Routing, Target, Wants};

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
        Wants::nothing().alike(["load"])
    }

    fn rank(&self, _: &Call, targets: &[Target], _seed: u64) -> Result<Order, Fault> {
        let load = |target: &Target| u64::from(target.inflight) * PARTS / u64::from(target.weight.max(1));
        // What is not healthy is the last resort, and what has no weight is to be asked only then.
        Ok(Order::by_key(targets, |target| (!target.healthy, target.weight == 0, load(target)), |_| 1))
    }
}

penstock_sdk::routing!(LeastBusy);

#[cfg(test)]
mod tests {
    use super::LeastBusy;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<LeastBusy>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
