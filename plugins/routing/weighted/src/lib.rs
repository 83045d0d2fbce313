// SPDX-License-Identifier: Apache-2.0
//! Spreads calls over the targets by their weights. The first target gets its share of the calls, and so on among the rest:
//! a fallback is spread by weight, too.

use penstock_sdk::prelude::{Call, Fault, Issue, Order, Routing, Target, Wants};

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

    fn rank(&self, _: &Call, targets: &[Target], _seed: u64) -> Result<Order, Fault> {
        Ok(Order::by_key(targets, |target| !target.healthy, |target| target.weight))
    }
}

penstock_sdk::routing!(Weighted);

#[cfg(test)]
mod tests {
    use super::Weighted;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Weighted>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
