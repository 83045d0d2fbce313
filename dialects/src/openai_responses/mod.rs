// SPDX-License-Identifier: Apache-2.0
//! The dialect `openai-responses`: OpenAI's Responses API, which Azure, xAI, DeepSeek, `OpenRouter`, Bedrock and
//! local servers speak, too. Source: <https://platform.openai.com/docs/api-reference/responses>, and recorded exchanges.
//!
//! | file | what |
//! |---|---|
//! | `request`, `items`, `parts` | a caller's request into the canonical form |
//! | `asking`, `turns` | the canonical form into a request to a vendor |
//! | `reading`, `slots` | a vendor's answer, whole or streamed |
//! | `writing`, `open` | an answer to a caller, whole or streamed |
//! | `seal` | reasoning items, which must come back unchanged; ids that we made up |
//! | `notes` | citations and log probabilities, both ways |
//! | `tap`, `usage`, `fault` | answers that are relayed; tokens; errors |

mod asking;
mod fault;
mod items;
mod notes;
mod open;
mod parts;
mod reading;
mod request;
mod seal;
mod slots;
mod tap;
mod turns;
mod usage;
mod writing;

use serde_json::json;

pub use asking::{Style, encode_count_request};

use crate::codec::{Ask, Codec, Envelope, Head, ModelEntry, Operation, StreamDecoder, StreamEncoder, Tap};
use crate::ir::{Event, Fault, Request, Response, Usage};
use crate::openai_chat::OpenAiChat;

/// Name of the dialect, also of its extensions.
pub const NAME: &str = "openai-responses";

/// Name of the event that carries the members of an answer that only this dialect knows (`metadata`, `service_tier`,
/// `previous_response_id` …), as one JSON object.
pub const ENVELOPE: &str = "openai-responses.envelope";

/// Name of the event that carries what only this dialect knows of the item that begins with the next block (`id`, `phase`):
/// `{"block": 2, "item": {"type": "message", "id": "msg_1", "phase": "commentary"}}`; `block` counts the answer's blocks.
pub const ITEM: &str = "openai-responses.item";

/// Name of the event that says that a reasoning item goes on in another part of its summary.
pub const PART: &str = "openai-responses.part";

/// The dialect.
#[derive(Debug, Clone, Copy)]
pub struct OpenAiResponses;

impl OpenAiResponses {
    /// As [`Codec::encode_request`], for a vendor that has its own ways.
    #[must_use]
    pub fn encode_request_as(&self, request: &Request, style: &Style) -> (Vec<u8>, Vec<String>) {
        asking::encode(request, style)
    }
}

impl Codec for OpenAiResponses {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognise(&self, head: &Head<'_>) -> Option<Ask> {
        operation(head.method, head.path).map(Ask::from)
    }

    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault> {
        request::decode(body)
    }

    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8> {
        writing::whole(response, envelope)
    }

    fn encode_count(&self, usage: &Usage) -> Vec<u8> {
        let count = json!({ "object": "response.input_tokens", "input_tokens": usage.input_total() });
        count.to_string().into_bytes()
    }

    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder> {
        Box::new(writing::Writing::new(envelope))
    }

    fn encode_fault(&self, fault: &Fault, request_id: &str) -> Vec<u8> {
        OpenAiChat.encode_fault(fault, request_id)
    }

    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8> {
        OpenAiChat.encode_models(models)
    }

    fn tap(&self) -> Box<dyn Tap> {
        Box::new(tap::Tap::default())
    }

    fn whole_usage(&self, body: &[u8]) -> Option<Usage> {
        tap::whole_usage(body)
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

    fn decode_fault<'h>(&self, status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
        OpenAiChat.decode_fault(status, header, body)
    }
}

/// What a method and a path ask for. What a vendor has stored is only ever relayed.
fn operation(method: &str, path: &str) -> Option<Operation> {
    let (first, rest) = path.strip_prefix('/')?.split_once('/').unwrap_or((&path[1..], ""));
    Some(match (method, first, rest) {
        ("POST", "responses", "") => Operation::Chat,
        ("POST", "responses", "input_tokens") => Operation::CountTokens,
        ("POST" | "GET" | "DELETE", "responses", rest) if !rest.is_empty() => Operation::Stored,
        ("POST" | "GET" | "DELETE", "conversations", _) => Operation::Stored,
        _ => return None,
    })
}
