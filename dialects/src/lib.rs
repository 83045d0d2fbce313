// SPDX-License-Identifier: Apache-2.0
//! The canonical form of LLM traffic ([`ir`]) and the codecs of the wire dialects, both directions, without any I/O.
//!
//! The host links this natively for the caller's side; adapters link it for the vendor's side. Read [`ir`] first, then
//! [`codec`], then the dialect that you work on.

pub mod codec;
pub mod collect;
pub mod conformance;
pub mod estimate;
pub mod framing;
pub mod ir;
pub mod splice;

pub mod anthropic_messages;
pub mod openai_chat;

use codec::{Codec, Operation};

/// Every dialect that a caller may speak.
pub static ALL: &[&dyn Codec] = &[&openai_chat::OpenAiChat, &anthropic_messages::AnthropicMessages];

/// The dialect of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Codec> {
    ALL.iter().copied().find(|codec| codec.name() == name)
}

/// Which dialect and operation a request is, by method and path below the route's prefix (`/chat/completions`), and by the
/// headers where two dialects share a path. `header` looks a request header up by its lower-case name.
pub fn recognise<'h>(
    method: &str,
    path: &str,
    header: &dyn Fn(&str) -> Option<&'h str>,
) -> Option<(&'static dyn Codec, Operation)> {
    // Headers decide between dialects that share a path (`GET /models`), so the more demanding dialect is asked first.
    ALL.iter().rev().find_map(|codec| codec.operation(method, path, header).map(|operation| (*codec, operation)))
}
