// SPDX-License-Identifier: Apache-2.0
//! Limits on the way of a request: plugins plan, the state decides about all counters at once, and the ledger's entry
//! settles when the truth is known.

use std::sync::Arc;

use penstock_dialects::ir::Usage;

use super::Principal;
use super::estimate::Estimate;
use crate::failure::{Failure, Kind};
use crate::plugin::Limits;
use crate::plugin::types::{Call, Check, Counted, Rule, Whose};
use crate::state::charge::{Algorithm, Charge};
use crate::state::{Denied, Held, State};

/// How long a caller is told to wait when the shared state is away, in milliseconds.
const AWAY_MS: u64 = 1000;
/// And when there is no room for another budget.
const FULL_MS: u64 = 60_000;

/// Where limits and budgets are kept as data beside the policy.
pub trait Rulebook: Send + Sync {
    /// The rules that a call is under. It is asked for each call on a route with limits, and for each attempt at a vendor with
    /// limits: then the call has the fact `vendor`, and its model is the vendor's. It must not wait.
    fn of_call(&self, principal: &Principal, call: &Call<'_>) -> Arc<[Rule]>;
}

/// What admits calls.
pub struct Gate {
    /// The counters.
    pub state: Arc<State>,
    /// Rules beside the policy.
    pub rules: Arc<dyn Rulebook>,
}

/// What is left of a limit, for the headers of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// So many in a window.
    pub limit: u64,
    /// So many are left.
    pub remaining: u64,
    /// When it starts anew or is full again, in seconds.
    pub reset_s: u64,
}

/// What is left of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Which limit it is, in words.
    pub label: Arc<str>,
    /// What it counts.
    pub counted: Counted,
    /// How much there is.
    pub limit: u64,
    /// How much is left.
    pub remaining: u64,
    /// When it starts anew or is full again, in seconds; 0 if it is, and for what never does.
    pub reset_s: u64,
}

/// A call that no limit admits.
#[derive(Debug)]
pub struct Refused {
    /// What the caller reads.
    pub failure: Failure,
    /// The limit that refuses, where it can be said in a header.
    pub standing: Option<Standing>,
}

/// What is planned for a call, and not yet charged.
struct Plan {
    charges: Vec<Charge>,
    terms: Vec<Term>,
}

/// What is not the counter's business.
#[derive(Debug, Clone)]
struct Term {
    counted: Counted,
    limit: u64,
    label: Arc<str>,
}

/// Budget that is reserved for a call. Settling it puts the true usage in the place of the estimate; dropping it without
/// settling leaves the estimate.
pub struct Permit {
    held: Held,
    terms: Vec<Term>,
    standing: Option<Standing>,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Nobody was asked.
    Never,
    /// Somebody was asked and gave no answer.
    Tried,
    /// An answer came, or may have been made for a caller who has gone.
    Answered,
}

/// What a call has come to.
#[derive(Debug, Clone, Copy)]
pub struct Spent<'u> {
    /// How far it has come.
    pub served: Served,
    /// Tokens, as far as the vendor has told them.
    pub usage: Option<&'u Usage>,
    /// Whether more may have been used than that.
    pub partial: bool,
    /// What it has cost, in 10^-9 US dollars.
    pub cost: Option<u64>,
}

impl Plan {
    /// Asks limits plugins which counters a call is charged to, and reserves what it may come to at most.
    ///
    /// # Errors
    /// What a plugin says, or `plugin-broken`.
    fn of(
        limits: &[Arc<Limits>],
        whose: Whose,
        call: &Call<'_>,
        rules: &Arc<[Rule]>,
        estimate: &dyn Fn() -> Estimate,
    ) -> Result<Self, Failure> {
        let (mut charges, mut terms) = (Vec::new(), Vec::new());
        let mut known: Option<Estimate> = None;
        for plugin in limits {
            let checks = plugin.plan(whose, call, rules).map_err(|error| Failure::of_policy(error, Kind::Limited))?;
            for Check { charge, counted, label, .. } in &**checks {
                let cost = match counted {
                    Counted::Requests => 1,
                    _ => known.get_or_insert_with(estimate).of_limit(*counted, charge.limit.min(charge.burst)),
                };
                charges.push(Charge { cost, ..charge.clone() });
                terms.push(Term { counted: *counted, limit: charge.limit, label: Arc::clone(label) });
            }
        }
        Ok(Self { charges, terms })
    }

