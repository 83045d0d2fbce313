// SPDX-License-Identifier: Apache-2.0
//! Refuses requests early when the gateway is over its head, so that those that it takes stay fast.
//!
//! What the gateway lacks under load is its turn of a processor. That is measured: a task of its own wakes every [`TICK`], goes to the end of
//! the queue, and sees how late it is. Where it is late for a while, the processors have more to do than they can, and no more requests
//! are admitted than are finished in the time that one takes when all is well and `limits.shed_delay_ms` (Little's law: as many are under
//! way as are finished in a second, times the seconds that each takes). So the ceiling finds by itself what the machine can do, whatever
//! requests cost, and whatever they wait for at their vendors; where no task is late, it rises again. A crowd that comes at once is met
//! before that task has had its turn: while it waits for long, about twice as many as usual are admitted. Above all that stands a hard
//! ceiling, `limits.requests_max`.
//!
//! On the path that is two loads, and a look at the clock when there are many. Machines that ask how the gateway is, and operators, are never refused.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::flood::Flood;
use crate::random;

/// How often it is looked how late tasks are.
const TICK: Duration = Duration::from_millis(20);
/// As late as this a task may be because timers count in milliseconds, and because two or three are before it.
const PUNCTUAL: Duration = Duration::from_millis(2);
/// So many looks in a row must be late, or two that are late by as much as that together: one may be anything.
const LATE_LOOKS: u32 = 5;
const LATE: Duration = Duration::from_millis(100);
/// After so long without a late look, the next crowd is met like the first one; before that, at once.
const CALM: Duration = Duration::from_secs(1);
/// Over which time it is averaged how many requests are finished.
const MEMORY: Duration = Duration::from_secs(1);
/// By this part the ceiling rises, in the time that a request takes: sooner, what was admitted has not shown yet what it costs.
const RISE: f64 = 0.3;
/// The lowest ceiling: so many are needed to find out that it goes better.
const LEAST: f64 = 8.0;
/// So few are no crowd.
const FEW: usize = 64;
/// After the log has spoken of it, it is silent about it for so long.
const SILENCE: Duration = Duration::from_secs(10);
/// Callers are asked to wait for so long at least, and twice that at most, so that they do not come back all at once.
const WAIT_MS: u64 = 1000;

/// Decides who is admitted.
#[derive(Debug)]
pub struct Shed {
    /// How long requests may wait for processors; none if nobody asks.
    bearable: Option<Duration>,
    requests_max: usize,
    /// How many requests may be under way at present.
    ceiling: AtomicUsize,
    /// How many may be while the task that looks waits for its turn.
    crowd: AtomicUsize,
    begin: Instant,
    /// Since when it waits, in microseconds since `begin`; the greatest number if it does not.
    waits_us: AtomicU64,
    refused: AtomicU64,
    lines: Flood,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There are as many as there may be at a time.
    Full,
    /// Those that are there wait too long for a processor.
    Late,
}

/// Requests since the start, refused ones included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    /// Those that have ended.
    pub ended: u64,
    /// What they took together, in microseconds.
    pub took_us: u64,
}

