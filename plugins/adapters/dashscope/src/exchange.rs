// SPDX-License-Identifier: Apache-2.0
//! What follows a request: one answer, or for a job the answer to its submission and then questions until it is done.
//!
//! A gateway that has been started anew opens the exchange of a job again, hands it the answer to the submission once
//! more, and goes on asking. So what is done with an answer follows from that answer alone.

use penstock_sdk::dialects::codec::{Operation, StreamDecoder};
use penstock_sdk::dialects::dashscope_native::{
    Progress, decode_progress, decode_response, decode_result, stream_decoder,
};
use penstock_sdk::prelude::{Answer, Event, Exchange, Fault, Frame, Upstream};

use crate::keyed;

/// The response header that says when the vendor has got the request, in milliseconds since 1970.
pub(crate) const ARRIVED: &str = "req-arrive-time";

/// One call to the vendor.
pub struct DashScopeExchange(Kind);

enum Kind {
    /// A conversation, streamed or whole.
    Chat(Box<dyn StreamDecoder>),
    /// Vectors or a ranking.
    Result(Operation),
    /// Pictures or a film.
    Job(Job),
}

impl DashScopeExchange {
    pub(crate) fn chat() -> Self {
        Self(Kind::Chat(stream_decoder()))
    }

    pub(crate) fn result(operation: Operation) -> Self {
        Self(Kind::Result(operation))
    }

    pub(crate) fn job(job: Job) -> Self {
        Self(Kind::Job(job))
    }
}

impl std::fmt::Debug for DashScopeExchange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DashScopeExchange").finish_non_exhaustive()
    }
}

impl Exchange for DashScopeExchange {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        if let Kind::Chat(decoder) = &mut self.0 {
            decoder.frame(frame, events);
        }
        Ok(())
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        match &mut self.0 {
            Kind::Chat(decoder) if answer.body.is_empty() => decoder.end(events),
            Kind::Chat(_) => events.extend(decode_response(answer.body)?),
            Kind::Result(operation) => events.extend(decode_result(*operation, answer.body)?),
            Kind::Job(job) => return job.go_on(answer, events),
        }
        Ok(None)
    }

    fn cancel(&self) -> Option<Upstream> {
        match &self.0 {
            Kind::Job(Job { id: Some(id), has_key, .. }) => {
                Some(keyed(Upstream::post(format!("/tasks/{id}/cancel")), *has_key))
            }
            _ => None,
        }
    }
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    operation: Operation,
    pace: Pace,
    has_key: bool,
    /// The vendor's id of it while it is not done.
    id: Option<String>,
}

impl Job {
    pub(crate) fn new(operation: Operation, pace: Pace, has_key: bool) -> Self {
        Self { operation, pace, has_key, id: None }
    }

    fn go_on(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        self.id = None;
        match decode_progress(self.operation, answer.body)? {
            Progress::Done(done) => {
                events.extend(done);
                Ok(None)
            }
            Progress::Waiting { id, submitted_ms } => {
                let now_ms = answer.headers.get(ARRIVED).and_then(|text| text.parse().ok());
                let question = Upstream::get(format!("/tasks/{id}")).after_ms(self.pace.wait(submitted_ms, now_ms));
                self.id = Some(id);
                Ok(Some(keyed(question, self.has_key)))
            }
        }
    }
}

/// How often a job is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) first_ms: u32,
    pub(crate) max_ms: u32,
}

impl Pace {
    /// How long to wait, in milliseconds: half as long as the job has taken so far by the vendor's clock, so that the waits
    /// grow without being counted. The answer to the submission does not say when that was.
    fn wait(&self, submitted_ms: Option<u64>, now_ms: Option<u64>) -> u32 {
        /// Jobs are kept for a day; a longer time is two clocks that differ.
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let Some(submitted_ms) = submitted_ms else { return self.first_ms };
        let taken = now_ms.and_then(|now_ms| now_ms.checked_sub(submitted_ms)).filter(|taken| *taken < DAY_MS);
        let half = taken.map_or(u64::from(self.first_ms) * 2, |taken| taken / 2);
        u32::try_from(half).unwrap_or(u32::MAX).clamp(self.first_ms, self.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;

    #[test]
    fn waits_grow_with_the_age_of_the_job_and_stay_in_their_bounds() {
        let pace = Pace { first_ms: 1000, max_ms: 5000 };
        let cases = [
            (None, None, 1000),
            (None, Some(9_000), 1000),
            (Some(0), Some(0), 1000),
            (Some(0), Some(3_000), 1500),
            (Some(0), Some(8_000), 4000),
            (Some(0), Some(60_000), 5000),
            (Some(0), None, 2000),
            (Some(9_000), Some(0), 2000),
            (Some(0), Some(8 * 24 * 3600 * 1000), 2000),
        ];
        for (submitted, now, expected) in cases {
            assert_eq!(pace.wait(submitted, now), expected, "{submitted:?} {now:?}");
        }
    }
}
