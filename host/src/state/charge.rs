// SPDX-License-Identifier: Apache-2.0
//! What a call is charged to: counters, how they count, and in which window.
//!
//! Windows are cut by the calendar in UTC: those of a fixed length from 1970 on, so that a window of 24 hours is a day.
//! Whatever tells one counter from another is in its key: the plugin that planned it, its name there, and how it counts.
//! Another limit for the same counter goes on counting; another window begins anew.

use std::sync::Arc;

use crate::calendar::Date;

/// From this length on the use of a window outlives the process.
const LASTING_MS: u64 = 3_600_000;
const DAY_MS: u64 = 86_400_000;

/// How a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Refills smoothly, so many in a window; a full bucket holds `burst`.
    TokenBucket,
    /// Starts at nothing with each window.
    FixedWindow,
    /// The window that ends now: this one and the share of the one before that is not yet past, as if its use had been even.
    SlidingWindow,
    /// A calendar month.
    Month,
    /// For ever.
    Total,
    /// So many at a time.
    Concurrency,
}

impl Algorithm {
    /// Name in the contract with plugins.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenBucket => "token-bucket",
            Self::FixedWindow => "fixed-window",
            Self::SlidingWindow => "sliding-window",
            Self::Month => "month",
            Self::Total => "total",
            Self::Concurrency => "concurrency",
        }
    }

    /// The algorithm of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        use Algorithm::{Concurrency, FixedWindow, Month, SlidingWindow, TokenBucket, Total};
        let all = [TokenBucket, FixedWindow, SlidingWindow, Month, Total, Concurrency];
        all.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Whether it counts what is used in a piece of time.
    #[must_use]
    pub fn is_window(self) -> bool {
        !matches!(self, Self::TokenBucket | Self::Concurrency)
    }
}

/// What a call takes from one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Name of the counter, unique in the store.
    pub key: Arc<str>,
    /// How it counts.
    pub algorithm: Algorithm,
    /// So many in a window, or at a time.
    pub limit: u64,
    /// Window in milliseconds; not looked at for months, for ever, and calls at a time.
    pub window_ms: u64,
    /// What a full bucket holds.
    pub burst: u64,
    /// How many the call takes; one for `Concurrency`, whatever this says.
    pub cost: u64,
}

/// A piece of time in which a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Its number.
    pub number: u64,
    /// When it ends, in milliseconds since 1970; `u64::MAX` for never.
    pub ends_ms: u64,
}

/// What a counter would still admit after a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// So many.
    pub count: u64,
    /// When it will be full again, in milliseconds; 0 if it is, for calls at a time, and for ever.
    pub reset_ms: u64,
}

/// A charge was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which one.
    pub index: usize,
    /// When it may be tried again, in milliseconds, at least 1; none if never. For calls at a time nobody knows: 1000.
    pub retry_after_ms: Option<u64>,
}

impl Charge {
    /// A charge to the counter of this name of a plugin.
    #[must_use]
    pub fn new(plugin: &str, name: &str, algorithm: Algorithm, limit: u64, window_ms: u64) -> Self {
        let window_ms = window_ms.max(1);
        let how = match algorithm {
            Algorithm::TokenBucket => format!("b{window_ms}"),
            Algorithm::FixedWindow => format!("w{window_ms}"),
            Algorithm::SlidingWindow => format!("s{window_ms}"),
            Algorithm::Month => "month".to_owned(),
            Algorithm::Total => "total".to_owned(),
            Algorithm::Concurrency => "c".to_owned(),
        };
        let plugin = plugin.replace('%', "%25").replace('|', "%7C");
        let key = format!("{plugin}|{how}|{name}").into();
        Self { key, algorithm, limit, window_ms, burst: limit, cost: 1 }
    }

