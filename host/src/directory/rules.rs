// SPDX-License-Identifier: Apache-2.0
//! Limits and budgets of keys and teams, as limits plugins are to know them. They are laid out when the directory changes;
//! a call only picks those that hold for it.

use std::collections::HashMap;
use std::sync::Arc;

use super::document::Kind;
use super::settings::{Algorithm, Counted, Per, Settings, Team, VirtualKey as Key};
use super::view::{View, VirtualKey, matches_any};

/// One limit or budget of a key or team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Id of the limit or budget.
    pub id: String,
    /// What a caller who is over it reads.
    pub label: Arc<str>,
    /// Who it holds for, `key:ID` or `team:ID`, and its id: the counter of a call that is not counted apart by model or route.
    pub scope: Arc<str>,
    /// `requests`, `tokens`, `input-tokens`, `output-tokens`, or `cost` in nano-dollars.
    pub counted: &'static str,
    /// `token-bucket`, `fixed-window`, `sliding-window`, `total` (for ever), or `concurrency`.
    pub algorithm: &'static str,
    /// How much, in what is counted.
    pub limit: u64,
    /// How much at once, for token buckets; the limit for all else.
    pub burst: u64,
    /// In which time, in milliseconds; 0 for ever.
    pub window_ms: u64,
    /// A counter for each model.
    pub per_model: bool,
    /// A counter for each route.
    pub per_route: bool,
    models: Option<Vec<String>>,
    routes: Option<Vec<String>>,
}

/// What a rule looks at of a call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The model, by the name that the caller uses.
    pub model: &'a str,
    /// The route.
    pub route: &'a str,
}

impl Rule {
    /// Whether it holds for a call.
    #[must_use]
    pub fn holds_for(&self, asked: Asked<'_>) -> bool {
        let holds = |list: &Option<Vec<String>>, name: &str| list.as_ref().is_none_or(|list| matches_any(list, name));
        holds(&self.models, asked.model) && holds(&self.routes, asked.route)
    }

    /// The name of the counter that a call is charged to.
    #[must_use]
    pub fn counter(&self, asked: Asked<'_>) -> Arc<str> {
        if !self.per_model && !self.per_route {
            return Arc::clone(&self.scope);
        }
        let mut name = self.scope.to_string();
        for (each, of) in [(self.per_model, asked.model), (self.per_route, asked.route)] {
            if each {
                name.push('/');
                name.push_str(of);
            }
        }
        name.into()
    }
}

impl VirtualKey {
    /// The rules that hold for a call with this key.
    pub fn rules_of<'k>(&'k self, asked: Asked<'k>) -> impl Iterator<Item = &'k Arc<Rule>> {
        self.rules.iter().filter(move |rule| rule.holds_for(asked))
    }
}

/// The rules of all limits and budgets, without a scope.
pub(super) struct Rules {
    limits: HashMap<String, Rule>,
    budgets: HashMap<String, Rule>,
    /// Ids of the limits that hold for keys without limits of their own.
    default: Vec<String>,
}

impl Rules {
    pub(super) fn of(view: &View) -> Self {
        let limits = view
            .iter(Kind::Limit)
            .filter_map(|document| Some((document.id.clone(), of_limit(&document.id, &document.settings)?)));
        let budgets = view
            .iter(Kind::Budget)
            .filter_map(|document| Some((document.id.clone(), of_budget(&document.id, &document.settings)?)));
        let is_default = |settings: &Settings| matches!(settings, Settings::Limit(limit) if limit.default);
        let default = view.iter(Kind::Limit).filter(|document| is_default(&document.settings));
        Self {
            limits: limits.collect(),
            budgets: budgets.collect(),
            default: default.map(|limit| limit.id.clone()).collect(),
        }
    }

    /// Those of a key and of its team.
    pub(super) fn of_key(&self, id: &str, key: &Key, team: Option<&Team>) -> Vec<Arc<Rule>> {
        let own = if key.limits.is_empty() { &self.default } else { &key.limits };
        let scope = format!("key:{id}");
        let mut rules = self.scoped(&scope, own, &key.budgets);
        if let (Some(team), Some(id)) = (team, &key.team) {
            rules.extend(self.scoped(&format!("team:{id}"), &team.limits, &team.budgets));
        }
        rules
    }

    fn scoped(&self, scope: &str, limits: &[String], budgets: &[String]) -> Vec<Arc<Rule>> {
        let limits = limits.iter().filter_map(|id| self.limits.get(id));
        let rules = limits.chain(budgets.iter().filter_map(|id| self.budgets.get(id)));
        rules.map(|rule| Arc::new(Rule { scope: format!("{scope}/{}", rule.id).into(), ..rule.clone() })).collect()
    }
}

/// None for a limit that does not hold.
fn of_limit(id: &str, settings: &Settings) -> Option<Rule> {
    let Settings::Limit(limit) = settings else { return None };
    let is_concurrency = limit.counted == Counted::Concurrency;
    let rule = Rule {
        id: id.to_owned(),
        label: label("limit", id, &limit.name),
        scope: Arc::default(),
        counted: match limit.counted {
            Counted::Requests | Counted::Concurrency => "requests",
            Counted::Tokens => "tokens",
            Counted::InputTokens => "input-tokens",
            Counted::OutputTokens => "output-tokens",
        },
        algorithm: match limit.algorithm {
            _ if is_concurrency => "concurrency",
            Algorithm::TokenBucket => "token-bucket",
            Algorithm::FixedWindow => "fixed-window",
            Algorithm::SlidingWindow => "sliding-window",
        },
        limit: limit.limit,
        burst: limit.burst.unwrap_or(limit.limit),
        window_ms: if is_concurrency { 0 } else { limit.window_s * 1000 },
        per_model: limit.per.contains(&Per::Model),
        per_route: limit.per.contains(&Per::Route),
        models: limit.models.clone(),
        routes: limit.routes.clone(),
    };
    limit.enabled.then_some(rule)
}

/// None for a budget that does not hold.
fn of_budget(id: &str, settings: &Settings) -> Option<Rule> {
    let Settings::Budget(budget) = settings else { return None };
    let rule = Rule {
        id: id.to_owned(),
        label: label("budget", id, &budget.name),
        scope: Arc::default(),
        counted: "cost",
        algorithm: if budget.window_s.is_some() { "fixed-window" } else { "total" },
        limit: budget.nano_usd(),
        burst: budget.nano_usd(),
        window_ms: budget.window_s.map_or(0, |window| window * 1000),
        per_model: false,
        per_route: false,
        models: budget.models.clone(),
        routes: None,
    };
    budget.enabled.then_some(rule)
}

fn label(what: &str, id: &str, name: &str) -> Arc<str> {
    if name.is_empty() { format!("the {what} {id}").into() } else { format!("the {what} {name:?}").into() }
}
