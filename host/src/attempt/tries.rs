// SPDX-License-Identifier: Apache-2.0
//! The targets of a call one after another, as far as their vendors' limits and the policy let it go.

use super::Asking;
use crate::failure::{Failure, Kind};
use crate::ledger::Entry;
use crate::routes::Target;
use crate::stages::Gate;

/// What is left to try.
pub struct Tries<'t> {
    rest: &'t [Target],
    last: Option<Failure>,
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
        Self { rest: targets, last: None }
    }

    /// The next target whose vendor admits the call, noted in the call's account.
    ///
    /// # Errors
    /// Why the last one failed, if none is left; else what is wrong with the limits of a vendor.
    pub async fn next(&mut self, gate: &Gate, asking: &Asking<'_>, entry: &mut Entry) -> Result<Try<'t>, Failure> {
        let tries = asking.underway.snapshot.limits.attempts_max.max(1);
        let attempt = entry.attempts;
        while let Some((target, rest)) = self.rest.split_first().filter(|_| attempt < tries) {
            self.rest = rest;
            match asking.permit(gate, target, attempt).await {
                Ok(permit) => {
                    entry.tries(target, permit);
                    return Ok(Try { target, attempt, is_last: attempt + 1 == tries || rest.is_empty() });
                }
                Err(failure) if failure.kind == Kind::Limited => {
                    self.last.get_or_insert(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        let nobody = || Failure::new(Kind::NoTarget, "no target is left to try; try again later");
        Err(self.last.take().unwrap_or_else(nobody))
    }

    /// Notes why the target whose turn it was gave no answer, if another one may.
    ///
    /// # Errors
    /// The failure, if another target would not do better.
    pub fn missed(&mut self, failure: Failure) -> Result<(), Failure> {
        if !failure.is_worth_another_target() {
            return Err(failure);
        }
        self.last = Some(failure);
        Ok(())
    }
}
