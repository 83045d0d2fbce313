// SPDX-License-Identifier: Apache-2.0
//! `cohere-v2`: Cohere's API, version 2: chat, embed, rerank. Source: <https://docs.cohere.com/reference>, the types of the
//! official Python SDK, and recorded exchanges.
//!
//! | file | what |
//! |---|---|
//! | `request`, `messages` | a caller's request into the canonical form |
//! | `asking`, `turns` | the canonical form into a request to a vendor |
//! | `answer` | whole answers, both ways |
//! | `decoder` / `encoder` | streamed answers, from a vendor / to a caller |
//! | `embed`, `rerank` | vectors and rankings, both ways |
//! | `tap` | usage of answers that are relayed untouched |
//! | `fault`, `usage`, `finish`, `logprobs` | errors, tokens, ends and probabilities, both ways |
//!
//! What is Cohere's own and where it goes:
//! - `tool_plan` is a redacted thought that begins with [`PLAN_SEAL`], so that it comes back as `tool_plan` and nobody takes it
//!   for reasoning, which Cohere tells apart; `thinking` parts are reasoning without a seal.
//! - A seal of another vendor's reasoning stands in the extra member `signature` of a `thinking` part, a redacted thought
//!   in the extra member `redacted`: the SDKs keep members that they do not know.
//! - `documents` are document blocks of the last user message; the raw document travels in the block's extensions.

mod answer;
mod asking;
mod decoder;
mod embed;
mod encoder;
mod fault;
mod finish;
mod logprobs;
mod messages;
mod request;
mod rerank;
mod tap;
mod turns;
mod usage;

use serde_json::{Value, json};

use crate::codec::{Ask, Codec, Envelope, Head, ModelEntry, Operation, StreamDecoder, StreamEncoder, Tap};
use crate::ir::{Event, Fault, FaultClass, Request, Response, Usage};
use crate::percent;
use crate::task::Task;

/// Name of the dialect, also of its extensions.
pub const NAME: &str = "cohere-v2";

/// What a redacted thought begins with that is a tool plan.
const PLAN_SEAL: &str = "{\"cohere-v2\":\"tool_plan\",\"text\":";

/// Event of a piece of a tool plan, as a JSON string, so that a stream can write it where it belongs. The redacted thought
/// with all of it follows.
const PLAN: &str = "tool-plan";

/// A tool plan as a redacted thought.
fn sealed_plan(text: &str) -> String {
    format!("{PLAN_SEAL}{}}}", Value::from(text))
}

/// The tool plan that a redacted thought is.
fn plan_of(data: &str) -> Option<String> {
    serde_json::from_str(data.strip_prefix(PLAN_SEAL)?.strip_suffix('}')?).ok()
}

/// Event of the members of an answer that no other event tells.
const REST: &str = "cohere-v2.answer";

/// The dialect.
#[derive(Debug, Clone, Copy)]
pub struct CohereV2;

impl Codec for CohereV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognise(&self, head: &Head<'_>) -> Option<Ask> {
        let model = head.path.strip_prefix("/models/").filter(|model| !model.is_empty()).and_then(percent::decoded);
        Some(Ask { model, ..operation(head)?.into() })
    }

    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault> {
        request::decode(body)
    }

    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8> {
        answer::encode(response, envelope)
    }

    fn decode_task(&self, operation: Operation, body: &[u8]) -> Result<Task, Fault> {
        match operation {
            Operation::Embeddings => embed::decode(body).map(Task::Embed),
            Operation::Rerank => rerank::decode(body).map(Task::Rerank),
            other => Err(absent(other)),
        }
    }

    fn encode_result(&self, operation: Operation, response: &Response, envelope: &Envelope) -> Vec<u8> {
        match (&response.fault, operation) {
            (Some(fault), _) => self.encode_fault(fault, &envelope.request_id),
            (None, Operation::Embeddings) => embed::encode_result(response, envelope),
            (None, Operation::Rerank) => rerank::encode_result(response, envelope),
            (None, _) => Vec::new(),
        }
    }

    fn encode_count(&self, usage: &Usage) -> Vec<u8> {
        json!({ "input_tokens": usage.input_total() }).to_string().into_bytes()
    }

    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder> {
        Box::new(encoder::Encoder::new(envelope))
    }

    fn encode_fault(&self, fault: &Fault, request_id: &str) -> Vec<u8> {
        fault::encode(fault, request_id).to_string().into_bytes()
    }

    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8> {
        let model = |model: &ModelEntry| json!({ "name": model.id, "endpoints": ["chat"], "finetuned": false });
        json!({ "models": models.iter().map(model).collect::<Vec<_>>() }).to_string().into_bytes()
    }

    fn tap(&self) -> Box<dyn Tap> {
        Box::new(tap::Tap::default())
    }

    fn whole_usage(&self, body: &[u8]) -> Option<Usage> {
        tap::whole_usage(body)
    }

    fn encode_request(&self, request: &Request) -> (Vec<u8>, Vec<String>) {
        asking::encode(request)
    }

    fn decode_response(&self, body: &[u8]) -> Result<Vec<Event>, Fault> {
        answer::decode(body)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(decoder::Decoder::default())
    }

    fn encode_task(&self, operation: Operation, task: &Task) -> Result<(Vec<u8>, Vec<String>), Fault> {
        match (operation, task) {
            (Operation::Embeddings, Task::Embed(task)) => embed::encode(task),
            (Operation::Rerank, Task::Rerank(task)) => Ok(rerank::encode(task)),
            (other, _) => Err(absent(other)),
        }
    }

    fn decode_result(&self, operation: Operation, body: &[u8]) -> Result<Vec<Event>, Fault> {
        match operation {
            Operation::Embeddings => embed::decode_result(body),
            Operation::Rerank => rerank::decode_result(body),
            other => Err(absent(other)),
        }
    }

    fn decode_fault<'h>(&self, status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
        fault::decode(status, header, body)
    }
}

fn operation(head: &Head<'_>) -> Option<Operation> {
    let (first, rest) = head.path.strip_prefix('/')?.split_once('/').unwrap_or((&head.path[1..], ""));
    Some(match (head.method, first, rest) {
        ("POST", "chat", "") => Operation::Chat,
        ("POST", "embed", "") => Operation::Embeddings,
        ("POST", "rerank", "") => Operation::Rerank,
        ("GET", "models", _) if is_of_cohere(head) => Operation::Models,
        _ => return None,
    })
}

/// Whether a request that every dialect knows comes from Cohere's client, or bears no mark of another one.
fn is_of_cohere(head: &Head<'_>) -> bool {
    let has = |name: &str| (head.header)(name).is_some();
    has("x-client-name")
        || (head.header)("x-fern-sdk-name").is_some_and(|name| name.contains("cohere"))
        || !(has("anthropic-version") || has("x-goog-api-key"))
}

fn absent(operation: Operation) -> Fault {
    Fault::new(FaultClass::Unsupported, format!("{NAME} has no {}", operation.name()))
}

/// The model's or the vendor's nonsense.
fn unreadable(what: &str) -> Fault {
    Fault::new(FaultClass::VendorBug, format!("the vendor's answer cannot be read: {what}"))
}

/// A string member; "" if there is none.
fn text<'v>(object: &'v Value, member: &str) -> &'v str {
    object[member].as_str().unwrap_or_default()
}
