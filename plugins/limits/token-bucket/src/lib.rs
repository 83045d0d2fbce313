// SPDX-License-Identifier: Apache-2.0
//! Requests and tokens per minute: says which counters a call is charged to; the host keeps them, refills them smoothly and
//! corrects the tokens when the true usage is known.

use penstock_sdk::prelude::{Algorithm, Call, Check, Config, Counted, Fault, Issue, Limits};

const MINUTE_MS: u64 = 60_000;

/// The rules. A call is charged to every rule that matches it, and needs room in all of them.
#[derive(Debug, Config)]
pub struct Options {
    /// The rules.
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
    /// Only calls of these models; `*` stands for any text.
    #[config(default)]
    models: Vec<String>,
    /// Only calls of these subjects; `*` stands for any text.
    #[config(default)]
    subjects: Vec<String>,
}

/// What may have a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Config)]
pub enum Per {
    /// Each caller; callers of open routes by their address.
    Subject,
    /// Each group of callers.
    Tenant,
    /// Each model, by the name that callers use.
    Model,
    /// Each route.
    Route,
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
            let earlier = options.rules.iter().take(index).any(|other| other.name == rule.name);
            if let Some(name) = rule.name.as_ref().filter(|_| earlier) {
                issues.push(Issue::new(
                    at(".name"),
                    format!("a rule `{name}` stands above: give each a name of its own"),
                ));
            }
        }
        if issues.is_empty() { Ok(Self(options.rules)) } else { Err(issues) }
    }

    fn plan(&self, call: &Call) -> Result<Vec<Check>, Fault> {
        let matching = self.0.iter().enumerate().filter(|(_, rule)| rule.matches(call));
        Ok(matching.flat_map(|(index, rule)| rule.checks(index, call)).collect())
    }
}

impl Rule {
    fn matches(&self, call: &Call) -> bool {
        let listed = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
        };
        listed(&self.models, &call.model) && listed(&self.subjects, call.subject.as_deref().unwrap_or_default())
    }

    fn checks(&self, index: usize, call: &Call) -> impl Iterator<Item = Check> {
        let key = self.key(index, call);
        let scope = self.scope();
        let check = move |counted: Counted, limit: Option<u64>| {
            limit.map(|limit| Check {
                key: format!("{key}/{}", counted.name()),
                algorithm: Algorithm::TokenBucket,
                counted,
                limit,
                window_ms: MINUTE_MS,
                label: format!("{limit} {} per minute{scope}", counted.name()),
            })
        };
        let requests = check(Counted::Requests, self.requests_per_minute);
        let tokens = check(Counted::Tokens, self.tokens_per_minute);
        requests.into_iter().chain(tokens)
    }

    /// Each part is escaped, so that no choice of names can meet another rule's counter.
    fn key(&self, index: usize, call: &Call) -> String {
        let mut key = match &self.name {
            Some(name) => escape(name),
            None => format!("#{index}"),
        };
        for per in &self.per {
            let (kind, value) = match per {
                Per::Subject => match (&call.subject, call.fact("client-ip")) {
                    (Some(subject), _) => ("subject", subject.as_str()),
                    (None, address) => ("client-ip", address.unwrap_or_default()),
                },
                Per::Tenant => ("tenant", call.tenant.as_deref().unwrap_or_default()),
                Per::Model => ("model", call.model.as_str()),
                Per::Route => ("route", call.fact("route").unwrap_or_default()),
            };
            key.push_str(&format!("/{kind}={}", escape(value)));
        }
        key
    }

    /// " for this key and model"
    fn scope(&self) -> String {
        let names: Vec<_> = self
            .per
            .iter()
            .map(|per| match per {
                Per::Subject => "key",
                Per::Tenant => "tenant",
                Per::Model => "model",
                Per::Route => "route",
            })
            .collect();
        if names.is_empty() {
            " for all callers together".to_owned()
        } else {
            format!(" for this {}", names.join(" and "))
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('/', "%2F").replace('#', "%23")
}

/// Whether `text` is of the form of `pattern`, where `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
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
