// SPDX-License-Identifier: Apache-2.0
//! What a dialect can do: the trait that every dialect implements, and the words it is written in.
//!
//! "Caller's side" functions are used by the host (it answers the caller in this dialect), "vendor's side" functions by
//! adapters (they ask a vendor in this dialect).

use crate::framing::Frame;
use crate::ir::{Event, Fault, Request, Response, Usage};

/// What is asked for. Names as in `gen_ai.operation.name` where that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Text generation.
    Chat,
    /// How many input tokens a chat request would be.
    CountTokens,
    /// Vectors.
    Embeddings,
    /// Which models there are; answered by the host.
    Models,
}

impl Operation {
    /// Every operation.
    pub const ALL: &'static [Self] = &[Self::Chat, Self::CountTokens, Self::Embeddings, Self::Models];

    /// The name that crosses the contract: "chat", `count_tokens`, "embeddings", "models".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::CountTokens => "count_tokens",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
        }
    }

    /// The operation of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.name() == name)
    }

    /// Whether requests of this operation have a canonical form; the others go through as the caller's bytes, to vendors
    /// that speak the caller's dialect.
    #[must_use]
    pub fn is_canonical(self) -> bool {
        matches!(self, Self::Chat | Self::CountTokens)
    }
}

/// What an answer to a caller needs beyond the events.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// The host's id of the request; used where the vendor gave no id.
    pub request_id: String,
    /// The model that the caller named: it reads this name again.
    pub model: String,
    /// Seconds since 1970, for dialects that state when an answer was made.
    pub created: u64,
    /// Whether the caller asked that a stream tell its usage.
    pub stream_usage: bool,
}

/// A model in the list that the host answers `Operation::Models` with.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    /// The name that a caller may use.
    pub id: String,
    /// Who serves it.
    pub owner: String,
}

/// A dialect. Implementations are unit structs; what happens in a stream is in the boxes that they make.
pub trait Codec: Sync {
    /// The name that crosses the contract: "openai-chat".
    fn name(&self) -> &'static str;

    /// The operation of a request, or none if it is not of this dialect. `path` is below the route's prefix.
    fn operation<'h>(&self, method: &str, path: &str, header: &dyn Fn(&str) -> Option<&'h str>) -> Option<Operation>;

    // -- caller's side

    /// Reads a caller's request (`Chat` or `CountTokens`) into the canonical form.
    ///
    /// # Errors
    /// A fault of class invalid-request that names the path of what is wrong: `messages[2].content: …`.
    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault>;

    /// Writes a whole answer to a chat request.
    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8>;

    /// Writes the answer to a count-tokens request; a dialect without that operation answers as for a chat.
    fn encode_count(&self, usage: &Usage) -> Vec<u8>;

    /// Begins to write a streamed answer.
    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder>;

    /// Writes an error answer; the status belongs to the host.
    fn encode_fault(&self, fault: &Fault, request_id: &str) -> Vec<u8>;

    /// Writes an error as an event into a stream that has begun, so that this dialect's SDKs raise it.
    fn encode_stream_fault(&self, fault: &Fault) -> Vec<u8>;

    /// Writes the list of models.
    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8>;

    /// Watches a streamed answer that is relayed untouched.
    fn tap(&self) -> Box<dyn Tap>;

    /// Finds the usage in a whole answer that is relayed untouched.
    fn whole_usage(&self, body: &[u8]) -> Option<Usage>;

    // -- vendor's side

    /// Writes a request to a vendor, and the paths of what the dialect has no place for.
    fn encode_request(&self, request: &Request) -> (Vec<u8>, Vec<String>);

    /// Reads a whole answer.
    ///
    /// # Errors
    /// A fault: the error that the vendor states inside a 2xx answer, or vendor-bug if it cannot be read.
    fn decode_response(&self, body: &[u8]) -> Result<Vec<Event>, Fault>;

    /// Begins to read a streamed answer.
    fn stream_decoder(&self) -> Box<dyn StreamDecoder>;

    /// Reads an answer that is not 2xx. `header` looks a response header up by its lower-case name.
    fn decode_fault<'h>(&self, status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault;
}

/// Reads the frames of a streamed answer, one at a time.
pub trait StreamDecoder: Send {
    /// What one frame means. In-band errors are events of kind `Fault`; a frame that cannot be read is a vendor-bug fault.
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>);

    /// The stream has ended; whatever was held back until now (a finish that waits for its usage).
    fn end(&mut self, events: &mut Vec<Event>);
}

/// Writes a streamed answer.
pub trait StreamEncoder: Send {
    /// Appends the bytes of one event to `out` (none, one or several wire events).
    fn event(&mut self, event: &Event, out: &mut Vec<u8>);

    /// Appends the end of the stream: pending usage and the terminator. Called once, after `Finish`; not after a fault.
    fn end(&mut self, out: &mut Vec<u8>);
}

/// Watches the frames of a stream that is relayed untouched. Cheap: it looks into a frame only where a byte search has
/// found a reason to.
pub trait Tap: Send {
    /// One frame that passes by.
    fn frame(&mut self, frame: &Frame<'_>);

    /// The usage so far.
    fn usage(&self) -> Option<Usage>;

    /// Whether the stream has said that it is complete. An end without this is a cut.
    fn complete(&self) -> bool;

    /// An error that the vendor stated inside the stream.
    fn fault(&self) -> Option<Fault>;
}
