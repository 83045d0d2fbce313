// SPDX-License-Identifier: Apache-2.0
//! Cuts floods of log lines: so many in a second are written, the others are counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lines of one kind that are written in a second; those past it are counted, and told of with the next line.
const LINES_A_SECOND: u64 = 100;

/// Lines of one kind.
#[derive(Debug)]
pub struct Flood {
    begin: Instant,
    // Second in the upper half, lines in it in the lower half.
    window: AtomicU64,
    cut: AtomicU64,
}

impl Flood {
    /// None was written so far.
    #[must_use]
    pub fn new() -> Self {
        Self { begin: Instant::now(), window: AtomicU64::new(0), cut: AtomicU64::new(0) }
    }

    /// Whether a line may be written; if so, how many were cut before it.
    pub fn admit(&self) -> Option<u64> {
        let second = self.begin.elapsed().as_secs();
        let count = |window: u64| if window >> 32 == second { window & 0xffff_ffff } else { 0 };
        let admitted = self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |window| {
            (count(window) < LINES_A_SECOND).then(|| second << 32 | (count(window) + 1))
        });
        if admitted.is_ok() {
            return Some(self.cut.swap(0, Ordering::Relaxed));
        }
        self.cut.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Default for Flood {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let flood = Flood::new();
        let admitted = (0..10_000).filter(|_| flood.admit().is_some()).count();
        assert!((100..=300).contains(&admitted), "{admitted} lines in far less than two seconds");
        assert!(flood.cut.load(Ordering::Relaxed) > 0);
    }
}
