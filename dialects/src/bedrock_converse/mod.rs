// SPDX-License-Identifier: Apache-2.0
//! bedrock-converse: the dialect of Amazon Bedrock's Converse, `ConverseStream` and `CountTokens`. Sources: the service model
//! that AWS ships with its SDKs (bedrock-runtime 2023-09-30), <https://docs.aws.amazon.com/bedrock/latest/APIReference>, and
//! recorded exchanges.
//!
//! The model and whether to stream stand in the path, so a body names neither. Streams are binary
//! (`application/vnd.amazon.eventstream`).
//!
//! | file | what |
//! |---|---|
//! | `read`, `read_blocks` | a caller's request into the canonical form |
//! | `write`, `write_blocks`, `sampling` | the canonical form into a request to the vendor |
//! | `model` | what the families of models behind this API take |
//! | `names` | names and ids of tools, within the alphabet of the API |
//! | `media`, `citation`, `blob` | formats of media, citations and binary members, both ways |
//! | `response` | whole answers, both ways |
//! | `decoder` / `encoder` | streamed answers, from the vendor / to a caller |
//! | `tap` | usage of answers that are relayed untouched |
//! | `fault`, `usage`, `stop` | errors, tokens and stop reasons, both ways |

mod blob;
mod citation;
mod decoder;
mod encoder;
mod fault;
mod media;
mod model;
mod names;
mod read;
mod read_blocks;
mod response;
mod sampling;
mod stop;
mod tap;
mod usage;
mod write;
mod write_blocks;

use serde_json::json;

use crate::codec::{Ask, Codec, Envelope, Head, ModelEntry, Operation, StreamDecoder, StreamEncoder, Tap};
use crate::ir::{Event, Fault, Request, Response, Usage};
use crate::percent;

pub use names::ToolNames;
pub use write::encode_count_request;

/// The name that crosses the contract.
pub const NAME: &str = "bedrock-converse";

/// Name of the event that carries the members of the answer that only this dialect knows (`trace`, `metrics`,
/// `performanceConfig` …), as one JSON object.
pub const ENVELOPE: &str = "bedrock-converse.envelope";

/// Name of the event that says of the next tool call that the vendor runs the tool itself; its JSON is the `type` of the
/// call.
pub const SERVER_TOOL: &str = "bedrock-converse.server-tool";

/// The codec.
#[derive(Debug, Clone, Copy)]
pub struct BedrockConverse;

impl Codec for BedrockConverse {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recognise(&self, head: &Head<'_>) -> Option<Ask> {
        if head.method != "POST" {
            return None;
        }
        let (model, verb) = head.path.strip_prefix('/')?.rsplit_once('/')?;
        let (operation, streaming) = match verb {
            "converse" => (Operation::Chat, false),
            "converse-stream" => (Operation::Chat, true),
            "count-tokens" => (Operation::CountTokens, false),
            _ => return None,
        };
        let encoded = model.strip_prefix("model/").unwrap_or(model);
        if encoded.is_empty() || !is_segment(encoded) {
            return None;
        }
        let model = Some(percent::decoded(encoded)?);
        Some(Ask { operation, model, streaming: Some(streaming), array: false })
    }

    fn decode_request(&self, body: &[u8]) -> Result<Request, Fault> {
        read::request(body)
    }

    fn encode_response(&self, response: &Response, envelope: &Envelope) -> Vec<u8> {
        response::encode(response, envelope)
    }

    fn encode_count(&self, usage: &Usage) -> Vec<u8> {
        json!({"inputTokens": usage.input_total()}).to_string().into_bytes()
    }

    fn stream_encoder(&self, envelope: &Envelope) -> Box<dyn StreamEncoder> {
        Box::new(encoder::Encoder::new(envelope.clone()))
    }

    fn stream_type(&self, _: &Envelope) -> &'static str {
        "application/vnd.amazon.eventstream"
    }

    fn fault_headers(&self, fault: &Fault) -> Vec<(&'static str, String)> {
        vec![(fault::TYPE_HEADER, fault::kind(fault.class).to_owned())]
    }

    fn encode_fault(&self, fault: &Fault, _request_id: &str) -> Vec<u8> {
        fault::encode(fault)
    }

    /// As the control plane's `ListFoundationModels` answers; the runtime API has no list.
    fn encode_models(&self, models: &[ModelEntry]) -> Vec<u8> {
        let entry =
            |model: &ModelEntry| json!({"modelId": model.id, "modelName": model.id, "providerName": model.owner});
        json!({"modelSummaries": models.iter().map(entry).collect::<Vec<_>>()}).to_string().into_bytes()
    }

    fn tap(&self) -> Box<dyn Tap> {
        Box::new(tap::ConverseTap::default())
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

/// Whether a part of a path can be the name of a model: only names of resources hold slashes that some clients leave as
/// they are.
fn is_segment(model: &str) -> bool {
    !model.contains('/') || model.starts_with("arn:")
}
