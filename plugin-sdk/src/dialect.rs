// SPDX-License-Identifier: Apache-2.0
//! For adapters whose vendor speaks one of the dialects that Penstock knows: what is left to write is the head of the
//! request and the vendor's own ways.

use penstock_dialects::codec::{Codec, StreamDecoder};
use penstock_dialects::framing::Frame;
use penstock_dialects::ir::{Event, Fault, FaultClass, Request};
use penstock_dialects::openai_chat::ways;

use crate::adapter::{Answer, Exchange, Upstream};
use crate::call::{Call, Pairs};

/// Reads the canonical request that [`Adapter::open`](crate::adapter::Adapter::open) is given, and names the target's model
/// in it.
///
/// # Errors
/// A fault of class invalid-request.
pub fn read_request(call: &Call, body: &[u8]) -> Result<Request, Fault> {
    let mut request: Request = serde_json::from_slice(body)
        .map_err(|error| Fault::new(FaultClass::InvalidRequest, format!("the request cannot be read: {error}")))?;
    request.model.clone_from(&call.model);
    Ok(request)
}

/// Reads an answer that is not 2xx.
#[must_use]
pub fn read_fault(codec: &impl Codec, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
    codec.decode_fault(status, &|name| headers.get(name), body)
}

/// An exchange with a vendor that answers in the dialect of `C`, streamed or whole.
pub struct DialectExchange<C> {
    codec: C,
    decoder: Box<dyn StreamDecoder>,
}

impl<C: Codec> DialectExchange<C> {
    /// The exchange of one call.
    #[must_use]
    pub fn new(codec: C) -> Self {
        Self { decoder: codec.stream_decoder(), codec }
    }
}

/// An exchange of any canonical operation, with a vendor that has its own ways.
impl Exchange for ways::Answer {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        Self::frame(self, frame, events);
        Ok(())
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        Self::finish(self, answer.body, events)?;
        Ok(None)
    }
}

impl<C> std::fmt::Debug for DialectExchange<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DialectExchange").finish_non_exhaustive()
    }
}

impl<C: Codec + 'static> Exchange for DialectExchange<C> {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.decoder.frame(frame, events);
        Ok(())
    }

    /// A body at the end is a whole answer, also where a stream was asked for: some vendors answer so.
    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        if answer.body.is_empty() {
            self.decoder.end(events);
        } else {
            events.extend(self.codec.decode_response(answer.body)?);
        }
        Ok(None)
    }
}
