// SPDX-License-Identifier: Apache-2.0
//! gemini: the dialect of Google's generateContent, which Google AI Studio and Vertex AI speak.
//! Sources: <https://ai.google.dev/api>, <https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest>, and recorded
//! exchanges.
//!
//! | file | what |
//! |---|---|
//! | `paths`, `naming` | what a head asks for: model and operation stand in the path |
//! | `read`, `read_parts` | a caller's request into the canonical form |
//! | `write`, `write_parts` | the canonical form into a request to a vendor |
//! | `schema`, `thinking`, `ids`, `files`, `seal` | schemas, how much to think, ids of calls, media, signatures |
//! | `reading`, `partial` | a vendor's answer, whole or streamed |
//! | `speech`, `writing` | an answer to a caller, whole or streamed |
//! | `grounding`, `logprobs`, `finish`, `usage`, `fault` | parts of an answer, both ways |
//! | `embed` | vectors |
//! | `tap` | usage of answers that are relayed untouched |

mod embed;
mod fault;
mod files;
mod finish;
mod grounding;
mod ids;
mod logprobs;
mod naming;
mod partial;
mod paths;
mod read;
mod read_parts;
mod reading;
mod schema;
mod seal;
mod speech;
mod tap;
mod thinking;
mod usage;
mod write;
mod write_parts;
mod writing;

use serde_json::json;

use crate::codec::{Ask, Codec, Envelope, Head, ModelEntry, Operation, StreamDecoder, StreamEncoder, Tap};
use crate::ir::{Event, Fault, FaultClass, Request, Response, Usage};
use crate::task::Task;

pub use embed::encode_vertex_request;
pub use naming::{NAMING_MEMBERS, is_id, model_path, rename, resource_path, verb, wants_events};
pub use write::encode_count_request;

/// The name that crosses the contract.
pub const NAME: &str = "gemini";

/// Name of the event that carries what only this dialect knows of an answer, as one JSON object: the members of the
/// candidate (`"candidate"`: `groundingMetadata`, `safetyRatings` …) and of the answer (`"answer"`: `promptFeedback` …).
pub const ENVELOPE: &str = "gemini.envelope";

/// The codec.
#[derive(Debug, Clone, Copy)]
pub struct Gemini;

impl Codec for Gemini {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognise(&self, head: &Head<'_>) -> Option<Ask> {
        paths::recognise(head)
    }

    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault> {
        read::request(body)
    }

    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8> {
        writing::whole(response, envelope)
    }

    fn decode_task(&self, operation: Operation, body: &[u8]) -> Result<Task, Fault> {
        match operation {
            Operation::Embeddings => embed::read(body).map(Task::Embed),
            other => Err(absent(other)),
        }
    }

    fn encode_result(&self, _: Operation, response: &Response, envelope: &Envelope) -> Vec<u8> {
        embed::write_result(response, envelope)
    }

    fn encode_count(&self, usage: &Usage) -> Vec<u8> {
        json!({"totalTokens": usage.input_total()}).to_string().into_bytes()
    }

    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder> {
        Box::new(writing::Chunks::new(envelope))
    }

    fn stream_type(&self, envelope: &Envelope) -> &'static str {
        if envelope.array { "application/json; charset=UTF-8" } else { "text/event-stream" }
    }

    fn encode_fault(&self, fault: &Fault, request_id: &str) -> Vec<u8> {
        fault::encode(fault, request_id).to_string().into_bytes()
    }

    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8> {
        writing::models(models)
    }

    fn tap(&self) -> Box<dyn Tap> {
        Box::new(tap::ChunksTap::default())
    }

    fn whole_usage(&self, body: &[u8]) -> Option<Usage> {
        tap::whole_usage(body)
    }

    fn realtime_usage(&self, message: &[u8]) -> Option<Usage> {
        tap::realtime_usage(message)
    }

    fn encode_request(&self, request: &Request) -> (Vec<u8>, Vec<String>) {
        write::request(request)
    }

    fn decode_response(&self, body: &[u8]) -> Result<Vec<Event>, Fault> {
        reading::whole(body)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(reading::Reading::default())
    }

    /// A request for a list of vectors (`batchEmbedContents`), also of one.
    fn encode_task(&self, operation: Operation, task: &Task) -> Result<(Vec<u8>, Vec<String>), Fault> {
        match task {
            Task::Embed(task) => embed::write(task),
            _ => Err(absent(operation)),
        }
    }

    fn decode_result(&self, operation: Operation, body: &[u8]) -> Result<Vec<Event>, Fault> {
        match operation {
            Operation::Embeddings => embed::read_result(body),
            other => Err(absent(other)),
        }
    }

    fn decode_fault<'h>(&self, status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
        fault::decode(status, header, body)
    }
}

fn absent(operation: Operation) -> Fault {
    Fault::new(FaultClass::Unsupported, format!("{NAME} has no {}", operation.name()))
}
