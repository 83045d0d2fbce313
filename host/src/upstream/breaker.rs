// SPDX-License-Identifier: Apache-2.0
//! Whether a target (a model at a vendor) is worth asking first. All of it is atomics, so that routing can ask for every
//! candidate of every request.
//!
//! [`health`](super::health) knows of connections; this knows of answers: that one model of a vendor is overloaded says nothing
//! of the others. A target is ejected after failures in a row, or when too large a share of its answers fail, which is how
//! one is found that comes and goes. An ejection that follows another one lasts twice as long. After it, the first request is a
//! probe; when that went well, requests come back a few at a time.
//!
//! As with connections an ejection is advice: when no target is well, the request is tried all the same.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::health::{clock, micros};
use crate::config;

/// Weight of a new answer in the share of those that fail is one in this many.
const SHARE_WEIGHT: u32 = 16;
/// A share of one.
const WHOLE: u32 = 1 << 16;
/// Answers that must be there before their share says something.
const SHARE_ANSWERS_MIN: u32 = 16;
/// Longest time for which a target's own word (`Retry-After`) keeps requests away.
const LATER_MAX: Duration = Duration::from_secs(60);
/// Second tries at one target are paid for by requests: so many requests for one.
const REQUESTS_FOR_A_SECOND_TRY: u32 = 5;
/// Second tries that can be saved up, and that a new target has.
const SECOND_TRIES_MAX: u32 = 10;
/// Steps in which the requests come back after an ejection.
const STEPS: u32 = 8;

/// What an answer says of its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Well,
    /// It failed.
    Ill,
    /// It wants to be left alone for this time.
    Later(Duration),
    /// Nothing: the failure was another's.
    Neutral,
}

/// State of one target.
#[derive(Debug)]
pub struct Breaker {
    in_a_row: AtomicU32,
    share: AtomicU32,
    answers: AtomicU32,
    /// Ejected until then; 0 if it is not.
    until_us: AtomicU64,
    /// Ejections that follow each other.
    ejections: AtomicU32,
    probing: AtomicBool,
    /// When the last ejection ended; 0 before that, and when all requests have come back.
    back_since_us: AtomicU64,
    turn: AtomicU32,
    /// Its own word.
    later_us: AtomicU64,
    second_tries: Budget,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            in_a_row: AtomicU32::new(0),
            share: AtomicU32::new(0),
            answers: AtomicU32::new(0),
            until_us: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            probing: AtomicBool::new(false),
            back_since_us: AtomicU64::new(0),
            turn: AtomicU32::new(0),
            later_us: AtomicU64::new(0),
            second_tries: Budget::with(SECOND_TRIES_MAX * REQUESTS_FOR_A_SECOND_TRY),
        }
    }
}

impl Breaker {
    /// Whether to send a request here first.
    pub fn healthy(&self, rules: &config::Breaker, now: Instant) -> bool {
        let now = clock(now);
        if now < self.later_us.load(Ordering::Relaxed) || now < self.until_us.load(Ordering::Acquire) {
            return false;
        }
        let since = self.back_since_us.load(Ordering::Relaxed);
        if since == 0 {
            return true;
        }
        let slow_start = u64::from(rules.slow_start_ms) * 1000;
        let passed = now.saturating_sub(since);
        if passed >= slow_start {
            self.back_since_us.store(0, Ordering::Relaxed);
            return true;
        }
        let steps = 1 + passed * u64::from(STEPS) / slow_start;
        u64::from(self.turn.fetch_add(1, Ordering::Relaxed) % STEPS) < steps
    }

    /// A request begins here. If the target is ejected, this is a probe, and others keep away for as long again.
    pub fn begin(&self, rules: &config::Breaker, now: Instant) {
        self.second_tries.earns(1, SECOND_TRIES_MAX * REQUESTS_FOR_A_SECOND_TRY);
        if self.until_us.load(Ordering::Acquire) != 0 {
            self.probing.store(true, Ordering::Release);
            self.until_us.fetch_max(clock(now).saturating_add(self.ejection_us(rules)), Ordering::AcqRel);
        }
    }

    /// Takes note of an answer, and says for how long the target is ejected if it is by this one.
    pub fn record(&self, verdict: Verdict, rules: &config::Breaker, now: Instant) -> Option<Duration> {
        match verdict {
            Verdict::Neutral => {}
            Verdict::Later(wait) => {
                let until = clock(now).saturating_add(micros(wait.min(LATER_MAX)));
                self.later_us.fetch_max(until, Ordering::Relaxed);
            }
            Verdict::Well => self.well(now),
            Verdict::Ill => return self.ill(rules, now),
        }
        None
    }

    /// Whether the target may be asked a second time for one request. Pays for it, so that when everything fails, second tries
    /// add a fifth to the load at most.
    pub fn affords_a_second_try(&self) -> bool {
        self.second_tries.pays(REQUESTS_FOR_A_SECOND_TRY)
    }

