// SPDX-License-Identifier: Apache-2.0
//! A try beside another one that is slow: who may be asked, and with what.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Asking, Tries};
use crate::directory::pool::Turn;
use crate::routes::Target;
use crate::stages::{Gate, Permit};
use crate::traces::Outgoing;
use crate::upstream::Hedge;

/// A target to ask beside another one.
pub struct StandIn<'t> {
    target: &'t Target,
    permit: Option<Permit>,
    index: usize,
}

/// As many are sent as may be.
const UNAFFORDABLE: &str = "unaffordable";
/// No other target is well, and admitted by the limits of its vendor.
const NOBODY: &str = "nobody";

impl<'a> Asking<'a> {
    /// Whether the request may be sent to two targets at a time: it changes nothing there that stays, and nothing of what is
    /// sent is written down.
    #[must_use]
    pub fn may_be_hedged(&self) -> bool {
        let operation = self.inbound.asked.operation;
        !self.sends_once() && operation.is_canonical() && !operation.is_always_a_job()
    }

    /// The same request for a try beside the one under way: it has a span and a key of a pool of its own, and can be cancelled
    /// by itself.
    #[must_use]
    pub fn twin(&self) -> Asking<'a> {
        Asking {
            underway: self.underway,
            client: self.client,
            head: self.head,
            inbound: self.inbound,
            principal: self.principal,
            journal: self.journal,
            turn: Turn::of(&self.underway.id),
            trace: self.trace.as_ref().map(Outgoing::twin),
            speaks: AtomicBool::new(false),
            canonical: OnceLock::new(),
        }
    }

    /// The first of the targets that are left that may be asked beside `first`: another one, that is well, and that its vendor's
    /// limits admit. It is paid for.
    ///
    /// # Errors
    /// Why there is none, as metrics call it; none if none is needed: the first one has begun to answer, or has had the last try
    /// of the request.
    pub async fn stand_in<'t>(
        &self,
        first: &Target,
        left: &'t [Target],
        hedge: &Hedge,
        gate: &Gate,
        attempt: u32,
    ) -> Result<StandIn<'t>, Option<&'static str>> {
        if attempt >= self.underway.snapshot.limits.attempts_max || self.speaks.load(Ordering::Relaxed) {
            return Err(None);
        }
        let now = Instant::now();
        let fits = |target: &Target| target.id != first.id && target.is_healthy(now);
        let fitting: Vec<_> = left.iter().enumerate().filter(|(_, target)| fits(target)).collect();
        if fitting.is_empty() {
            return Err(Some(NOBODY));
        }
        if !hedge.affords_one() {
            return Err(Some(UNAFFORDABLE));
        }
        for (index, target) in fitting {
            if let Ok(permit) = self.permit(gate, target, attempt).await {
                return Ok(StandIn { target, permit, index });
            }
        }
        hedge.takes_back();
        Err(Some(NOBODY))
    }
}

impl<'t> Tries<'t> {
    /// The targets that had no turn yet.
    #[must_use]
    pub fn left(&self) -> &'t [Target] {
        self.targets.get(self.turns..).unwrap_or_default()
    }

    /// One of those that are [left](Self::left) has its first turn now: where the call goes, and what is reserved for it.
    pub fn begins_beside(&mut self, stand_in: StandIn<'t>) -> (&'t Target, Option<Permit>) {
        self.beside = Some(self.turns + stand_in.index);
        (stand_in.target, stand_in.permit)
    }
}
