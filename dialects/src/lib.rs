// SPDX-License-Identifier: Apache-2.0
//! The canonical form of LLM traffic ([`ir`]) and the codecs of the wire dialects, both directions, without any I/O.
//!
//! The host links this natively for the caller's side; adapters link it for the vendor's side. Read [`ir`] first, then
//! [`codec`], then the dialect that you work on.

pub mod codec;
pub mod collect;
pub mod conformance;
pub mod estimate;
pub mod form;
pub mod framing;
pub mod ir;
pub mod job;
pub mod settle;
pub mod splice;
pub mod task;
pub mod vectors;
pub mod vendor;

mod members;
mod percent;
mod scan;

pub mod anthropic_messages;
pub mod bedrock_converse;
pub mod cohere_v2;
pub mod dashscope_native;
pub mod gemini;
pub mod ollama_native;
pub mod openai_chat;
pub mod openai_completions;
pub mod openai_responses;

use codec::{Ask, Codec, Head, Operation};

/// Every dialect that a caller may speak. Of two that have the same path the later one is asked first.
pub static ALL: &[&dyn Codec] = &[
    &cohere_v2::CohereV2,
    &openai_chat::OpenAiChat,
    &openai_completions::OpenAiCompletions,
    &openai_responses::OpenAiResponses,
    &anthropic_messages::AnthropicMessages,
    &gemini::Gemini,
    &bedrock_converse::BedrockConverse,
];

/// The dialect of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Codec> {
    ALL.iter().copied().find(|codec| codec.name() == name)
}

/// Which dialect a request is written in, and what it asks for. `allowed` names the dialects to look for; empty for all.
pub fn recognise(head: &Head<'_>, allowed: &[String]) -> Option<(&'static dyn Codec, Ask)> {
    let is_allowed = |codec: &&dyn Codec| allowed.is_empty() || allowed.iter().any(|name| name == codec.name());
    // Headers decide between dialects that share a path (`GET /models`), so the more demanding dialects are asked first.
    let spoken = || ALL.iter().rev().copied().filter(is_allowed);
    let found = spoken().find_map(|codec| Some((codec, codec.recognise(head)?)));
    // Jobs are asked about in the same way whatever is spoken besides.
    let about_jobs = || Some((spoken().next_back()?, Operation::Jobs.into()));
    // Where one dialect alone is spoken, nothing has to tell its list of models from that of another.
    let alone = || (allowed.len() == 1).then(|| spoken().next()).flatten().zip(models(head));
    found.or_else(alone).or_else(|| about_jobs().filter(|_| job::is_below(head.path)))
}

/// What asks for the list of models, or for one of them.
fn models(head: &Head<'_>) -> Option<Ask> {
    let rest = head.path.strip_prefix("/models").filter(|_| head.method == "GET")?;
    let model = rest.strip_prefix('/').filter(|model| !model.is_empty()).and_then(percent::decoded);
    (rest.is_empty() || model.is_some()).then(|| Ask { model, ..Operation::Models.into() })
}