    /// Charges all counters, or none of them.
    ///
    /// # Errors
    /// `limited` with the time to wait, `state-away`, `state-full`.
    async fn admit(self, state: &Arc<State>) -> Result<Option<Permit>, Refused> {
        if self.charges.is_empty() {
            return Ok(None);
        }
        match state.admit(self.charges).await {
            Ok(held) => {
                let standing = tightest(&held, &self.terms);
                Ok(Some(Permit { held, terms: self.terms, standing }))
            }
            Err(denied) => Err(refused(denied, &self.terms)),
        }
    }

    /// Charges all counters with what the call comes to, whatever is left of them: it was admitted before.
    #[must_use]
    fn admit_again(self, state: &Arc<State>) -> Option<Permit> {
        let countable = |charge: &Charge| charge.algorithm != Algorithm::Concurrency;
        let (charges, terms): (Vec<_>, Vec<_>) =
            self.charges.into_iter().zip(self.terms).filter(|(charge, _)| countable(charge)).unzip();
        (!charges.is_empty()).then(|| Permit { held: state.charge_later(charges), terms, standing: None })
    }
}

impl Gate {
    /// Reserves the budget of a call with every limit. None if there is no limit.
    ///
    /// # Errors
    /// What a plugin says, `plugin-broken`, `limited` with the time to wait, `state-away`, `state-full`.
    pub async fn admit(
        &self,
        limits: &[Arc<Limits>],
        whose: Whose,
        principal: &Principal,
        call: &Call<'_>,
        estimate: &(dyn Fn() -> Estimate + Sync),
    ) -> Result<Option<Permit>, Refused> {
        if limits.is_empty() {
            return Ok(None);
        }
        let rules = self.rules.of_call(principal, call);
        let plan = Plan::of(limits, whose, call, &rules, &|| estimate());
        let plan = plan.map_err(|failure| Refused { failure, standing: None })?;
        plan.admit(&self.state).await
    }

    /// What is left of every limit that a call would be charged to, as far as this node knows. Nothing is charged.
    ///
    /// # Errors
    /// What a plugin says, or `plugin-broken`.
    pub fn left(&self, limits: &[Arc<Limits>], principal: &Principal, call: &Call<'_>) -> Result<Vec<Left>, Failure> {
        let rules = self.rules.of_call(principal, call);
        let plan = Plan::of(limits, Whose::Callers, call, &rules, &Estimate::default)?;
        let each = plan.charges.iter().zip(plan.terms);
        Ok(each
            .map(|(charge, Term { counted, limit, label })| {
                let remaining = self.state.remaining(charge);
                Left { label, counted, limit, remaining: remaining.count, reset_s: remaining.reset_ms.div_ceil(1000) }
            })
            .collect())
    }

    /// The permit of a call that was admitted by a process that has ended.
    ///
    /// # Errors
    /// What a plugin says, or `plugin-broken`.
    pub fn admit_again(
        &self,
        limits: &[Arc<Limits>],
        principal: &Principal,
        call: &Call<'_>,
        estimate: &dyn Fn() -> Estimate,
    ) -> Result<Option<Permit>, Failure> {
        let rules = self.rules.of_call(principal, call);
        Ok(Plan::of(limits, Whose::Callers, call, &rules, estimate)?.admit_again(&self.state))
    }
}

impl Permit {
    /// What is left, for the headers of the answer.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// Puts the truth in the place of the estimate. A call that no upstream served costs nothing; one whose usage nobody
    /// knows, or not all of it, costs at least what was reserved.
    pub fn settle(self, spent: &Spent<'_>) {
        let Self { held, terms, .. } = self;
        let reserved: Vec<_> = held.items().iter().map(|item| item.charge.cost).collect();
        held.settle(&|index| {
            let (Some(term), Some(reserved)) = (terms.get(index), reserved.get(index)) else { return 0 };
            actual(term.counted, *reserved, spent)
        });
    }

