// SPDX-License-Identifier: Apache-2.0
//! An attempt as a part of a trace: what it sends carries the id of its span.

use std::sync::atomic::Ordering;

use super::Asking;
use crate::traces::Outgoing;

impl Asking<'_> {
    /// The same, as a part of a trace.
    #[must_use]
    pub fn traced(self, trace: Option<Outgoing>) -> Self {
        Self { trace, ..self }
    }

    /// What is sent from now on belongs to the attempt of this number, which has said nothing yet.
    pub(super) fn begins(&self, attempt: u32) {
        self.speaks.store(false, Ordering::Relaxed);
        if let Some(trace) = &self.trace {
            trace.attempt(attempt);
        }
    }
}
