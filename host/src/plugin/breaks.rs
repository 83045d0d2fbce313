// SPDX-License-Identifier: Apache-2.0
//! How the instances of a configured plugin have broken: the last few with where they were and what they had said, for the
//! operator. Callers are told none of it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::types::Broken;
use crate::clock;
use crate::flood::Flood;

/// Those that are kept of one configured plugin.
const KEPT: usize = 8;

/// An instance that broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// The function of the contract that was called.
    pub call: String,
    /// In a word, as metrics have it.
    pub how: &'static str,
    /// In a sentence.
    pub reason: String,
    /// What the engine says of it.
    pub cause: String,
    /// Functions on the stack, innermost first; empty if there was none.
    pub stack: Vec<String>,
    /// The last lines that the instance had written, oldest first.
    pub last_lines: Vec<String>,
}

/// How a configured plugin is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Instances in memory.
    pub instances: u32,
    /// It broke time and again, and is not called for a moment.
    pub rests: bool,
    /// Instances that broke since the start of the process.
    pub broken: u64,
    /// The last of them, newest first.
    pub breaks: Vec<Break>,
}

/// Those of one configured plugin, over all its generations.
pub(super) struct Breaks {
    kept: Mutex<Kept>,
    flood: Flood,
}

#[derive(Default)]
struct Kept {
    count: u64,
    last: VecDeque<Break>,
}

impl Breaks {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), flood: Flood::new() }
    }

    /// Writes it down and into the log; a plugin that breaks with every request does not flood it.
    pub(super) fn note(
        &self,
        plugin: &str,
        call: &str,
        reason: &Broken,
        cause: String,
        stack: Vec<String>,
        last_lines: Vec<String>,
    ) {
        if let Some(cut) = self.flood.admit() {
            let (stack, last_lines) = (stack.join(" < "), last_lines.join(" | "));
            tracing::error!(plugin, call, %reason, cause, stack, last_lines, cut, "a plugin broke; its instance is replaced");
        }
        let (at_unix_ms, how, reason) = (clock::unix_ms(), reason.name(), reason.to_string());
        let one = Break { at_unix_ms, call: call.to_owned(), how, reason, cause, stack, last_lines };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count += 1;
        kept.last.truncate(KEPT - 1);
        kept.last.push_front(one);
    }

    /// How many there were, and the last of them.
    pub(super) fn told(&self) -> (u64, Vec<Break>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.count, kept.last.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_newest_first_and_all_are_counted() {
        let breaks = Breaks::new();
        for number in 0..20_u32 {
            let lines = vec![format!("line {number}")];
            breaks.note("p", "adapter.open", &Broken::Memory, format!("cause {number}"), Vec::new(), lines);
        }
        let (count, last) = breaks.told();
        assert_eq!((count, last.len()), (20, KEPT));
        let first = &last[0];
        assert_eq!(
            (first.cause.as_str(), first.how, first.last_lines.as_slice()),
            ("cause 19", "memory", &["line 19".to_owned()][..])
        );
    }
}
