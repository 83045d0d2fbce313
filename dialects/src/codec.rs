// SPDX-License-Identifier: Apache-2.0
//! What a dialect can do: the trait that every dialect implements, and the words it is written in.
//!
//! "Caller's side" functions are used by the host (it answers the caller in this dialect), "vendor's side" functions by
//! adapters (they ask a vendor in this dialect).

use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Request, Response, Usage};
use crate::job::{JobCodec, Plain};
use crate::task::Task;

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What is asked for. Names as in `gen_ai.operation.name` where that has one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation { $($(#[$doc])* $variant,)* }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that crosses the contract.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

operations! {
    /// Text generation.
    Chat = "chat";
    /// How many input tokens a chat request would be.
    CountTokens = "count_tokens";
    /// Vectors.
    Embeddings = "embeddings";
    /// Documents in the order in which they answer a query.
    Rerank = "rerank";
    /// Pictures from words.
    Images = "images";
    /// Pictures from pictures.
    ImageEdits = "image_edits";
    /// Films; always a job.
    Videos = "videos";
    /// Sound from text.
    Speech = "speech";
    /// Text from sound.
    Transcription = "transcription";
    /// English text from sound.
    Translation = "translation";
    /// What a content policy would say.
    Moderations = "moderations";
    /// What a vendor keeps for later requests; relayed.
    Files = "files";
    /// Many requests at once, later; relayed.
    Batches = "batches";
    /// Answers and conversations that a vendor has kept; relayed.
    Stored = "stored";
    /// A conversation over a WebSocket; relayed.
    Realtime = "realtime";
    /// Any request of a vendor's own API, below `/vendors/NAME`; relayed.
    Passthrough = "passthrough";
    /// Which models there are; answered by the host.
    Models = "models";
    /// What the vendors in force can do; answered by the host.
    Capabilities = "capabilities";
    /// What has become of requests that were accepted as jobs; answered by the host.
    Jobs = "jobs";
}

impl Operation {
    /// The operation of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.name() == name)
    }

    /// Whether requests of this operation have a canonical form, so that they can be translated; the others go through as
    /// the caller's bytes, to vendors that speak the caller's dialect.
    #[must_use]
    pub fn is_canonical(self) -> bool {
        self.is_conversation()
            || matches!(self, Self::Embeddings | Self::Rerank | Self::Images | Self::ImageEdits | Self::Videos)
    }

    /// Whether the canonical form is [`crate::ir::Request`]; for the other canonical operations it is
    /// [`crate::task::Task`].
    #[must_use]
    pub fn is_conversation(self) -> bool {
        matches!(self, Self::Chat | Self::CountTokens)
    }

    /// Whether a request names a model, in its body or its path. What does not goes to the vendor that the caller names.
    #[must_use]
    pub fn names_model(self) -> bool {
        !matches!(self, Self::Files | Self::Batches | Self::Stored | Self::Passthrough | Self::Models | Self::Jobs)
    }

    /// Whether a request is accepted as a job whatever its caller prefers.
    #[must_use]
    pub fn is_always_a_job(self) -> bool {
        self == Self::Videos
    }
}

/// The head of a caller's request.
pub struct Head<'h> {
    /// "GET", "POST" …
    pub method: &'h str,
    /// Path below the route's prefix, as it came (percent-encoded).
    pub path: &'h str,
    /// Query without the question mark, "" if none.
    pub query: &'h str,
    /// Looks a header up by its lower-case name.
    pub header: &'h dyn Fn(&str) -> Option<&'h str>,
}

/// What the head of a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What is asked for.
    pub operation: Operation,
    /// The model, where it stands in the path; decoded.
    pub model: Option<String>,
    /// Whether a stream is wanted, in dialects that say so in the path.
    pub streaming: Option<bool>,
    /// The stream is wanted as the elements of one JSON array.
    pub array: bool,
}

