// SPDX-License-Identifier: Apache-2.0
//! The dialect `openai-chat`: OpenAI's Chat Completions, which most vendors speak in their own way.
//!
//! What we write is what OpenAI documents; what we read is what recorded vendors send. The parts: [`request`] reads a
//! caller's request, [`asking`] writes one to a vendor, [`reading`] reads a vendor's answer ([`plain`] most
//! of its chunks), [`writing`] writes one to a caller, [`fault`] does both for errors (its words are in [`rules`]),
//! [`usage`] for token counts, [`seal`] for reasoning that must come back unchanged, [`tap`] watches what is relayed,
//! [`ways`] is what operators can say of vendors that are compatible in their own way, [`task`] and its kin are the
//! operations that are no conversation.

mod asking;
mod content;
pub(crate) mod fault;
mod films;
mod plain;
mod reading;
mod realtime;
mod request;
mod rules;
mod seal;
mod stated;
mod tap;
mod task;
mod task_embed;
mod task_image;
mod task_rerank;
mod task_video;
pub(crate) mod usage;
pub mod ways;
mod writing;

use serde_json::json;

pub use asking::Style;
pub(crate) use asking::number;
pub(crate) use fault::without_keys;

use crate::codec::{Ask, Codec, Envelope, Head, ModelEntry, Operation, StreamDecoder, StreamEncoder, Tap};
use crate::ir::{Event, Fault, Request, Response, Usage};
use crate::job::{JobCodec, Plain};
use crate::percent;
use crate::task::Task;

/// Name of the dialect, also of its extensions.
pub const NAME: &str = "openai-chat";

/// The dialect.
#[derive(Debug, Clone, Copy)]
pub struct OpenAiChat;

impl OpenAiChat {
    /// As [`Codec::encode_request`], for a vendor that has its own ways.
    #[must_use]
    pub fn encode_request_as(&self, request: &Request, style: &Style) -> (Vec<u8>, Vec<String>) {
        asking::encode(request, style)
    }
}

impl Codec for OpenAiChat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognise(&self, head: &Head<'_>) -> Option<Ask> {
        let operation = operation(head.method, head.path)?;
        let model = head.path.strip_prefix("/models/").filter(|model| !model.is_empty()).and_then(percent::decoded);
        Some(Ask { model, ..operation.into() })
    }

    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault> {
        request::decode(body)
    }

    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8> {
        writing::whole(response, envelope)
    }

    fn decode_task(&self, operation: Operation, body: &[u8]) -> Result<Task, Fault> {
        task::decode(operation, body)
    }

    fn encode_result(&self, operation: Operation, response: &Response, envelope: &Envelope) -> Vec<u8> {
        task::encode_result(operation, response, envelope)
    }

    fn encode_count(&self, usage: &Usage) -> Vec<u8> {
        json!({ "input_tokens": usage.input_total() }).to_string().into_bytes()
    }

    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder> {
        Box::new(writing::Chunks::new(envelope))
    }

    fn encode_fault(&self, fault: &Fault, _: &str) -> Vec<u8> {
        fault::encode(fault).to_string().into_bytes()
    }

    fn jobs(&self, operation: Operation) -> &'static dyn JobCodec {
        if operation == Operation::Videos { &films::Films } else { &Plain }
    }

    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8> {
        writing::models(models.iter().map(|model| (model.id.clone(), model.owner.clone())))
    }

    fn tap(&self) -> Box<dyn Tap> {
        Box::new(tap::Tap::default())
    }

    fn whole_usage(&self, body: &[u8]) -> Option<Usage> {
        tap::whole_usage(body)
    }

    fn realtime_usage(&self, message: &[u8]) -> Option<Usage> {
        realtime::usage(message)
    }

    fn encode_request(&self, request: &Request) -> (Vec<u8>, Vec<String>) {
        asking::encode(request, &Style::default())
    }

    fn decode_response(&self, body: &[u8]) -> Result<Vec<Event>, Fault> {
        reading::whole(body)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(reading::Reading::default())
    }

    fn encode_task(&self, operation: Operation, task: &Task) -> Result<(Vec<u8>, Vec<String>), Fault> {
        task::encode(operation, task)
    }

    fn decode_result(&self, operation: Operation, body: &[u8]) -> Result<Vec<Event>, Fault> {
        task::decode_result(operation, body)
    }

    fn decode_fault<'h>(&self, status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
        fault::decode(status, header, body)
    }
}

/// What a method and a path ask for. Besides chat these are the paths of OpenAI's API, `/rerank` as vLLM, Jina and
/// others offer it beside them, and `/vendors/NAME/…` and `/capabilities`, which Penstock adds.
fn operation(method: &str, path: &str) -> Option<Operation> {
    let (first, rest) = path.strip_prefix('/')?.split_once('/').unwrap_or((&path[1..], ""));
    Some(match (method, first, rest) {
        ("POST", "chat", "completions") => Operation::Chat,
        ("POST", "embeddings", "") => Operation::Embeddings,
        ("POST", "rerank", "") => Operation::Rerank,
        ("POST", "images", "generations") => Operation::Images,
        ("POST", "images", "edits") => Operation::ImageEdits,
        ("POST", "audio", "speech") => Operation::Speech,
        ("POST", "audio", "transcriptions") => Operation::Transcription,
        ("POST", "audio", "translations") => Operation::Translation,
        ("POST", "moderations", "") => Operation::Moderations,
        ("POST" | "GET" | "DELETE", "videos", _) => Operation::Videos,
        ("GET" | "POST" | "DELETE", "files" | "uploads", _) => Operation::Files,
        ("GET" | "POST", "batches", _) => Operation::Batches,
        ("GET", "realtime", "") => Operation::Realtime,
        ("GET", "models", _) => Operation::Models,
        ("GET", "capabilities", "") => Operation::Capabilities,
        (_, "vendors", rest) if rest.contains('/') => Operation::Passthrough,
        _ => return None,
    })
}