impl Shed {
    /// As the configuration says. Until [`Self::watch`] runs only the hard ceiling is kept.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self {
            bearable: (limits.shed_delay_ms > 0).then(|| Duration::from_millis(limits.shed_delay_ms)),
            requests_max: limits.requests_max,
            ceiling: AtomicUsize::new(limits.requests_max),
            crowd: AtomicUsize::new(limits.requests_max),
            begin: Instant::now(),
            waits_us: AtomicU64::new(u64::MAX),
            refused: AtomicU64::new(0),
            lines: Flood::new(),
        }
    }

    /// Whether one more is admitted when so many are under way.
    ///
    /// # Errors
    /// It is to be refused.
    pub fn admit(&self, under_way: usize) -> Result<(), Reason> {
        let mut ceiling = self.ceiling();
        if under_way > FEW && self.waits() > LATE {
            ceiling = ceiling.min(self.crowd.load(Ordering::Relaxed));
        }
        if under_way < ceiling {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(if under_way < self.requests_max { Reason::Late } else { Reason::Full })
    }

    /// How many requests may be under way at present.
    #[must_use]
    pub fn ceiling(&self) -> usize {
        self.ceiling.load(Ordering::Relaxed)
    }

    /// For how long the task that looks has waited for its turn.
    fn waits(&self) -> Duration {
        let since = Duration::from_micros(self.waits_us.load(Ordering::Relaxed));
        self.begin.elapsed().saturating_sub(since)
    }

    /// How long somebody who was refused should wait, in milliseconds.
    #[must_use]
    pub fn wait_ms() -> u64 {
        WAIT_MS + random::u64() % WAIT_MS
    }

    /// Whether the log has a line for somebody who was refused; if so, for how many before it had none. When everybody is refused, a
    /// line for each of them costs as much as the refusal.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.lines.admit()
    }

    /// Looks how late tasks are, and how many requests are finished meanwhile, for ever. It must run beside the requests, among the
    /// same threads.
    pub async fn watch(&self, count: impl Fn() -> Count) -> Infallible {
        let Some(bearable) = self.bearable else { return std::future::pending().await };
        let (mut course, mut told) = (Course::new(bearable, self.requests_max), None::<Instant>);
        let now = || (count(), self.refused.load(Ordering::Relaxed), Instant::now(), processor_time());
        let mut before = now();
        loop {
            tokio::time::sleep(TICK).await;
            self.waits_us.store(u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            turn().await;
            self.waits_us.store(u64::MAX, Ordering::Relaxed);
            let after = now();
            let span = after.2.duration_since(before.2);
            let worked = after.3.saturating_sub(before.3);
            let look = Look {
                late: own(span.saturating_sub(TICK), span, worked),
                span,
                // What was refused took no time.
                finished: (after.0.ended - before.0.ended).saturating_sub(after.1 - before.1),
                took: Duration::from_micros(after.0.took_us.saturating_sub(before.0.took_us)),
            };
            before = after;
            self.ceiling.store(course.after(&look), Ordering::Relaxed);
            self.crowd.store(course.crowd(), Ordering::Relaxed);
            if course.is_late() && told.is_none_or(|told| told.elapsed() > SILENCE) {
                told = Some(Instant::now());
                let late_ms = crate::clock::millis(look.late);
                let ceiling = self.ceiling();
                tracing::warn!(
                    late_ms,
                    ceiling,
                    "the processors have more to do than they can: no more requests than this ceiling are under way"
                );
            }
        }
    }
}