impl From<Operation> for Ask {
    fn from(operation: Operation) -> Self {
        Self { operation, model: None, streaming: None, array: false }
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
    /// The stream is wanted as the elements of one JSON array ([`Ask::array`]).
    pub array: bool,
    /// A part of the stream has gone out already, as the vendor wrote it.
    pub begun: bool,
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

    /// What a request asks for, or none if it is not of this dialect.
    fn recognise(&self, head: &Head<'_>) -> Option<Ask>;

    // -- caller's side

    /// Reads a caller's request (`Chat` or `CountTokens`) into the canonical form.
    ///
    /// # Errors
    /// A fault of class invalid-request that names the path of what is wrong: `messages[2].content: …`.
    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault>;

    /// Writes a whole answer to a chat request.
    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8>;

    /// Reads a caller's request of a canonical operation that is no conversation.
    ///
    /// # Errors
    /// As [`Codec::decode_request`]; `unsupported` if the dialect has no such operation.
    fn decode_task(&self, operation: Operation, _body: &[u8]) -> Result<Task, Fault> {
        Err(absent(self.name(), operation))
    }

    /// Writes the answer to such a request.
    fn encode_result(&self, _operation: Operation, _response: &Response, _envelope: &Envelope) -> Vec<u8> {
        Vec::new()
    }

    /// Writes the answer to a count-tokens request; a dialect without that operation answers as for a chat.
    fn encode_count(&self, usage: &Usage) -> Vec<u8>;

    /// Begins to write a streamed answer.
    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder>;

    /// Media type of a streamed answer.
    fn stream_type(&self, _envelope: &Envelope) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    /// Headers of an error answer besides `content-type`.
    fn fault_headers(&self, _fault: &Fault) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Writes an error answer; the status belongs to the host.
    fn encode_fault(&self, fault: &Fault, request_id: &str) -> Vec<u8>;

    /// How jobs are asked about and shown: in this dialect's own way where it has one for the operation.
    fn jobs(&self, _operation: Operation) -> &'static dyn JobCodec {
        &Plain
    }

    /// Writes the list of models.
    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8>;

    /// Writes one model.
    fn encode_model(&self, model: &ModelEntry) -> Vec<u8> {
        // As it stands in the list, whatever that is called.
        let list = serde_json::from_slice(&self.encode_models(std::slice::from_ref(model)));
        let Ok(serde_json::Value::Object(members)) = list else { return Vec::new() };
        let first = members.into_iter().find_map(|(_, value)| match value {
            serde_json::Value::Array(mut list) if !list.is_empty() => Some(list.swap_remove(0)),
            _ => None,
        });
        first.map(|model| model.to_string().into_bytes()).unwrap_or_default()
    }

    /// Watches a streamed answer that is relayed untouched.
    fn tap(&self) -> Box<dyn Tap>;

    /// Finds the usage in a whole answer that is relayed untouched.
    fn whole_usage(&self, body: &[u8]) -> Option<Usage>;

    /// The usage that one message of a conversation over a WebSocket tells; the sum over all messages is what it cost.
    fn realtime_usage(&self, _message: &[u8]) -> Option<Usage> {
        None
    }

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

    /// Writes a request of a canonical operation that is no conversation to a vendor, and the paths of what the dialect has
    /// no place for.
    ///
    /// # Errors
    /// `unsupported` if the dialect has no such operation.
    fn encode_task(&self, operation: Operation, _task: &Task) -> Result<(Vec<u8>, Vec<String>), Fault> {
        Err(absent(self.name(), operation))
    }

    /// Reads the answer to such a request.
    ///
    /// # Errors
    /// As [`Codec::decode_response`].
    fn decode_result(&self, operation: Operation, _body: &[u8]) -> Result<Vec<Event>, Fault> {
        Err(absent(self.name(), operation))
    }

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

    /// Appends an error, so that this dialect's SDKs raise it, and whatever has to stand behind it. Nothing follows.
    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>);
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

    /// Whether a frame stands before the answer: it names the answer, opens a block or keeps the connection alive, and holds
    /// none of its words. As long as no other frame has come, another target can still be asked.
    fn is_prelude(&self, _frame: &Frame<'_>) -> bool {
        false
    }
}

fn absent(dialect: &str, operation: Operation) -> Fault {
    Fault::new(FaultClass::Unsupported, format!("{dialect} has no {}", operation.name()))
}