    /// Gives everything back: the call has not been.
    pub fn release(self) {
        self.held.release();
    }
}

fn actual(counted: Counted, reserved: u64, spent: &Spent<'_>) -> u64 {
    if spent.served == Served::Never {
        return 0;
    }
    let told = match (counted, spent.usage) {
        (Counted::Requests, _) => return 1,
        (Counted::Tokens, usage) => usage.map(Usage::total),
        (Counted::InputTokens, usage) => usage.map(Usage::input_total),
        (Counted::OutputTokens, usage) => usage.map(Usage::output_total),
        // What has a usage and no cost has no price.
        (Counted::Cost, usage) => spent.cost.or(usage.map(|_| 0)),
    };
    match told {
        Some(told) if spent.partial => told.max(reserved),
        Some(told) => told,
        None if spent.served == Served::Answered => reserved,
        None => 0,
    }
}

/// The limit that is closest to its end, among those that can be said in a header: of requests, else of tokens.
fn tightest(held: &Held, terms: &[Term]) -> Option<Standing> {
    let said = |of: fn(Counted) -> bool| {
        let each = held.items().iter().zip(terms);
        let each = each.filter(|(item, term)| of(term.counted) && item.charge.algorithm != Algorithm::Concurrency);
        let standings = each.map(|(item, term)| Standing {
            limit: term.limit,
            remaining: item.remaining.count.min(term.limit),
            reset_s: item.remaining.reset_ms.div_ceil(1000),
        });
        standings.min_by(|a, b| {
            let (left, right) =
                (u128::from(a.remaining) * u128::from(b.limit), u128::from(b.remaining) * u128::from(a.limit));
            left.cmp(&right)
        })
    };
    said(|counted| counted == Counted::Requests).or_else(|| said(|counted| counted != Counted::Cost))
}

fn refused(denied: Denied, terms: &[Term]) -> Refused {
    let failure = |kind, message: String, wait| Failure::new(kind, message).retry_after(wait);
    match denied {
        Denied::Exceeded(exceeded) => {
            let term = terms.get(exceeded.index);
            let label = term.map_or("a limit", |term| &*term.label);
            let wait = exceeded.retry_after_ms;
            let message = match wait {
                Some(wait) => format!("{label} is used up; try again in {} s", wait.div_ceil(1000).max(1)),
                None => format!("{label} is used up; ask for more of it"),
            };
            let reset_s = wait.map_or(0, |wait| wait.div_ceil(1000));
            let said = term.filter(|term| term.counted != Counted::Cost);
            let standing = said.map(|term| Standing { limit: term.limit, remaining: 0, reset_s });
            Refused { failure: failure(Kind::Limited, message, wait), standing }
        }
        Denied::Full => {
            let message = "there is no room to count what this call uses; try again later".to_owned();
            Refused { failure: failure(Kind::StateFull, message, Some(FULL_MS)), standing: None }
        }
        Denied::Away => {
            let message = "the limits of this call cannot be looked at for the moment; try again".to_owned();
            Refused { failure: failure(Kind::StateAway, message, Some(AWAY_MS)), standing: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_costs_follows_from_how_far_it_came_and_what_was_told() {
        let usage = Usage { input: 10, output: 5, ..Usage::default() };
        let spent = |served, usage, partial, cost| Spent { served, usage, partial, cost };
        let cases = [
            (spent(Served::Never, None, false, None), [0, 0, 0]),
            (spent(Served::Tried, None, false, None), [1, 0, 0]),
            (spent(Served::Answered, None, false, None), [1, 100, 100]),
            (spent(Served::Answered, Some(&usage), false, Some(700)), [1, 15, 700]),
            (spent(Served::Answered, Some(&usage), false, None), [1, 15, 0]),
            (spent(Served::Answered, Some(&usage), true, Some(70)), [1, 100, 100]),
            (spent(Served::Answered, Some(&usage), true, Some(700)), [1, 100, 700]),
        ];
        for (spent, expected) in cases {
            let got = [Counted::Requests, Counted::Tokens, Counted::Cost].map(|counted| actual(counted, 100, &spent));
            assert_eq!(got, expected, "{spent:?}");
        }
    }
}