/// Comes back after all tasks that were ready before. One that a timer wakes is taken out of turn, as one that a message wakes is; one
/// that wakes itself goes to the end of the queue, where those stand that wait for their connections.
async fn turn() {
    let mut had = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What this process has had of processors.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// How much of a delay is our own work, of a span in which we have had so much of processors: what other programs take, or a host that
/// gives less, is no queue that is shorter for fewer requests.
fn own(late: Duration, span: Duration, worked: Duration) -> Duration {
    late.mul_f64((worked.as_secs_f64() / span.as_secs_f64().max(f64::EPSILON)).min(1.0))
}

/// What was seen since the look before.
#[derive(Debug, Clone, Copy)]
struct Look {
    late: Duration,
    span: Duration,
    /// Requests that were finished.
    finished: u64,
    /// What they took, together.
    took: Duration,
}

/// How the ceiling goes on from look to look.
#[derive(Debug)]
struct Course {
    bearable: f64,
    highest: f64,
    ceiling: f64,
    /// Late looks in a row, and how late they were together.
    late: (u32, Duration),
    /// Time since the last look at which there was too much to do.
    calm: Duration,
    /// Requests that were finished, what they took, and in what time; what is long ago counts less. In seconds.
    finished: f64,
    took: f64,
    span: f64,
    /// What a request takes when all is well, in seconds.
    usual: f64,
}

impl Course {
    fn new(bearable: Duration, requests_max: usize) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "there are no 2^52 requests at a time")]
        let highest = requests_max as f64;
        let (bearable, ceiling, late) = (bearable.as_secs_f64(), highest, (0, Duration::ZERO));
        Self { bearable, highest, ceiling, late, calm: CALM, finished: 0.0, took: 0.0, span: 0.0, usual: 0.0 }
    }

    /// Whether there was too much to do at the last look.
    fn is_late(&self) -> bool {
        self.calm.is_zero()
    }

    /// The ceiling after this was seen.
    fn after(&mut self, look: &Look) -> usize {
        let is_late = look.late > PUNCTUAL;
        if is_late && self.late.0 == 0 && self.calm >= CALM {
            // A quiet time says nothing of what the processors can do.
            (self.finished, self.took, self.span) = (0.0, 0.0, 0.0);
        }
        self.remember(look);
        self.late = if is_late { (self.late.0 + 1, self.late.1 + look.late) } else { (0, Duration::ZERO) };
        let (looks, together) = self.late;
        if looks >= LATE_LOOKS || (looks >= 2 && together > LATE) || (is_late && self.calm < CALM) {
            self.calm = Duration::ZERO;
            self.ceiling = self.doable();
        } else {
            self.calm += look.span;
            self.ceiling *= 1.0 + RISE * look.span.as_secs_f64() / (self.usual + self.bearable);
            self.learn(look, is_late);
        }
        self.ceiling = self.ceiling.clamp(LEAST.min(self.highest), self.highest);
        whole(self.ceiling)
    }

    /// How many may be there at once before that is too much for anybody who does as much as was done of late.
    fn crowd(&self) -> usize {
        whole(2.0 * self.doable()) + FEW
    }

    /// As many as are finished in the time that one may take.
    fn doable(&self) -> f64 {
        self.finished / self.span * (self.usual + self.bearable)
    }

    fn remember(&mut self, look: &Look) {
        #[allow(clippy::cast_precision_loss, reason = "there are no 2^52 requests between two looks")]
        let finished = look.finished as f64;
        let kept = (-look.span.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.finished = self.finished * kept + finished;
        self.took = self.took * kept + look.took.as_secs_f64();
        self.span = self.span * kept + look.span.as_secs_f64();
    }

    /// What a request takes when all is well. Soon after a crowd, those that have waited are among the finished ones: then it can only
    /// be less.
    fn learn(&mut self, look: &Look, is_late: bool) {
        if self.finished < 0.5 {
            return;
        }
        let took = self.took / self.finished;
        if self.calm >= CALM && !is_late {
            self.usual += (took - self.usual) * (look.span.as_secs_f64() / (2.0 * MEMORY.as_secs_f64())).min(1.0);
        } else {
            self.usual = self.usual.min(took);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of requests; `as` saturates")]
fn whole(requests: f64) -> usize {
    requests as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEARABLE: Duration = Duration::from_millis(200);

    /// One processor that does a bit of each request in turn: so much work each, in seconds, in turns of so much. The share of its time
    /// in which it did what it was asked for, the longest that one took of the second half, and how many were refused.
    fn overloaded(work: f64, turn: f64, per_s: f64) -> (f64, f64, u64) {
        const STEP: f64 = 0.001;
        let mut course = Course::new(BEARABLE, 16_384);
        let (mut jobs, mut queue, mut ceiling) = (Vec::<(f64, f64)>::new(), 0.0, 16_384);
        let (mut now, mut looked, mut due, mut late, mut finished, mut took) = (0.0, 0.0, None, 0.0, 0, 0.0);
        let (mut busy, mut longest, mut refused) = (0.0_f64, 0.0_f64, 0);
        while now < 12.0 {
            // First as many as it can do easily.
            queue += STEP * if now < 3.0 { 0.2 / work } else { per_s };
            while queue >= 1.0 {
                queue -= 1.0;
                let waits = due.map_or(0.0, |due: f64| now - (due - late));
                let most = if waits > LATE.as_secs_f64() { ceiling.min(course.crowd()) } else { ceiling };
                if jobs.len() < most { jobs.push((now, work)) } else { refused += 1 }
            }
            let mut left = STEP;
            while left > 1e-9 && !jobs.is_empty() {
                let part = left / jobs.len() as f64;
                let part = part.min(jobs.iter().map(|(_, left)| *left).fold(f64::MAX, f64::min));
                left -= part * jobs.len() as f64;
                jobs.iter_mut().for_each(|(_, left)| *left -= part);
                jobs.retain(|(begun, left)| {
                    let is_done = *left <= 1e-9;
                    if is_done {
                        (finished, took) = (finished + 1, took + now - begun);
                        longest = if now > 8.0 { longest.max(now - begun) } else { longest };
                    }
                    !is_done
                });
            }
            busy += if now > 4.0 { STEP - left.max(0.0) } else { 0.0 };
            now += STEP;
            // The task that looks has its turn after those that were there when it woke.
            if due.is_none() && now - looked >= TICK.as_secs_f64() {
                late = jobs.len() as f64 * turn;
                due = Some(now + late);
            }
            if due.is_some_and(|due| now >= due) {
                let span = Duration::from_secs_f64(now - looked);
                let look =
                    Look { late: Duration::from_secs_f64(late), span, finished, took: Duration::from_secs_f64(took) };
                ceiling = course.after(&look);
                (looked, due, finished, took) = (now, None, 0, 0.0);
            }
        }
        (busy / 8.0, longest, refused)
    }

    #[test]
    fn under_ten_times_the_load_the_machine_works_on_and_nobody_waits_long_however_many_turns_a_request_takes() {
        for (work, turn) in [(0.004, 0.000_02), (0.004, 0.000_2), (0.004, 0.004), (0.000_5, 0.000_1), (0.05, 0.000_5)] {
            for times in [1.5, 10.0] {
                let (busy, longest, refused) = overloaded(work, turn, times / work);
                assert!(busy > 0.95, "{work} {turn} {times}: {busy}");
                assert!(longest < 0.45 + work * 2.0, "{work} {turn} {times}: {longest}");
                assert!(refused > 0);
            }
            assert_eq!(overloaded(work, turn, 0.9 / work).2, 0, "{work} {turn}");
        }
    }

    fn look(late_ms: u64, finished: u32, took_ms: u64) -> Look {
        let span = TICK + Duration::from_millis(late_ms);
        Look {
            late: Duration::from_millis(late_ms),
            span,
            finished: finished.into(),
            took: Duration::from_millis(took_ms) * finished,
        }
    }

    #[test]
    fn one_late_look_refuses_nobody_and_after_a_crowd_everybody_is_admitted_again() {
        let mut course = Course::new(BEARABLE, 1000);
        assert_eq!(course.after(&look(80, 20, 10)), 1000);
        assert_eq!(course.after(&look(0, 20, 10)), 1000);
        let ceiling = (0..50).map(|_| course.after(&look(5, 20, 10))).last();
        assert!(ceiling < Some(300), "{ceiling:?}");
        let looks = (0..10_000).take_while(|_| course.after(&look(0, 20, 10)) < 1000).count();
        assert!(looks < 200, "{looks}");
    }

    #[test]
    fn a_thousand_that_come_at_once_after_a_quiet_time_are_served_if_they_are_quickly_done() {
        let mut course = Course::new(BEARABLE, 16_384);
        for _ in 0..1000 {
            course.after(&look(0, 0, 0));
        }
        // Ten thousand a second, each of whom waits for a tenth of a second in the end.
        let lowest = (0..20).map(|_| course.after(&look(60, 800, 100))).min();
        assert!(lowest > Some(1500), "{lowest:?}");
    }

    #[test]
    fn who_waits_for_a_vendor_has_room_beside_those_who_wait_for_a_processor() {
        let mut course = Course::new(BEARABLE, 100_000);
        for _ in 0..1000 {
            course.after(&look(0, 10, 2000));
        }
        let ceiling = (0..50).map(|_| course.after(&look(5, 12, 2100))).last();
        // About 500 a second, each of whom takes 2 seconds when all is well.
        assert!((Some(900)..Some(1300)).contains(&ceiling), "{ceiling:?}");
    }

    #[test]
    fn what_others_take_of_the_processors_is_no_reason_to_refuse_anybody() {
        let ms = Duration::from_millis;
        for (late, span, worked, own_part) in
            [(80, 100, 100, 80), (80, 100, 200, 80), (80, 100, 25, 20), (80, 100, 0, 0)]
        {
            assert_eq!(own(ms(late), ms(span), ms(worked)), ms(own_part));
        }
        assert_eq!(own(Duration::ZERO, Duration::ZERO, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn there_are_no_more_under_way_than_there_may_be() {
        let limits = Limits { requests_max: 2, shed_delay_ms: 20, ..Limits::default() };
        let shed = Shed::new(&limits);
        assert_eq!([0, 1, 2].map(|count| shed.admit(count)), [Ok(()), Ok(()), Err(Reason::Full)]);
        shed.ceiling.store(1, Ordering::Relaxed);
        assert_eq!([0, 1, 2].map(|count| shed.admit(count)), [Ok(()), Err(Reason::Late), Err(Reason::Full)]);
        assert!((WAIT_MS..2 * WAIT_MS).contains(&Shed::wait_ms()));
    }

    #[test]
    fn a_crowd_is_met_while_the_task_that_looks_waits_for_its_turn() {
        let mut shed = Shed::new(&Limits { requests_max: 1000, ..Limits::default() });
        shed.crowd.store(100, Ordering::Relaxed);
        assert_eq!(shed.admit(500), Ok(()));
        shed.begin -= 2 * LATE;
        shed.waits_us.store(0, Ordering::Relaxed);
        assert_eq!([FEW, 99, 100].map(|count| shed.admit(count)), [Ok(()), Ok(()), Err(Reason::Late)]);
    }
}
