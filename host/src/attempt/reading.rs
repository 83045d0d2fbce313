// SPDX-License-Identifier: Apache-2.0
//! Reads what an upstream answers, as far as it must be read before the caller gets anything.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use penstock_dialects::splice::is_json;

use super::Asking;
use crate::failure::{Failure, Kind};
use crate::relay::pump::Pump;
use crate::upstream::Answer as UpstreamAnswer;

impl Asking<'_> {
    /// Waits until a stream has something to say, and answers whether there is more to come. While another target could be
    /// tried, what stands before the first word says nothing yet, an error is a reason to go there, and so is silence.
    pub(super) async fn first_bytes(
        &self,
        body: &mut UpstreamAnswer,
        pump: &mut Pump,
        ready: &mut VecDeque<Bytes>,
        judge: bool,
    ) -> Result<bool, Failure> {
        if !judge {
            return self.first_ready(body, pump, ready, false).await;
        }
        let limit = Duration::from_millis(self.underway.snapshot.timeouts.first_word_ms);
        let first = tokio::time::timeout(limit, self.first_ready(body, pump, ready, true)).await;
        first.unwrap_or_else(|_| {
            let text = format!("the upstream began a stream and said nothing for {} ms", limit.as_millis());
            Err(Failure::new(Kind::UpstreamTimeout, text))
        })
    }

    async fn first_ready(
        &self,
        body: &mut UpstreamAnswer,
        pump: &mut Pump,
        ready: &mut VecDeque<Bytes>,
        judge: bool,
    ) -> Result<bool, Failure> {
        while ready.is_empty() || judge && !pump.has_begun() {
            let Some(chunk) = self.next(body).await? else {
                pump.end(ready)?;
                return Ok(false);
            };
            pump.chunk(chunk, ready)?;
            if let Some(fault) = pump.fault().filter(|_| judge) {
                return Err(Failure::refused(fault));
            }
        }
        Ok(true)
    }

    pub(super) async fn next(&self, body: &mut UpstreamAnswer) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::cut(&error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads a whole 2xx answer. One that only the end of the connection ends must prove by itself that it is whole.
    pub(super) async fn collect_whole(&self, mut body: UpstreamAnswer) -> Result<Bytes, Failure> {
        self.speaks.store(true, Ordering::Relaxed);
        let whole = self.collect(&mut body, self.underway.snapshot.limits.answer_bytes_max).await?;
        if body.is_close_delimited() && !is_sound(&whole) {
            return Err(Failure::new(Kind::Cut, "the upstream broke off before its answer was complete"));
        }
        Ok(whole)
    }

    pub(super) fn no_answer(&self, why: &str) -> Failure {
        let dialect = self.inbound.asked.dialect.name();
        Failure::new(Kind::BadAnswer, format!("what the upstream answered in {dialect} {why}"))
    }

    pub(super) async fn collect(&self, body: &mut UpstreamAnswer, bytes_max: usize) -> Result<Bytes, Failure> {
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = self.next(body).await? {
            if first.len().max(rest.len()) + chunk.len() > bytes_max {
                let message = format!("the upstream's answer is over {bytes_max} bytes (limits.answer_bytes_max)");
                return Err(Failure::new(Kind::BadAnswer, message));
            }
            // Most answers come in one piece, which is then used as it is.
            if first.is_empty() {
                first = chunk;
                continue;
            }
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&chunk);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }
}

/// Whether a whole answer can be a JSON object or list, by its ends: the framing has said that no part of it is missing, and
/// what is wrong within, the caller's own parser finds. A page of HTML with status 200 is none.
pub(super) fn looks_sound(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    matches!((body.first(), body.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')))
}

/// Whether a whole answer is one JSON value.
fn is_sound(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(is_json)
}
