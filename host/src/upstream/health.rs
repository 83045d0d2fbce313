// SPDX-License-Identifier: Apache-2.0
//! How an endpoint is doing: exchanges in flight, time to the first byte, and a circuit breaker. All of it is atomics, so that
//! routing can ask for every candidate of every request.
//!
//! The breaker opens after [`FAILURES_MAX`] failures in a row, for [`COOL_DOWN`]. After that the first exchange that
//! begins is the probe: by beginning it moves the end of the cool-down on, so that everybody else keeps away until it has
//! succeeded (which closes the breaker) or another cool-down has passed. A probe that is dropped leaves nothing to undo.
//!
//! An open breaker is advice: nothing here refuses to send, because with all targets down the caller's request is as good a
//! probe as any.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures in a row that open the breaker.
pub const FAILURES_MAX: u32 = 5;
/// How long an open breaker keeps requests away before a probe.
pub const COOL_DOWN: Duration = Duration::from_secs(5);
/// Exchanges that share one lane of connections; see [`Busy::lane`]. Servers commonly allow 100 streams on one HTTP/2
/// connection, which is also the least that RFC 9113 section 6.5.2 recommends.
pub const LANE_EXCHANGES: u32 = 100;
/// Lanes of an endpoint. Beyond `LANES * LANE_EXCHANGES` exchanges the lanes are loaded evenly.
pub const LANES: usize = 64;
/// Weight of a new sample in the moving average is one in this many.
const AVERAGE_WEIGHT: u64 = 8;

/// State of one endpoint; shared by all generations that have the endpoint.
#[derive(Debug)]
pub struct Health {
    in_flight: AtomicU32,
    lanes: [AtomicU32; LANES],
    first_byte_us: AtomicU64,
    failures: AtomicU32,
    open_until_us: AtomicU64,
    lost_us: AtomicU64,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered, after this time.
    Answered(Duration),
    /// It answered in a way that says nothing about its health.
    Neutral,
    /// It could not be reached, was too late, or said that it is down.
    Failed,
    /// It broke off an exchange that had begun at this time. One lost connection takes all its exchanges along, which is still
    /// one failure: only an exchange that had begun after the last loss counts.
    Lost(Instant),
}

impl Default for Health {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            lanes: std::array::from_fn(|_| AtomicU32::new(0)),
            first_byte_us: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            open_until_us: AtomicU64::new(0),
            lost_us: AtomicU64::new(0),
        }
    }
}

impl Health {
    /// Exchanges that have begun and whose answer has not been read to its end or dropped.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Moving average of the time to the first byte; zero before the first answer.
    pub fn first_byte(&self) -> Duration {
        Duration::from_micros(self.first_byte_us.load(Ordering::Relaxed))
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether to send a request here: the breaker is closed, or its cool-down is over and nobody has begun a probe.
    pub fn healthy(&self, now: Instant) -> bool {
        self.failures() < FAILURES_MAX || clock(now) >= self.open_until_us.load(Ordering::Acquire)
    }

    /// Counts an exchange in until the guard is dropped. With an open breaker whose cool-down is over, this is the probe.
    pub fn begin(self: &Arc<Self>, now: Instant) -> Busy {
        if self.failures() >= FAILURES_MAX {
            let until = self.open_until_us.load(Ordering::Acquire);
            let now = clock(now);
            if now >= until {
                let next = now.saturating_add(micros(COOL_DOWN));
                // Losing the race means that somebody else is the probe; this exchange goes on all the same.
                let _ = self.open_until_us.compare_exchange(until, next, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let lane = self.lane(before);
        self.lanes[lane].fetch_add(1, Ordering::Relaxed);
        Busy { health: Arc::clone(self), lane, begun: now }
    }

    /// Takes note of an outcome.
    pub fn record(&self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Neutral => {}
            Outcome::Answered(first_byte) => {
                let sample = u64::try_from(first_byte.as_micros()).unwrap_or(u64::MAX / AVERAGE_WEIGHT);
                let old = self.first_byte_us.load(Ordering::Relaxed);
                // Two samples at the same time may lose one of them: it is an average.
                let new = if old == 0 { sample.max(1) } else { (old * (AVERAGE_WEIGHT - 1) + sample) / AVERAGE_WEIGHT };
                self.first_byte_us.store(new, Ordering::Relaxed);
                if self.failures() != 0 {
                    self.failures.store(0, Ordering::Release);
                }
            }
            Outcome::Failed => self.failed(now),
            Outcome::Lost(begun) => {
                let last = self.lost_us.fetch_max(clock(now), Ordering::AcqRel);
                if clock(begun) > last {
                    self.failed(now);
                }
            }
        }
    }

    fn failed(&self, now: Instant) {
        let until = clock(now).saturating_add(micros(COOL_DOWN));
        if self.failures.load(Ordering::Relaxed) + 1 >= FAILURES_MAX {
            self.open_until_us.fetch_max(until, Ordering::AcqRel);
        }
        // Stops far above the threshold, so that it cannot wrap to "healthy".
        let _ = self.failures.try_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < u32::MAX / 2).then_some(n + 1));
    }

    /// The first lane with room: low lanes fill first, so that idle connections gather there.
    fn lane(&self, in_flight: u32) -> usize {
        let room = self.lanes.iter().position(|lane| lane.load(Ordering::Relaxed) < LANE_EXCHANGES);
        room.unwrap_or(in_flight as usize % LANES)
    }
}

/// One exchange in flight at an endpoint; gives itself back on drop.
#[derive(Debug)]
pub struct Busy {
    health: Arc<Health>,
    lane: usize,
    begun: Instant,
}

impl Busy {
    /// When the exchange began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The lane of connections that the exchange uses. A pooled client keeps one HTTP/2 connection for each host and queues
    /// what exceeds the peer's stream limit on it; with a client for each lane a further connection is opened instead.
    pub fn lane(&self) -> usize {
        self.lane
    }

