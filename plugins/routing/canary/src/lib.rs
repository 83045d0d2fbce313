// SPDX-License-Identifier: Apache-2.0
//! Sends a share of the calls to targets that are on trial, always the same callers, and whoever asks for it by a header.
//! Where a trial fails, the call goes on to the proven targets.

use penstock_sdk::prelude::{Call, Config, Fault, Issue, Order, Routing, Target, Wants};
use penstock_sdk::random::{Random, hash};

/// Hundredths of a percent in a whole.
const WHOLE: u64 = 10_000;

/// Who tries what.
#[derive(Debug, Config)]
pub struct Options {
    /// Targets on trial: `vendor/model`, or the address of a service's endpoint.
    #[config(min = 1)]
    targets: Vec<String>,
    /// Calls in a hundred that go there.
    #[config(default = 0.0, min = 0.0, max = 100.0)]
    percent: f64,
    /// A request header that decides for a call: `1`, `true`, `yes`, `always` for the trial; `0`, `false`, `no`, `never` against it.
    #[config(default = "x-canary")]
    header: String,
    /// A caller is always on the same side; without it, chance decides for each call.
    #[config(default = true)]
    by_caller: bool,
}

/// The plugin.
#[derive(Debug)]
pub struct Canary {
    targets: Vec<String>,
    /// In hundredths of a percent.
    share: u64,
    header: String,
    by_caller: bool,
}

impl Routing for Canary {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let Options { targets, percent, header, by_caller } = options;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
        let share = (percent * 100.0).round() as u64;
        Ok(Self { targets, share, header: header.to_ascii_lowercase(), by_caller })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers([self.header.as_str()].into_iter().filter(|name| !name.is_empty()))
    }

    fn rank(&self, call: &Call, targets: &[Target], seed: u64) -> Result<Order, Fault> {
        let tries = self.tries(call, seed);
        let on_trial = |target: &Target| self.targets.contains(&target.id);
        let key = |target: &Target| (!target.healthy, on_trial(target) != tries, target.priority);
        Ok(Order::by_key(targets, key, |target| target.weight))
    }
}

impl Canary {
    /// Whether a call goes to the targets on trial.
    fn tries(&self, call: &Call, seed: u64) -> bool {
        match call.fact(&format!("header.{}", self.header)).map(|value| value.trim().to_ascii_lowercase()).as_deref() {
            Some("1" | "true" | "yes" | "always") => return true,
            Some("0" | "false" | "no" | "never") => return false,
            _ => {}
        }
        let point = match call.subject.as_deref().filter(|_| self.by_caller) {
            // With the names of the targets, so that not always the same callers try what is new.
            Some(subject) => hash(&["canary", subject, &self.targets.join(" ")]) % WHOLE,
            None => Random::new(seed).below(WHOLE),
        };
        point < self.share
    }
}

penstock_sdk::routing!(Canary);

#[cfg(test)]
mod tests {
    use penstock_sdk::prelude::{Call, Routing, Target};

    use super::{Canary, Options};

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Canary>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }

    #[test]
    fn a_share_of_the_callers_tries_and_stays_with_it() {
        let options =
            Options { targets: vec!["new".into()], percent: 12.5, header: "x-canary".into(), by_caller: true };
        let plugin = Canary::new(options).unwrap();
        let targets = ["old", "new"].map(|id| Target { id: id.to_owned(), ..Target::default() });
        let mut tried = 0_u32;
        for caller in 0..4_000 {
            let call = Call { subject: Some(caller.to_string()), ..Call::default() };
            let first = |seed| plugin.rank(&call, &targets, seed).unwrap().groups()[0][0].target;
            assert_eq!(first(1), first(2));
            tried += u32::try_from(first(1)).unwrap();
        }
        assert!(tried.abs_diff(500) < 100, "{tried}");
    }
}
