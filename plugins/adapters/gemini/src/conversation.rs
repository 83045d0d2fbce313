// SPDX-License-Identifier: Apache-2.0
//! Reads what the vendor answers to a translated request.

use penstock_sdk::dialects::codec::{Codec, Operation, StreamDecoder};
use penstock_sdk::prelude::{Answer, Event, Exchange, Fault, Frame, Upstream};

/// One translated request.
pub struct Conversation {
    codec: &'static dyn Codec,
    operation: Operation,
    decoder: Box<dyn StreamDecoder>,
}

impl Conversation {
    pub(crate) fn new(codec: &'static dyn Codec, operation: Operation) -> Self {
        Self { codec, operation, decoder: codec.stream_decoder() }
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Conversation").field("operation", &self.operation).finish_non_exhaustive()
    }
}

impl Exchange for Conversation {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.decoder.frame(frame, events);
        Ok(())
    }

    /// A body at the end is a whole answer, also where a stream was asked for.
    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        match self.operation {
            Operation::Embeddings => events.extend(self.codec.decode_result(self.operation, answer.body)?),
            Operation::CountTokens => {
                let counted = self.codec.decode_response(answer.body)?;
                events.extend(counted.into_iter().filter(|event| matches!(event, Event::Usage(_))));
            }
            _ if answer.body.is_empty() => self.decoder.end(events),
            _ => events.extend(self.codec.decode_response(answer.body)?),
        }
        Ok(None)
    }
}
