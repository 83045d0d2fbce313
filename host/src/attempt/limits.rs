// SPDX-License-Identifier: Apache-2.0
//! What an attempt is charged to: the limits of its vendor.

use super::Asking;
use crate::failure::Failure;
use crate::routes::Target;
use crate::stages::{Estimate, Gate, Permit, Whose};

impl Asking<'_> {
    /// Reserves what an attempt may come to with the limits of the vendor; none if it has no limits.
    ///
    /// # Errors
    /// `limited` if they do not admit it, and another target may be tried; else what is wrong with the limits.
    pub async fn permit(&self, gate: &Gate, target: &Target, attempt: u32) -> Result<Option<Permit>, Failure> {
        if target.vendor.limits.is_empty() {
            return Ok(None);
        }
        let facts = self.facts(target);
        let facts = self.principal.facts(&facts);
        let call = self.call(target, attempt, &facts);
        let snapshot = &self.underway.snapshot;
        let targets = std::slice::from_ref(target);
        let estimate = || Estimate::of(self.inbound, targets, snapshot.limits.output_tokens);
        // On the heap, as other rare ways.
        let admitted = gate.admit(&target.vendor.limits, Whose::Vendors, self.principal, &call, &estimate);
        Box::pin(admitted).await.map_err(|refused| {
            tracing::info!(request = %self.underway.id, target = %target.id, failure = %refused.failure, "the vendor's limits do not admit a call");
            refused.failure
        })
    }
}
