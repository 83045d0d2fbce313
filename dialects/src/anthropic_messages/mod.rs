// SPDX-License-Identifier: Apache-2.0
//! anthropic-messages: the dialect of Anthropic's Messages API, which Vertex AI (rawPredict), Bedrock (invoke) and
//! others speak, too. Source: <https://docs.anthropic.com/en/api/messages>, and recorded exchanges.
//!
//! | file | what |
//! |---|---|
//! | `read`, `read_blocks` | a caller's request into the canonical form |
//! | `write`, `write_blocks`, `thinking`, `ids` | the canonical form into a request to a vendor |
//! | `response` | whole answers, both ways |
//! | `decoder` / `encoder` | streamed answers, from a vendor / to a caller |
//! | `tap` | usage of answers that are relayed untouched |
//! | `fault`, `usage`, `stop` | errors, tokens and stop reasons, both ways |

mod decoder;
mod encoder;
mod fault;
mod ids;
mod read;
mod read_blocks;
mod response;
mod stop;
mod tap;
pub(crate) mod thinking;
mod usage;
mod write;
mod write_blocks;

use serde_json::json;

use crate::codec::{Ask, Codec, Envelope, Head, ModelEntry, Operation, StreamDecoder, StreamEncoder, Tap};
use crate::ir::{Event, Fault, Request, Response, Usage};
use crate::percent;

pub use write::encode_count_request;
// What the dialect of Bedrock has in common with this one: the same models stand behind both.
pub(crate) use encoder::Balance;
pub(crate) use read_blocks::input_text;
pub(crate) use thinking::Generation;
pub(crate) use write::{is_blank, is_neutral};
pub(crate) use write_blocks::{data_url, input_object};

/// The name that crosses the contract.
pub const NAME: &str = "anthropic-messages";

/// Name of the event that carries the members of the answer's envelope that only this dialect knows (`container`,
/// `context_management`, `stop_details` …), as one JSON object.
pub const ENVELOPE: &str = "anthropic-messages.envelope";

/// The codec.
#[derive(Debug, Clone, Copy)]
pub struct AnthropicMessages;

impl Codec for AnthropicMessages {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognise(&self, head: &Head<'_>) -> Option<Ask> {
        let operation = match (head.method, head.path) {
            ("POST", "/messages") => Operation::Chat,
            ("POST", "/messages/count_tokens") => Operation::CountTokens,
            // Paths that are shared with other dialects; only callers of this one state a version.
            ("GET", path) if is_models(path) && states_version(head) => Operation::Models,
            (_, path) if is_below(path, "/files") && states_version(head) => Operation::Files,
            (_, path) if is_below(path, "/messages/batches") => Operation::Batches,
            _ => return None,
        };
        let model = head.path.strip_prefix("/models/").filter(|model| !model.is_empty()).and_then(percent::decoded);
        Some(Ask { model, ..operation.into() })
    }

    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault> {
        read::request(body)
    }

    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8> {
        response::encode(response, envelope)
    }

    fn encode_count(&self, usage: &Usage) -> Vec<u8> {
        json!({"input_tokens": usage.input_total()}).to_string().into_bytes()
    }

    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder> {
        Box::new(encoder::Encoder::new(envelope.clone()))
    }

    fn encode_fault(&self, fault: &Fault, request_id: &str) -> Vec<u8> {
        fault::encode(fault, request_id)
    }

    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8> {
        // When a model was made is not known here; the epoch is what the API states in that case.
        let entry = |model: &ModelEntry| json!({"type": "model", "id": model.id, "display_name": model.id, "created_at": "1970-01-01T00:00:00Z"});
        let id = |model: Option<&ModelEntry>| model.map(|model| model.id.clone());
        json!({
            "data": models.iter().map(entry).collect::<Vec<_>>(),
            "has_more": false,
            "first_id": id(models.first()),
            "last_id": id(models.last()),
        })
        .to_string()
        .into_bytes()
    }

    fn tap(&self) -> Box<dyn Tap> {
        Box::new(tap::MessagesTap::default())
    }

    fn whole_usage(&self, body: &[u8]) -> Option<Usage> {
        tap::whole_usage(body)
    }

    fn encode_request(&self, request: &Request) -> (Vec<u8>, Vec<String>) {
        write::request(request)
    }

    fn decode_response(&self, body: &[u8]) -> Result<Vec<Event>, Fault> {
        response::decode(body)
    }

    fn stream_decoder(&self) -> Box<dyn StreamDecoder> {
        Box::new(decoder::Decoder::default())
    }

    fn decode_fault<'h>(&self, status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
        fault::decode(status, header, body)
    }
}

/// `/models` or `/models/{id}`.
fn is_models(path: &str) -> bool {
    path.strip_prefix("/models").is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && rest.len() > 1))
}

fn states_version(head: &Head<'_>) -> bool {
    (head.header)("anthropic-version").is_some()
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
