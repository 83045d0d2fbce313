// SPDX-License-Identifier: Apache-2.0
//! Calls at a time. A call holds its place from its admission to the end of its answer, a stream to its last byte.

use penstock_sdk::prelude::{Algorithm, Call, Check, Config, Counted, Fault, Issue, Limits, Wants};
use penstock_sdk::rules;
use penstock_sdk::scope::{self, Per, takes};

/// The rules of the policy; those that operators keep as data come to them. A call needs a place in every rule that matches it.
#[derive(Debug, Config)]
pub struct Options {
    /// The rules.
    #[config(default)]
    rules: Vec<Rule>,
}

/// So many calls at a time.
#[derive(Debug, Config)]
pub struct Rule {
    /// A name that keeps the counters when rules are added or moved; the position of the rule by default.
    name: Option<String>,
    /// What has a counter of its own; one counter for everybody if empty.
    #[config(default)]
    per: Vec<Per>,
    /// Calls at a time.
    #[config(min = 1)]
    calls: u64,
    /// Only calls of these models; `*` stands for any text.
    #[config(default)]
    models: Vec<String>,
    /// Only calls of these subjects; `*` stands for any text.
    #[config(default)]
    subjects: Vec<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct Concurrency(Vec<Rule>);

impl Limits for Concurrency {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let names = || options.rules.iter().map(|rule| rule.name.as_deref());
        let issues: Vec<_> =
            (0..options.rules.len()).filter_map(|index| scope::repeated_name(names(), index)).collect();
        if issues.is_empty() { Ok(Self(options.rules)) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        scope::alike(self.0.iter().flat_map(|rule| &rule.per))
    }

    fn plan(&self, call: &Call) -> Result<Vec<Check>, Fault> {
        let kept = rules::of_call()?.into_iter().filter(|rule| rule.algorithm == Algorithm::Concurrency);
        let matching = self.0.iter().enumerate().filter(|(_, rule)| rule.matches(call));
        Ok(matching.map(|(index, rule)| rule.check(index, call)).chain(kept.map(Check::from)).collect())
    }
}

impl Rule {
    fn matches(&self, call: &Call) -> bool {
        takes(&self.models, &call.model) && takes(&self.subjects, call.subject.as_deref().unwrap_or_default())
    }

    fn check(&self, index: usize, call: &Call) -> Check {
        Check {
            key: scope::key(self.name.as_deref(), index, &self.per, call),
            algorithm: Algorithm::Concurrency,
            counted: Counted::Requests,
            limit: self.calls,
            window_ms: 0,
            burst: 0,
            label: format!("{} calls at a time{}", self.calls, scope::words(&self.per)),
        }
    }
}

penstock_sdk::limits!(Concurrency);

#[cfg(test)]
mod tests {
    use super::Concurrency;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Concurrency>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
