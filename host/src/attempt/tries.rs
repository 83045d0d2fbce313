// SPDX-License-Identifier: Apache-2.0
//! The targets of a call one after another, as far as their vendors' limits and the policy let it go. When all of them have
//! failed, one that may do better a moment later is asked a second time.

use std::time::{Duration, Instant};

use super::{Asking, Miss};
use crate::failure::{Failure, Kind};
use crate::ledger::Entry;
use crate::random;
use crate::routes::Target;
use crate::stages::Gate;

/// Shortest wait before a target is asked a second time that has not said when to come again.
const BACKOFF_MS: u64 = 200;
/// What chance adds to it at most, so that callers who failed together do not come back together.
const BACKOFF_SPREAD_MS: u64 = 200;

/// What is left to try.
pub struct Tries<'t> {
    pub(super) targets: &'t [Target],
    /// How many of them had their first turn.
    pub(super) turns: usize,
    /// The one that had its first turn before it came to it: it was asked beside another.
    pub(super) beside: Option<usize>,
    /// The target that can be asked a second time first, and when.
    again: Option<(&'t Target, Instant)>,
    /// The target whose turn it is, if this is its first.
    fresh: Option<&'t Target>,
    last: Option<Miss>,
    /// The shortest wait that a target has asked for, in milliseconds.
    wait_ms: Option<u64>,
}

/// The target whose turn it is.
pub struct Try<'t> {
    /// Where the call goes.
    pub target: &'t Target,
    /// 0 for the first.
    pub attempt: u32,
    /// Whether nobody is left to ask after it.
    pub is_last: bool,
}

impl<'t> Tries<'t> {
    /// Tries these targets in this order.
    #[must_use]
    pub fn of(targets: &'t [Target]) -> Self {
        Self { targets, turns: 0, beside: None, again: None, fresh: None, last: None, wait_ms: None }
    }

    /// The next target whose vendor admits the call, noted in the call's account; after a wait, if it is one's second turn.
    ///
    /// # Errors
    /// Why the last one failed, if none is left; else what is wrong with the limits of a vendor.
    pub async fn next(&mut self, gate: &Gate, asking: &Asking<'_>, entry: &mut Entry) -> Result<Try<'t>, Miss> {
        let tries = asking.underway.snapshot.limits.attempts_max.max(1);
        let attempt = entry.attempts;
        while let Some(target) = self.targets.get(self.turns).filter(|_| attempt < tries) {
            self.turns += 1;
            if self.beside == Some(self.turns - 1) {
                continue;
            }
            match asking.permit(gate, target, attempt).await {
                Ok(permit) => {
                    entry.tries(target, permit);
                    self.fresh = Some(target);
                    let is_last = attempt + 1 == tries || self.is_through();
                    return Ok(Try { target, attempt, is_last });
                }
                Err(failure) if failure.kind == Kind::Limited => {
                    self.last.get_or_insert(failure.into());
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        if let Some((target, at)) = self.again.take().filter(|_| attempt < tries && !asking.sends_once()) {
            tokio::time::sleep_until(at.into()).await;
            match asking.permit(gate, target, attempt).await {
                Ok(permit) => {
                    entry.tries(target, permit);
                    self.fresh = None;
                    return Ok(Try { target, attempt, is_last: true });
                }
                Err(failure) if failure.kind == Kind::Limited => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(self.given_up())
    }

    /// Whether every target had its first turn.
    fn is_through(&self) -> bool {
        (self.turns..self.targets.len()).all(|index| self.beside == Some(index))
    }

    /// Notes why the target whose turn it was gave no answer, if another one may, or the same one a moment later.
    ///
    /// # Errors
    /// The miss, if nobody else would do better.
    pub fn missed(&mut self, miss: Miss, asking: &Asking<'_>) -> Result<(), Miss> {
        let failure = &miss.failure;
        // Where another target was wanted at first, the call may be one that only this one cannot serve.
        let stands_in = self.last.is_some() && failure.is_about_the_request();
        if !(failure.is_worth_another_target() || stands_in) {
            return Err(miss);
        }
        self.weigh(&miss.failure, asking);
        self.last = Some(miss);
        Ok(())
    }

    /// As [`Self::missed`], of the target beside when the other one has missed after it: that one has the last word.
    pub fn missed_beside(&mut self, miss: &Miss, asking: &Asking<'_>) {
        self.turns_to_beside();
        self.weigh(&miss.failure, asking);
    }

    /// The first turn that is spoken of from now on is that of the target beside.
    pub fn turns_to_beside(&mut self) {
        self.fresh = self.beside.and_then(|index| self.targets.get(index));
    }

    /// Notes when the one that has missed can be asked again, and whether it is worth it.
    fn weigh(&mut self, failure: &Failure, asking: &Asking<'_>) {
        if let Some(stated) = failure.fault.retry_after_ms {
            self.wait_ms = Some(self.wait_ms.map_or(stated, |known| known.min(stated)));
        }
        if let (Some(target), Some(stated)) = (self.fresh.take(), failure.passes()) {
            self.may_be_asked_again(target, stated, asking);
        }
    }

    fn may_be_asked_again(&mut self, target: &'t Target, stated: Option<u64>, asking: &Asking<'_>) {
        let wait_max = asking.underway.snapshot.timeouts.retry_wait_ms;
        let wait_ms = stated.unwrap_or_else(|| BACKOFF_MS + random::below(BACKOFF_SPREAD_MS));
        let at = Instant::now() + Duration::from_millis(wait_ms.min(wait_max));
        let sooner = self.again.is_none_or(|(_, other)| at < other);
        if wait_ms <= wait_max && at < asking.underway.deadline && sooner && target.breaker.affords_a_second_try() {
            self.again = Some((target, at));
        }
    }

    /// Why nobody has answered: what the last one said, and when to come again, whoever has said that.
    fn given_up(&mut self) -> Miss {
        let nobody = || Failure::new(Kind::NoTarget, "no target is left to try; try again later").into();
        let mut miss = self.last.take().unwrap_or_else(nobody);
        let status = miss.failure.status().as_u16();
        if matches!(status, 429 | 503) && miss.failure.fault.retry_after_ms.is_none() {
            miss.failure.fault.retry_after_ms = self.wait_ms;
        }
        miss
    }
}
