// SPDX-License-Identifier: Apache-2.0
//! The deadline of one call, fair on a machine that is busy.
//!
//! The clock of the engine counts real time, but a worker that is not given a processor for some milliseconds must not
//! cost an innocent plugin its instance. So there are two looks: at half of the deadline the processor time of the
//! thread is noted, and at the deadline the call is stopped if it has used the time between. If it has not, it gets
//! that time again, up to a bound. A call that ends before half of its deadline, as nearly all do, pays nothing for
//! this.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

/// A call is stopped at this multiple of its deadline even if it was never given a processor.
const EXTENSIONS_MAX: u32 = 20;

/// Watches one call after another.
#[derive(Default)]
pub(super) struct Watch {
    /// Milliseconds between two looks.
    interval_ms: u64,
    /// Processor time of the thread at the first look.
    at_half: Option<Duration>,
    looks: u32,
}

impl Watch {
    /// A call begins; answers with the number of ticks to the first look.
    pub(super) fn begin(&mut self, deadline_ms: u64) -> u64 {
        self.interval_ms = deadline_ms.div_ceil(2).max(1);
        self.at_half = None;
        self.looks = 0;
        // The tick that is under way does not count.
        deadline_ms.saturating_sub(self.interval_ms).saturating_add(1)
    }

    /// The time to look has come: whether the call may go on, and until when.
    pub(super) fn look(&mut self) -> UpdateDeadline {
        let now = processor_time();
        let at_half = *self.at_half.get_or_insert(now);
        let used = now.saturating_sub(at_half);
        // A tick may come early, and interrupts take their share of the thread's time.
        let spent = self.looks > 0 && used >= Duration::from_millis(self.interval_ms).mul_f32(0.75);
        self.looks += 1;
        if spent || self.looks > EXTENSIONS_MAX {
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue(self.interval_ms)
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn burn(time: Duration) {
        let begin = processor_time();
        while processor_time() - begin < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_call_that_uses_its_time_is_stopped_at_the_second_look() {
        let mut watch = Watch::default();
        assert_eq!(watch.begin(5), 3);
        assert!(matches!(watch.look(), UpdateDeadline::Continue(3)));
        burn(Duration::from_millis(4));
        assert!(matches!(watch.look(), UpdateDeadline::Interrupt));
    }

    #[test]
    fn a_call_that_was_given_no_processor_goes_on_but_not_for_ever() {
        let mut watch = Watch::default();
        watch.begin(10_000);
        let begin = Instant::now();
        let looks = std::iter::from_fn(|| Some(watch.look()))
            .take(1000)
            .take_while(|look| !matches!(look, UpdateDeadline::Interrupt));
        assert_eq!(looks.count(), EXTENSIONS_MAX as usize);
        assert!(begin.elapsed() < Duration::from_secs(5), "it used next to nothing");
    }
}
