// SPDX-License-Identifier: Apache-2.0
//! Refuses requests early when the gateway is over its head, so that those that it takes stay fast.
//!
//! What the gateway lacks under load is its turn of a processor. That is measured: a task of its own wakes every [`TICK`] and sees how
//! late it is, which is what each step of each request waits, too. Where that is more than `limits.shed_delay_ms` twice in a row and gets no
//! better, fewer requests are admitted; where it is less, more are. So the share that is admitted finds by itself what the machine can
//! do, whatever requests cost. A crowd that comes at once is met before that: while the task should have woken and has not, the longer it
//! is late, the fewer are admitted. Beside it stands a hard ceiling of requests under way, `limits.requests_max`.
//!
//! On the path that is two loads while all is well. Machines that ask how the gateway is, and operators, are never refused.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::random;

/// How often it is looked how late tasks are.
const TICK: Duration = Duration::from_millis(20);
/// Everybody is admitted.
const ALL: f64 = 1.0;
/// The smallest share of requests that is admitted: so many are needed to find out that it goes better.
const LEAST: f64 = 0.01;
/// The share is at least this part of what it was, and at most that, from one look to the next.
const LESS: f64 = 0.7;
const MORE: f64 = 1.1;
/// After the log has spoken of it, it is silent about it for so long.
const SILENCE: Duration = Duration::from_secs(10);
/// Callers are asked to wait for so long at least, and twice that at most, so that they do not come back all at once.
const WAIT_MS: u64 = 1000;

/// Decides who is admitted.
#[derive(Debug)]
pub struct Shed {
    /// How late tasks may be; none if nobody asks.
    target: Option<Duration>,
    requests_max: usize,
    /// The share that is admitted, of 2^32 - 1.
    share: AtomicU32,
    begin: Instant,
    /// When the task that looks should wake, in microseconds since `begin`.
    due_us: AtomicU64,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There are as many as there may be at a time.
    Full,
    /// Tasks wait too long for their turn.
    Late,
}

impl Shed {
    /// As the configuration says. Until [`Self::watch`] runs only the ceiling is kept.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let target = (limits.shed_delay_ms > 0).then(|| Duration::from_millis(limits.shed_delay_ms));
        Self {
            target,
            requests_max: limits.requests_max,
            share: AtomicU32::new(u32::MAX),
            begin: Instant::now(),
            due_us: AtomicU64::new(u64::MAX),
        }
    }

    /// Whether one more is admitted that has come just `now`; `under_way` has it counted already.
    ///
    /// # Errors
    /// It is to be refused.
    pub fn admit(&self, under_way: usize, now: Instant) -> Result<(), Reason> {
        if under_way > self.requests_max {
            return Err(Reason::Full);
        }
        let late_us = self.us(now).saturating_sub(self.due_us.load(Ordering::Relaxed));
        let mut share = u64::from(self.share.load(Ordering::Relaxed));
        if let Some(target) = self.target.map(us).filter(|target| late_us > *target) {
            share = share * target / late_us;
        }
        if share >= u64::from(u32::MAX) || random::u64() >> 32 <= share { Ok(()) } else { Err(Reason::Late) }
    }

    fn us(&self, now: Instant) -> u64 {
        us(now.saturating_duration_since(self.begin))
    }

    /// How long somebody who was refused should wait, in milliseconds.
    #[must_use]
    pub fn wait_ms() -> u64 {
        WAIT_MS + random::u64() % WAIT_MS
    }

    /// The share of requests that is admitted, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        f64::from(self.share.load(Ordering::Relaxed)) / f64::from(u32::MAX)
    }

    /// Looks how late tasks are, for ever. It must run beside the requests, among the same threads.
    pub async fn watch(&self) -> Infallible {
        let Some(target) = self.target else { return std::future::pending().await };
        let (mut course, mut told) = (Course::new(target), None::<Instant>);
        loop {
            let begun = Instant::now();
            self.due_us.store(self.us(begun + TICK), Ordering::Relaxed);
            tokio::time::sleep(TICK).await;
            let now = Instant::now();
            let late = now.duration_since(begun).saturating_sub(TICK);
            let was = course.share;
            let share = course.after(late);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32 - 1")]
            self.share.store((share * f64::from(u32::MAX)) as u32, Ordering::Relaxed);
            if was >= ALL && share < ALL && told.is_none_or(|told| now.duration_since(told) > SILENCE) {
                told = Some(now);
                let late_ms = crate::clock::millis(late);
                tracing::warn!(
                    late_ms,
                    "requests are refused: tasks wait longer than limits.shed_delay_ms for their turn"
                );
            }
        }
    }
}

