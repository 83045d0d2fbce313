// SPDX-License-Identifier: Apache-2.0
//! Limits and budgets that operators keep as data beside the policy. Open to limits plugins.

use penstock_dialects::ir::{Fault, FaultClass};

use crate::policy::{Algorithm, Check, Counted};

/// One limit that the call under way is under (`rules.wit`, `rule`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose limit it is, unlike that of any other rule: the name of the counter.
    pub scope: String,
    /// How it counts.
    pub algorithm: Algorithm,
    /// What it counts.
    pub counted: Counted,
    /// So many within the window.
    pub limit: u64,
    /// Length of the window in milliseconds.
    pub window_ms: u64,
    /// What a full token bucket holds; 0 for `limit`.
    pub burst: u64,
    /// For the caller, when it refuses: which limit it is, in words.
    pub label: String,
}

/// The rules that the call under way is under; none outside of [`Limits::plan`](crate::policy::Limits::plan).
///
/// # Errors
/// A rule of a kind that this SDK does not know: a limit must not be passed over in silence.
pub fn of_call() -> Result<Vec<Rule>, Fault> {
    imp::of_call()
}

impl From<Rule> for Check {
    /// The check of a rule. No name that a plugin gives to its own counters begins with `rule/`.
    fn from(rule: Rule) -> Self {
        Self {
            key: format!("rule/{}", rule.scope),
            algorithm: rule.algorithm,
            counted: rule.counted,
            limit: rule.limit,
            window_ms: rule.window_ms,
            burst: rule.burst,
            label: rule.label,
        }
    }
}

fn known(algorithm: &str, counted: &str) -> Result<(Algorithm, Counted), Fault> {
    Algorithm::of_name(algorithm).zip(Counted::of_name(counted)).ok_or_else(|| {
        let message = format!("this plugin does not know a limit of {counted} by {algorithm}: update it");
        Fault::new(FaultClass::VendorBug, message)
    })
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use penstock_dialects::ir::Fault;

    use super::{Rule, known};
    use crate::guest::bindings::rules;

    pub(super) fn of_call() -> Result<Vec<Rule>, Fault> {
        let rules = rules::of_call().into_iter().map(|rule| {
            let (algorithm, counted) = known(&rule.algorithm, &rule.counted)?;
            let rules::Rule { scope, limit, window_ms, burst, label, .. } = rule;
            Ok(Rule { scope, algorithm, counted, limit, window_ms, burst, label })
        });
        rules.collect()
    }
}

/// In a native test the rules are those of the case.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod imp {
    use std::cell::RefCell;

    use penstock_dialects::ir::Fault;
    use penstock_vectors::case;

    use super::{Rule, known};

    thread_local! {
        static RULES: RefCell<Vec<case::Rule>> = const { RefCell::new(Vec::new()) };
    }

    pub(crate) fn give(rules: &[case::Rule]) {
        RULES.set(rules.to_vec());
    }

    pub(super) fn of_call() -> Result<Vec<Rule>, Fault> {
        let rules = RULES.with_borrow(Clone::clone).into_iter().map(|rule| {
            let (algorithm, counted) = known(&rule.algorithm, &rule.counted)?;
            let case::Rule { scope, limit, window_ms, burst, label, .. } = rule;
            Ok(Rule { scope, algorithm, counted, limit, window_ms, burst, label })
        });
        rules.collect()
    }
}
