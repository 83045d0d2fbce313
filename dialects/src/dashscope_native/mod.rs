// SPDX-License-Identifier: Apache-2.0
//! DashScope's own API (Alibaba Cloud Model Studio: Qwen, Wanx), vendor's side only: no caller speaks it, so it is no
//! [`Codec`](crate::codec::Codec) but functions for the adapter.
//!
//! A request is `{model, input, parameters}`, an answer `{output, usage, request_id}`, an error `{code, message,
//! request_id}`. The parts: [`chat`] writes a conversation ([`messages`] its turns), [`reading`] reads its answer
//! ([`growth`] its pieces), [`tasks`] writes what is no conversation, [`results`] reads the answers to that, [`usage`]
//! token counts, [`fault`] errors. Facts are from recorded traffic; where that has none, from the vendor's reference
//! (<https://help.aliyun.com/zh/model-studio/dashscope-api-reference>).

mod chat;
mod fault;
mod growth;
mod messages;
mod reading;
mod results;
mod tasks;
mod usage;

pub use chat::{Style, encode_request, holds_media, wants_thoughts};
pub use fault::decode_fault;
pub use reading::{decode_response, stream_decoder};
pub use results::{Progress, decode_progress, decode_result};
pub use tasks::encode_task;

use serde_json::{Map, Value};

use crate::ir::Members;
use crate::task::Extensions;

/// Name of the format in recorded exchanges, and of its extensions.
pub const NAME: &str = "dashscope-native";

/// Conversations in words.
pub const TEXT_GENERATION: &str = "/services/aigc/text-generation/generation";
/// Conversations with pictures, films and sound.
pub const MULTIMODAL_GENERATION: &str = "/services/aigc/multimodal-generation/generation";
/// Pictures from words; a job.
pub const TEXT_TO_IMAGE: &str = "/services/aigc/text2image/image-synthesis";
/// Pictures from pictures; a job.
pub const IMAGE_TO_IMAGE: &str = "/services/aigc/image2image/image-synthesis";
/// Films; a job.
pub const VIDEO_SYNTHESIS: &str = "/services/aigc/video-generation/video-synthesis";
/// Documents in order.
pub const TEXT_RERANK: &str = "/services/rerank/text-rerank/text-rerank";
/// Vectors of texts.
pub const TEXT_EMBEDDING: &str = "/services/embeddings/text-embedding/text-embedding";
/// Vectors of texts, pictures and films.
pub const MULTIMODAL_EMBEDDING: &str = "/services/embeddings/multimodal-embedding/multimodal-embedding";

/// A request, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Path below the base URL.
    pub path: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// What the API has no place for, as paths.
    pub dropped: Vec<String>,
}

/// Sets a member that has a value.
fn set(members: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        members.insert(name.to_owned(), value.into());
    }
}

/// Takes over what callers say beyond the canonical form. Members of this format go through; of those of other dialects
/// only the `shared` ones, which the vendor's OpenAI-compatible API takes under the same names; `understood` ones are said
/// already; the rest is reported.
fn extend(
    parameters: &mut Map<String, Value>,
    extensions: &Extensions,
    shared: &[&str],
    understood: &[&str],
    dropped: &mut Vec<String>,
) {
    for (dialect, members) in extensions {
        let members: &Members = members;
        for (name, value) in members {
            let known = dialect == NAME || dialect == crate::openai_chat::NAME && shared.contains(&name.as_str());
            if known {
                parameters.entry(name.clone()).or_insert_with(|| value.clone());
            } else if !understood.contains(&name.as_str()) && !says_nothing(name, value) {
                dropped.push(name.clone());
            }
        }
    }
}

/// Whether a member asks for what would happen anyway.
fn says_nothing(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(if name == "n" { 1.0 } else { 0.0 }),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::String(_) => false,
    }
}