fn us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// How the share goes on from look to look.
#[derive(Debug)]
struct Course {
    target: Duration,
    share: f64,
    before: Duration,
}

impl Course {
    fn new(target: Duration) -> Self {
        Self { target, share: ALL, before: Duration::ZERO }
    }

    /// The share after tasks were so late. One late look may be anything; and what was admitted before must be worked off first, so that
    /// it is not lowered while it gets better.
    fn after(&mut self, late: Duration) -> f64 {
        let ratio = late.as_secs_f64() / self.target.as_secs_f64();
        if ratio <= 1.0 {
            self.share = (self.share * (1.0 + (MORE - 1.0) * (1.0 - ratio)) + LEAST / 10.0).min(ALL);
        } else if self.before > self.target && late.as_secs_f64() > self.before.as_secs_f64() * 0.9 {
            self.share = (self.share * ratio.recip().max(LESS)).max(LEAST);
        }
        self.before = late;
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(20);

    /// A machine that does so many requests in a look, and is offered so many: what it has done in the second half of the looks, and how
    /// late it was then at most.
    fn overloaded(capacity: f64, offered: f64, looks: u32) -> (f64, Duration, f64) {
        let (mut course, mut queue, mut done) = (Course::new(TARGET), 0.0_f64, 0.0);
        let mut latest = Duration::ZERO;
        for look in 0..looks {
            queue += offered * course.share;
            let served = queue.min(capacity);
            queue -= served;
            let late = TICK.mul_f64(queue / capacity);
            course.after(late);
            if look >= looks / 2 {
                done += served;
                latest = latest.max(late);
            }
        }
        (done / (capacity * f64::from(looks / 2)), latest, course.share)
    }

    #[test]
    fn under_ten_times_the_load_the_machine_works_on_and_nobody_waits_long() {
        for times in [1.5, 3.0, 10.0, 50.0] {
            let (goodput, latest, _) = overloaded(100.0, 100.0 * times, 2000);
            assert!(goodput > 0.95 && latest < TARGET * 8, "{times} times: {goodput} {latest:?}");
        }
        let (_, _, share) = overloaded(100.0, 99.0, 2000);
        assert!(share >= ALL, "{share}");
    }

    #[test]
    fn one_late_look_refuses_nobody_and_after_a_crowd_everybody_is_admitted_again() {
        let mut course = Course::new(TARGET);
        course.after(TARGET * 50);
        assert!(course.after(Duration::ZERO) >= ALL);
        for _ in 0..100 {
            course.after(TARGET * 50);
        }
        assert!(course.share <= LEAST);
        let looks = (0..200).take_while(|_| course.after(Duration::ZERO) < ALL).count();
        assert!(looks < 60, "{looks}");
    }

    #[test]
    fn there_are_no_more_under_way_than_there_may_be() {
        let limits = Limits { requests_max: 2, shed_delay_ms: 20, ..Limits::default() };
        let shed = Shed::new(&limits);
        assert_eq!([1, 2, 3].map(|count| shed.admit(count, Instant::now())), [Ok(()), Ok(()), Err(Reason::Full)]);
        shed.share.store(u32::MAX / 2, Ordering::Relaxed);
        let admitted = (0..10_000).filter(|_| shed.admit(1, Instant::now()).is_ok()).count();
        assert!((4000..6000).contains(&admitted), "{admitted}");
        shed.share.store(u32::MAX, Ordering::Relaxed);
        shed.due_us.store(0, Ordering::Relaxed);
        let late = |times: u32| (0..10_000).filter(|_| shed.admit(1, shed.begin + TARGET * times).is_ok()).count();
        assert_eq!(late(1), 10_000);
        assert!((1500..2500).contains(&late(5)), "a crowd is met before the next look");
        assert!((WAIT_MS..2 * WAIT_MS).contains(&Shed::wait_ms()));
    }
}