    /// The endpoint's state.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.health.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.health.lanes[self.lane].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Microseconds on a clock of this process. It starts a little before the first call, since other threads may have taken their
/// time before that.
pub(super) fn clock(now: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(|| now.checked_sub(COOL_DOWN).unwrap_or(now));
    micros(now.saturating_duration_since(*start)).saturating_add(1)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(health: &Health, times: u32, now: Instant) {
        for _ in 0..times {
            health.record(Outcome::Failed, now);
        }
    }

    #[test]
    fn the_breaker_opens_after_failures_in_a_row_and_admits_one_probe_after_the_cool_down() {
        let health = Arc::new(Health::default());
        let start = Instant::now();
        failed(&health, FAILURES_MAX - 1, start);
        health.record(Outcome::Answered(Duration::from_millis(3)), start);
        failed(&health, FAILURES_MAX - 1, start);
        assert!(health.healthy(start), "an answer in between starts the count again");
        failed(&health, 1, start);
        assert!(!health.healthy(start));
        assert!(!health.healthy(start + COOL_DOWN - Duration::from_millis(1)));

        let later = start + COOL_DOWN;
        assert!(health.healthy(later));
        let probe = health.begin(later);
        assert!(!health.healthy(later), "one probe at a time");
        probe.health().record(Outcome::Failed, later);
        assert!(!health.healthy(later + COOL_DOWN - Duration::from_millis(1)));

        let again = later + COOL_DOWN;
        assert!(health.healthy(again));
        drop(health.begin(again));
        assert!(!health.healthy(again));
        assert!(health.healthy(again + COOL_DOWN), "a probe that was dropped does not keep the endpoint out for ever");
        health.record(Outcome::Answered(Duration::from_millis(3)), again);
        assert!(health.healthy(again));
    }

    #[test]
    fn exchanges_in_flight_give_themselves_and_their_lane_back() {
        let health = Arc::new(Health::default());
        let now = Instant::now();
        let mut busy: Vec<Busy> = (0..LANE_EXCHANGES + 1).map(|_| health.begin(now)).collect();
        assert_eq!(health.in_flight(), LANE_EXCHANGES + 1);
        assert_eq!((busy[0].lane(), busy.last().map(Busy::lane)), (0, Some(1)));
        busy.swap_remove(0);
        assert_eq!(health.begin(now).lane(), 0, "room in a low lane is used first");
        drop(busy);
        assert_eq!(health.in_flight(), 0);
    }

    #[test]
    fn a_lost_connection_is_one_failure_however_many_exchanges_it_takes_along() {
        let health = Health::default();
        let start = Instant::now();
        let lost = start + Duration::from_secs(1);
        for _ in 0..100 {
            health.record(Outcome::Lost(start), lost);
        }
        assert_eq!(health.failures(), 1);
        health.record(Outcome::Lost(lost + Duration::from_secs(1)), lost + Duration::from_secs(2));
        assert_eq!(health.failures(), 2);
    }

    #[test]
    fn the_average_follows_the_samples() {
        let health = Health::default();
        let now = Instant::now();
        health.record(Outcome::Answered(Duration::from_millis(80)), now);
        assert_eq!(health.first_byte(), Duration::from_millis(80));
        health.record(Outcome::Answered(Duration::from_millis(160)), now);
        assert_eq!(health.first_byte(), Duration::from_millis(90));
    }
}