    fn well(&self, now: Instant) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        if self.later_us.load(Ordering::Relaxed) != 0 {
            self.later_us.store(0, Ordering::Relaxed);
        }
        let share = self.share.load(Ordering::Relaxed);
        if share != 0 || self.answers.load(Ordering::Relaxed) < SHARE_ANSWERS_MIN {
            self.shared(0);
        }
        if share < WHOLE / SHARE_WEIGHT && self.ejections.load(Ordering::Relaxed) != 0 {
            self.ejections.store(0, Ordering::Relaxed);
        }
        // What was on its way when the target was ejected says nothing of how it is now.
        if self.until_us.load(Ordering::Acquire) != 0 && self.probing.swap(false, Ordering::AcqRel) {
            self.until_us.store(0, Ordering::Release);
            self.answers.store(0, Ordering::Relaxed);
            self.back_since_us.store(clock(now), Ordering::Relaxed);
        }
    }

    fn ill(&self, rules: &config::Breaker, now: Instant) -> Option<Duration> {
        // Stops far above any threshold, so that it cannot wrap to "healthy".
        let more = |n: u32| (n < u32::MAX / 2).then_some(n + 1);
        let in_a_row = self.in_a_row.try_update(Ordering::Relaxed, Ordering::Relaxed, more).unwrap_or(u32::MAX / 2);
        let share = self.shared(WHOLE);
        let many = self.answers.load(Ordering::Relaxed) >= SHARE_ANSWERS_MIN
            && u64::from(share) * 100 >= u64::from(rules.failing_percent) * u64::from(WHOLE);
        let was_probe = self.probing.swap(false, Ordering::AcqRel);
        let is_out = self.until_us.load(Ordering::Acquire) != 0;
        if !(is_out && was_probe || !is_out && (in_a_row + 1 >= rules.failures_max || many)) {
            return None;
        }
        let ejections = self.ejections.load(Ordering::Relaxed);
        self.ejections.store(ejections.saturating_add(1), Ordering::Relaxed);
        let lasts_us = self.ejection_us(rules);
        self.until_us.fetch_max(clock(now).saturating_add(lasts_us), Ordering::AcqRel);
        Some(Duration::from_micros(lasts_us))
    }

    /// How long the ejection lasts that is in force.
    fn ejection_us(&self, rules: &config::Breaker) -> u64 {
        let doublings = self.ejections.load(Ordering::Relaxed).saturating_sub(1).min(16);
        let ms = u64::from(rules.eject_ms) << doublings;
        ms.min(u64::from(rules.eject_ms_max).max(u64::from(rules.eject_ms))) * 1000
    }

    /// Counts an answer in, and gives the share of those that fail.
    fn shared(&self, sample: u32) -> u32 {
        let old = self.share.load(Ordering::Relaxed);
        // Two samples at the same time may lose one of them: it is an average.
        let new = (old / SHARE_WEIGHT * (SHARE_WEIGHT - 1)) + sample / SHARE_WEIGHT;
        self.share.store(new, Ordering::Relaxed);
        let answers = self.answers.load(Ordering::Relaxed);
        self.answers.store(answers.saturating_add(1), Ordering::Relaxed);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: config::Breaker = config::Breaker {
        failures_max: 5,
        failing_percent: 40,
        eject_ms: 1000,
        eject_ms_max: 3000,
        slow_start_ms: 8000,
    };

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn failures_in_a_row_eject_and_a_probe_brings_back_a_few_requests_at_a_time() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            breaker.record(Verdict::Ill, &RULES, start);
        }
        assert!(breaker.healthy(&RULES, start));
        breaker.record(Verdict::Ill, &RULES, start);
        assert!(!breaker.healthy(&RULES, after(start, 999)));
        breaker.record(Verdict::Well, &RULES, start);
        assert!(!breaker.healthy(&RULES, after(start, 999)), "an answer that was on its way proves nothing");
        let probed = after(start, 1001);
        assert!(breaker.healthy(&RULES, probed));
        breaker.begin(&RULES, probed);
        assert!(!breaker.healthy(&RULES, probed), "one probe at a time");
        breaker.record(Verdict::Well, &RULES, probed);
        let share = |ms| (0..80).filter(|_| breaker.healthy(&RULES, after(probed, ms))).count();
        assert_eq!([share(0), share(4000), share(9000)], [10, 50, 80]);
    }

    #[test]
    fn a_probe_that_fails_doubles_the_ejection_up_to_the_longest() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..5 {
            breaker.record(Verdict::Ill, &RULES, now);
        }
        for lasts in [1000, 2000, 3000, 3000] {
            assert!(!breaker.healthy(&RULES, after(now, lasts - 1)), "{lasts}");
            now = after(now, lasts + 1);
            assert!(breaker.healthy(&RULES, now), "{lasts}");
            breaker.begin(&RULES, now);
            breaker.record(Verdict::Ill, &RULES, now);
        }
    }

    #[test]
    fn a_target_that_comes_and_goes_is_ejected_by_its_share() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let answers = (0..100).take_while(|answer| {
            breaker.record(if answer % 2 == 0 { Verdict::Ill } else { Verdict::Well }, &RULES, now);
            breaker.healthy(&RULES, now)
        });
        assert!((15..40).contains(&answers.count()));
    }

    #[test]
    fn what_is_no_fault_of_the_target_never_ejects_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.record(Verdict::Neutral, &RULES, now);
        }
        assert!(breaker.healthy(&RULES, now));
        breaker.record(Verdict::Later(Duration::from_millis(500)), &RULES, now);
        assert!(!breaker.healthy(&RULES, after(now, 499)));
        assert!(breaker.healthy(&RULES, after(now, 501)));
    }

    #[test]
    fn second_tries_are_a_fifth_of_the_requests_when_everything_fails() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let tries = (0..1000).filter(|_| {
            breaker.begin(&RULES, now);
            breaker.affords_a_second_try()
        });
        assert_eq!(tries.count(), 209);
    }
}
