// SPDX-License-Identifier: Apache-2.0
//! Requests that are sent beyond those of callers, and what pays for them: a share of those of callers, so that a bad day does
//! not multiply the load.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config;

/// What a hedge costs; a request brings in so many of these as hedges have percent of the requests.
const HEDGE: u32 = 100;
/// Hedges that can be saved up. One is there at the start.
const HEDGES_MAX: u32 = 10;

/// What requests have brought in, and has not been spent.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Budget {
    /// A budget that begins with this.
    pub(super) const fn with(saved: u32) -> Self {
        Self(AtomicU32::new(saved))
    }

    /// A request brings in this much, up to a sum of `max`.
    pub(super) fn earns(&self, gain: u32, max: u32) {
        // Two at the same time may count as one: it is a budget, not an account.
        let saved = self.0.load(Ordering::Relaxed);
        if saved < max {
            self.0.store((saved + gain).min(max), Ordering::Relaxed);
        }
    }

    /// Spends this much; false if there is not enough.
    pub(super) fn pays(&self, price: u32) -> bool {
        self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(price)).is_ok()
    }
}

/// When a second target is asked beside a slow one, and how many such requests there may be yet.
#[derive(Debug)]
pub struct Hedge {
    /// How long the first one may be silent.
    pub after: Duration,
    percent: u32,
    budget: Budget,
}

impl Hedge {
    /// As an operator wants it.
    #[must_use]
    pub fn new(wanted: config::Hedge) -> Self {
        let after = Duration::from_millis(wanted.after_ms.into());
        Self { after, percent: wanted.percent_max, budget: Budget::with(HEDGE) }
    }

    /// A request that may be sent a second time begins.
    pub fn begins(&self) {
        self.budget.earns(self.percent, HEDGES_MAX * HEDGE);
    }

    /// Whether a request may be sent a second time now. Pays for it.
    pub fn affords_one(&self) -> bool {
        self.budget.pays(HEDGE)
    }

    /// What [`Self::affords_one`] has paid for was not sent.
    pub fn takes_back(&self) {
        self.budget.earns(HEDGE, HEDGES_MAX * HEDGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_are_no_more_than_their_share_of_the_requests_and_a_few_that_were_saved_up() {
        let sent = |percent_max: u32, quiet: u32, busy: u32| {
            let hedge = Hedge::new(config::Hedge { after_ms: 1, percent_max });
            (0..quiet).for_each(|_| hedge.begins());
            (0..busy)
                .filter(|_| {
                    hedge.begins();
                    hedge.affords_one()
                })
                .count()
        };
        assert_eq!(sent(10, 0, 1000), 101, "one is there at the start");
        assert_eq!(sent(1, 0, 1000), 11);
        assert_eq!(sent(100, 0, 1000), 1000);
        assert_eq!(sent(10, 100_000, 1000), 109, "ten are saved up, and no more");
    }

    #[test]
    fn a_hedge_that_was_not_sent_is_not_paid_for() {
        let hedge = Hedge::new(config::Hedge { after_ms: 1, percent_max: 1 });
        assert!(hedge.affords_one() && !hedge.affords_one());
        hedge.takes_back();
        assert!(hedge.affords_one() && !hedge.affords_one());
    }
}
