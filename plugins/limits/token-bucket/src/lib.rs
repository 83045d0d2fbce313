// SPDX-License-Identifier: Apache-2.0
//! Requests and tokens per minute: says which counters a call is charged to; the host keeps them, refills them smoothly and
//! corrects the tokens when the true usage is known.

use penstock_sdk::prelude::{Algorithm, Call, Check, Config, Counted, Fault, Issue, Limits, Wants};
use penstock_sdk::rules;
use penstock_sdk::scope::{self, Per, takes};

const MINUTE_MS: u64 = 60_000;

/// The rules of the policy; those that operators keep as data come to them. A call is charged to every rule that matches it, and needs room in all of them.
#[derive(Debug, Config)]
pub struct Options {
    /// The rules.
    #[config(default)]
    rules: Vec<Rule>,
}

/// One limit, or two: give at least one of `requests_per_minute` and `tokens_per_minute`.
#[derive(Debug, Config)]
pub struct Rule {
    /// A name that keeps the counters when rules are added or moved; the position of the rule by default.
    name: Option<String>,
    /// What has counters of its own; one counter for everybody if empty.
    #[config(default)]
    per: Vec<Per>,
    /// Calls in a minute.
    #[config(min = 1)]
    requests_per_minute: Option<u64>,
    /// Input and output tokens in a minute.
    #[config(min = 1)]
    tokens_per_minute: Option<u64>,
    /// Calls at once: what a full bucket holds; as many as there are in a minute by default.
    #[config(min = 1)]
    burst: Option<u64>,
    /// Tokens at once; as many as there are in a minute by default.
    #[config(min = 1)]
    tokens_burst: Option<u64>,
    /// Only calls of these models; `*` stands for any text.
    #[config(default)]
    models: Vec<String>,
    /// Only calls of these subjects; `*` stands for any text.
    #[config(default)]
    subjects: Vec<String>,
}

/// The plugin.
#[derive(Debug)]
pub struct TokenBucket(Vec<Rule>);

impl Limits for TokenBucket {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        for (index, rule) in options.rules.iter().enumerate() {
            let at = |field: &str| format!("rules[{index}]{field}");
            if rule.requests_per_minute.is_none() && rule.tokens_per_minute.is_none() {
                issues.push(Issue::new(at(""), "give `requests_per_minute`, `tokens_per_minute`, or both"));
            }
            for (burst, limit, name, of) in [
                (rule.burst, rule.requests_per_minute, ".burst", "requests_per_minute"),
                (rule.tokens_burst, rule.tokens_per_minute, ".tokens_burst", "tokens_per_minute"),
            ] {
                if burst.is_some() && limit.is_none() {
                    issues.push(Issue::new(at(name), format!("this is a part of `{of}`: give that, too")));
                }
            }
            issues.extend(scope::repeated_name(options.rules.iter().map(|rule| rule.name.as_deref()), index));
        }
        if issues.is_empty() { Ok(Self(options.rules)) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        scope::alike(self.0.iter().flat_map(|rule| &rule.per))
    }

    fn plan(&self, call: &Call) -> Result<Vec<Check>, Fault> {
        let kept = rules::of_call()?.into_iter().filter(|rule| rule.algorithm == Algorithm::TokenBucket);
        let matching = self.0.iter().enumerate().filter(|(_, rule)| rule.matches(call));
        Ok(matching.flat_map(|(index, rule)| rule.checks(index, call)).chain(kept.map(Check::from)).collect())
    }
}

impl Rule {
    fn matches(&self, call: &Call) -> bool {
        takes(&self.models, &call.model) && takes(&self.subjects, call.subject.as_deref().unwrap_or_default())
    }

    fn checks(&self, index: usize, call: &Call) -> impl Iterator<Item = Check> {
        let key = scope::key(self.name.as_deref(), index, &self.per, call);
        let words = scope::words(&self.per);
        let check = move |counted: Counted, limit: Option<u64>, burst: Option<u64>| {
            limit.map(|limit| Check {
                key: format!("{key}/{}", counted.name()),
                algorithm: Algorithm::TokenBucket,
                counted,
                limit,
                window_ms: MINUTE_MS,
                burst: burst.unwrap_or_default(),
                label: format!("{limit} {} per minute{words}", counted.name()),
            })
        };
        let requests = check(Counted::Requests, self.requests_per_minute, self.burst);
        let tokens = check(Counted::Tokens, self.tokens_per_minute, self.tokens_burst);
        requests.into_iter().chain(tokens)
    }
}

penstock_sdk::limits!(TokenBucket);

#[cfg(test)]
mod tests {
    use super::TokenBucket;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<TokenBucket>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
