// SPDX-License-Identifier: Apache-2.0
//! Sends a call where it costs least, by the price table of the gateway: the price of input and output, weighted as calls
//! usually have them. Among targets of one price the order of their priority holds, then chance.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Order, Routing, Target, Wants};

/// How to compare.
#[derive(Debug, Config)]
pub struct Options {
    /// Tokens in a hundred that are output, in calls as they usually are.
    #[config(default = 25, max = 100)]
    output_percent: u32,
    /// Where targets stand whose price nobody knows.
    #[config(default)]
    unknown: Unknown,
}

/// Where targets without a price stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Config)]
pub enum Unknown {
    /// Behind those with one.
    #[default]
    Last,
    /// Before them: for models of one's own, which cost nothing.
    First,
}

/// The plugin.
#[derive(Debug)]
pub struct Cost(Options);

impl Routing for Cost {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn wants(&self) -> Wants {
        Wants::nothing().facts(["prices"]).alike([""])
    }

    fn rank(&self, _: &Call, targets: &[Target], _seed: u64) -> Result<Order, Fault> {
        let key = |target: &Target| {
            let price = self.price(target);
            let unknown_last = price.is_none() && self.0.unknown == Unknown::Last;
            // Prices are not negative, so their bits are in their order.
            (!target.healthy, unknown_last, price.map(f64::to_bits), target.priority)
        };
        Ok(Order::by_key(targets, key, |_| 1))
    }
}

impl Cost {
    /// What a million tokens of the usual mix cost; none if the price of input is not known.
    fn price(&self, target: &Target) -> Option<f64> {
        let price = |name: &str| target.fact(name)?.parse::<f64>().ok();
        let share = f64::from(self.0.output_percent) / 100.0;
        let input = price("input-price")?;
        // Embeddings have no output.
        Some(input * (1.0 - share) + price("output-price").unwrap_or(0.0) * share)
    }
}

penstock_sdk::routing!(Cost);

#[cfg(test)]
mod tests {
    use super::Cost;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Cost>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
