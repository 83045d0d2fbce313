// SPDX-License-Identifier: Apache-2.0
//! Budgets: so much money, so many tokens or requests in an hour, a day, a month, or for ever. What a call may cost at most is
//! reserved before it is made, so that a budget is not passed by many calls at once, by long streams or by hanging up.

use penstock_sdk::prelude::{Algorithm, Call, Check, Config, Counted, Fault, Issue, Limits, Wants};
use penstock_sdk::rules;
use penstock_sdk::scope::{self, Per, takes};

const HOUR_MS: u64 = 3_600_000;
/// 10^-9 dollars, in which money is counted.
const NANO: f64 = 1e9;
/// The largest budget that is counted exactly everywhere, in dollars.
const USD_MAX: f64 = 9_000_000.0;

/// The rules of the policy; those that operators keep as data come to them. A call is charged to every rule that matches it, and
/// needs room in all of them.
#[derive(Debug, Config)]
pub struct Options {
    /// The rules.
    #[config(default)]
    rules: Vec<Rule>,
}

/// One budget: give at least one of `usd`, `tokens` and `requests`.
#[derive(Debug, Config)]
pub struct Rule {
    /// A name that keeps the counters when rules are added or moved; the position of the rule by default.
    name: Option<String>,
    /// What has a budget of its own; one budget for everybody if empty.
    #[config(default)]
    per: Vec<Per>,
    /// US dollars.
    usd: Option<f64>,
    /// Input and output tokens.
    #[config(min = 1)]
    tokens: Option<u64>,
    /// Calls.
    #[config(min = 1)]
    requests: Option<u64>,
    /// How long the budget is for.
    window: Window,
    /// Count the hour or day that ends now, instead of that of the clock in UTC.
    #[config(default)]
    sliding: bool,
    /// Only calls of these models; `*` stands for any text.
    #[config(default)]
    models: Vec<String>,
    /// Only calls of these subjects; `*` stands for any text.
    #[config(default)]
    subjects: Vec<String>,
    /// Only calls of these tenants; `*` stands for any text.
    #[config(default)]
    tenants: Vec<String>,
}

/// How long a budget is for. In UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Config)]
pub enum Window {
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A month of the calendar.
    Month,
    /// For ever.
    Total,
}

/// The plugin.
#[derive(Debug)]
pub struct Budget(Vec<Rule>);

impl Limits for Budget {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        for (index, rule) in options.rules.iter().enumerate() {
            let at = |field: &str| format!("rules[{index}]{field}");
            if rule.usd.is_none() && rule.tokens.is_none() && rule.requests.is_none() {
                issues.push(Issue::new(at(""), "give at least one of `usd`, `tokens` and `requests`"));
            }
            if rule.usd.is_some_and(|usd| !(usd > 0.0 && usd <= USD_MAX)) {
                issues.push(Issue::new(at(".usd"), format!("give more than 0 and at most {USD_MAX} dollars")));
            }
            if rule.sliding && matches!(rule.window, Window::Month | Window::Total) {
                issues.push(Issue::new(at(".sliding"), "only an hour and a day can slide"));
            }
            issues.extend(scope::repeated_name(options.rules.iter().map(|rule| rule.name.as_deref()), index));
        }
        if issues.is_empty() { Ok(Self(options.rules)) } else { Err(issues) }
    }

    fn wants(&self) -> Wants {
        scope::alike(self.0.iter().flat_map(|rule| &rule.per))
    }

    fn plan(&self, call: &Call) -> Result<Vec<Check>, Fault> {
        let is_budget = |algorithm| !matches!(algorithm, Algorithm::TokenBucket | Algorithm::Concurrency);
        let kept = rules::of_call()?.into_iter().filter(|rule| is_budget(rule.algorithm));
        let matching = self.0.iter().enumerate().filter(|(_, rule)| rule.matches(call));
        Ok(matching.flat_map(|(index, rule)| rule.checks(index, call)).chain(kept.map(Check::from)).collect())
    }
}

impl Rule {
    fn matches(&self, call: &Call) -> bool {
        takes(&self.models, &call.model)
            && takes(&self.subjects, call.subject.as_deref().unwrap_or_default())
            && takes(&self.tenants, call.tenant.as_deref().unwrap_or_default())
    }

    fn checks(&self, index: usize, call: &Call) -> impl Iterator<Item = Check> {
        let key = scope::key(self.name.as_deref(), index, &self.per, call);
        let (algorithm, window_ms, span) = self.window();
        let usd = self.usd.map(|usd| (Counted::Cost, nano(usd), format!("{usd} USD")));
        let tokens = self.tokens.map(|tokens| (Counted::Tokens, tokens, format!("{tokens} tokens")));
        let requests = self.requests.map(|requests| (Counted::Requests, requests, format!("{requests} requests")));
        let words = scope::words(&self.per);
        usd.into_iter().chain(tokens).chain(requests).map(move |(counted, limit, amount)| Check {
            key: key.clone(),
            algorithm,
            counted,
            limit,
            window_ms,
            burst: 0,
            label: format!("the budget of {amount}{span}{words}"),
        })
    }

    fn window(&self) -> (Algorithm, u64, &'static str) {
        let fixed = if self.sliding { Algorithm::SlidingWindow } else { Algorithm::FixedWindow };
        match self.window {
            Window::Hour => (fixed, HOUR_MS, " per hour"),
            Window::Day => (fixed, 24 * HOUR_MS, " per day"),
            Window::Month => (Algorithm::Month, 0, " per month"),
            Window::Total => (Algorithm::Total, 0, " in total"),
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be above zero and far below 2^53"
)]
fn nano(usd: f64) -> u64 {
    ((usd * NANO).round() as u64).max(1)
}

penstock_sdk::limits!(Budget);

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Budget>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
