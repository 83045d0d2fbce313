// SPDX-License-Identifier: Apache-2.0
//! The limits and budgets of the directory, as the rules that a call is under.

use std::sync::Arc;

use super::Principal;
use super::limits::Rulebook;
use crate::directory::Directory;
use crate::directory::rules::{Asked, Rule as Kept};
use crate::plugin::types::{Call, Counted, Rule};
use crate::state::charge::Algorithm;

impl Rulebook for Directory {
    /// Those of the virtual key that was used, and of its team. An attempt at a vendor is under none of them: the call has been
    /// charged already.
    fn of_call(&self, principal: &Principal, call: &Call<'_>) -> Arc<[Rule]> {
        let fact = |wanted: &str| call.facts.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let Some(key) = principal.key.as_ref().filter(|_| fact("vendor").is_none()) else { return Arc::default() };
        let route = fact("route").unwrap_or_default();
        let asked = Asked { model: call.model, route };
        key.rules_of(asked).filter_map(|rule| rule_of(rule, asked)).collect()
    }
}

fn rule_of(rule: &Kept, asked: Asked<'_>) -> Option<Rule> {
    Some(Rule {
        scope: rule.counter(asked),
        algorithm: Algorithm::of_name(rule.algorithm)?,
        counted: Counted::of_name(rule.counted)?,
        limit: rule.limit,
        window_ms: rule.window_ms,
        burst: rule.burst,
        label: Arc::clone(&rule.label),
    })
}
