// SPDX-License-Identifier: Apache-2.0
//! When services were heard of. That is not in the audit log, and not on the disk: after a restart they have to be heard of
//! again. Gateways of a cluster tell each other now and then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;

/// When services were heard of, by id, in seconds since 1970.
#[derive(Debug, Default)]
pub struct Beats(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    last: HashMap<String, u64>,
    /// What was heard here since [`Beats::fresh`].
    fresh: HashMap<String, u64>,
}

impl Beats {
    /// When a service was last heard of.
    #[must_use]
    pub fn last(&self, id: &str) -> Option<u64> {
        self.heard().last.get(id).copied()
    }

    /// A service is heard of now.
    pub fn beat(&self, id: &str) {
        let (mut heard, now) = (self.heard(), clock::unix_s());
        heard.last.insert(id.to_owned(), now);
        heard.fresh.insert(id.to_owned(), now);
    }

    /// A service is gone.
    pub fn forget(&self, id: &str) {
        let mut heard = self.heard();
        heard.last.remove(id);
        heard.fresh.remove(id);
    }

    /// What was heard here since the last time.
    #[must_use]
    pub fn fresh(&self) -> HashMap<String, u64> {
        std::mem::take(&mut self.heard().fresh)
    }

    /// What could not be told others is told them later.
    pub fn keep(&self, fresh: HashMap<String, u64>) {
        let mut heard = self.heard();
        for (id, at) in fresh {
            let known = heard.fresh.entry(id).or_default();
            *known = at.max(*known);
        }
    }

    /// What others have heard.
    pub fn learn(&self, heard: impl IntoIterator<Item = (String, u64)>) {
        let mut own = self.heard();
        for (id, at) in heard {
            let known = own.last.entry(id).or_default();
            *known = at.max(*known);
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_here_is_told_once_and_what_others_have_heard_is_not() {
        let beats = Beats::default();
        beats.beat("a");
        beats.learn([("b".to_owned(), 7), ("a".to_owned(), 1)]);
        assert!(beats.last("a").is_some_and(|at| at > 1) && beats.last("b") == Some(7), "the later one holds");
        let fresh = beats.fresh();
        assert!(fresh.len() == 1 && fresh.contains_key("a") && beats.fresh().is_empty());
        beats.keep(fresh);
        beats.forget("a");
        assert!(beats.fresh().is_empty() && beats.last("a").is_none());
    }
}