    /// Whether what was used must outlive the process: windows of an hour and more.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self.algorithm {
            Algorithm::TokenBucket | Algorithm::Concurrency => false,
            Algorithm::FixedWindow | Algorithm::SlidingWindow => self.window_ms >= LASTING_MS,
            Algorithm::Month | Algorithm::Total => true,
        }
    }

    /// The window at a time, in milliseconds since 1970.
    #[must_use]
    pub fn window(&self, now_ms: u64) -> Window {
        match self.algorithm {
            Algorithm::FixedWindow | Algorithm::SlidingWindow => {
                let number = now_ms / self.window_ms;
                Window { number, ends_ms: (number + 1).saturating_mul(self.window_ms) }
            }
            Algorithm::Month => month(now_ms),
            Algorithm::Total | Algorithm::TokenBucket | Algorithm::Concurrency => {
                Window { number: 0, ends_ms: u64::MAX }
            }
        }
    }

    /// How much of the window before a sliding one still counts.
    pub(super) fn still_counts(&self, before: u64, window: Window, now_ms: u64) -> u64 {
        if self.algorithm != Algorithm::SlidingWindow {
            return 0;
        }
        let left_ms = window.ends_ms.saturating_sub(now_ms).min(self.window_ms);
        let counts = u128::from(before) * u128::from(left_ms) / u128::from(self.window_ms);
        u64::try_from(counts).unwrap_or(u64::MAX)
    }
}

impl Window {
    /// How long it lasts, in milliseconds; none if for ever.
    #[must_use]
    pub fn left_ms(&self, now_ms: u64) -> Option<u64> {
        (self.ends_ms != u64::MAX).then(|| self.ends_ms.saturating_sub(now_ms).max(1))
    }
}

/// The calendar month, numbered from the year 0 on.
fn month(now_ms: u64) -> Window {
    let month_of = |day| Date::of(day).month_number();
    let number = month_of(now_ms / DAY_MS);
    let mut day = now_ms / DAY_MS + 28;
    while month_of(day) == number {
        day += 1;
    }
    // The 28th day from here may lie behind the first of the next month.
    while month_of(day - 1) != number {
        day -= 1;
    }
    Window { number, ends_ms: day * DAY_MS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(charge: Algorithm, window_ms: u64, now_s: u64) -> (u64, u64) {
        let window = Charge::new("p", "k", charge, 1, window_ms).window(now_s * 1000);
        (window.number, window.ends_ms / 1000)
    }

    #[test]
    fn months_and_days_are_those_of_the_calendar_in_utc() {
        let cases = [
            (0, 1970 * 12, 2_678_400),                      // 1970-01-01
            (951_782_399, 2000 * 12 + 1, 951_868_800),      // 2000-02-28, a leap year by the rule of 400
            (951_868_799, 2000 * 12 + 1, 951_868_800),      // its last second of February
            (951_868_800, 2000 * 12 + 2, 954_547_200),      // 2000-03-01
            (1_798_761_599, 2026 * 12 + 11, 1_798_761_600), // 2026-12-31 23:59:59
            (1_798_761_600, 2027 * 12, 1_801_440_000),      // 2027-01-01
        ];
        for (now, number, ends) in cases {
            assert_eq!(at(Algorithm::Month, 0, now), (number, ends), "{now}");
        }
        assert_eq!(at(Algorithm::FixedWindow, DAY_MS, 1_798_761_599), (20_818, 1_798_761_600));
        assert_eq!(at(Algorithm::Total, 0, 1_798_761_599), (0, u64::MAX / 1000));
    }

    #[test]
    fn what_tells_counters_apart_is_in_their_keys() {
        let key = |plugin: &str, name: &str, algorithm, window| Charge::new(plugin, name, algorithm, 9, window).key;
        let keys = [
            key("a", "k", Algorithm::FixedWindow, 1000),
            key("a", "k", Algorithm::FixedWindow, 2000),
            key("a", "k", Algorithm::SlidingWindow, 1000),
            key("a", "k", Algorithm::Month, 1000),
            key("a", "b|k", Algorithm::Month, 1000),
            key("a|month|b", "k", Algorithm::Month, 1000),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(key("a", "k", Algorithm::Month, 1), key("a", "k", Algorithm::Month, 2));
    }
}
