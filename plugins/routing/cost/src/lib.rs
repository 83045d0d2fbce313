// SPDX-License-Identifier: Apache-2.0
//! Sends a call where it costs least, by the price table of the gateway: the price of input and output, weighted as calls
//! usually have them. Among targets of one price the order of their priority holds, then chance.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Routing, Target, Wants};
use penstock_sdk::random::Random;

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

    fn rank(&self, _: &Call, targets: &[Target], seed: u64) -> Result<Vec<usize>, Fault> {
        let mut random = Random::new(seed);
        let keys: Vec<(bool, f64, u32, u64)> = targets
            .iter()
            .map(|target| {
                let unknown = if self.0.unknown == Unknown::First { -1.0 } else { f64::INFINITY };
                (!target.healthy, self.price(target).unwrap_or(unknown), target.priority, random.number())
            })
            .collect();
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by(|one, other| {
            let (one, other) = (&keys[*one], &keys[*other]);
            let by_price = one.0.cmp(&other.0).then(one.1.total_cmp(&other.1));
            by_price.then((one.2, one.3).cmp(&(other.2, other.3)))
        });
        Ok(order)
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
