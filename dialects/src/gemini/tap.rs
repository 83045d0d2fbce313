// SPDX-License-Identifier: Apache-2.0
//! Watches answers that are relayed untouched. Nearly every chunk states its usage, so the last statement is kept as text
//! and read when somebody asks.

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{fault, usage};
use crate::codec::Tap;
use crate::framing::Frame;
use crate::ir::{Fault, Usage};

/// What has passed by of one stream.
#[derive(Default)]
pub(super) struct ChunksTap {
    usage: Option<Box<RawValue>>,
    complete: bool,
    fault: Option<Fault>,
}

/// What is read of a chunk, and of a whole answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Watched<'b> {
    #[serde(borrow)]
    usage_metadata: Option<&'b RawValue>,
    error: Option<Value>,
}

impl Tap for ChunksTap {
    fn frame(&mut self, frame: &Frame<'_>) {
        // In a JSON string the quotes of a name would be escaped, so a hit is a name.
        let has = |name: &[u8]| memmem::find(frame.data, name).is_some();
        self.complete |= has(b"\"finishReason\"") || has(b"\"blockReason\"");
        if !has(b"TokenCount\"") && !has(b"\"error\"") {
            return;
        }
        let Ok(watched) = serde_json::from_slice::<Watched<'_>>(frame.data) else { return };
        if let Some(stated) = watched.usage_metadata.filter(|stated| read(stated).is_some()) {
            self.usage = Some(stated.to_owned());
        }
        if let Some(error) = watched.error.filter(|error| !error.is_null() && self.fault.is_none()) {
            self.fault = Some(fault::stated(&serde_json::json!({ "error": error }), None));
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage.as_deref().and_then(read)
    }

    fn complete(&self) -> bool {
        self.complete
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }
}

/// The usage of a whole answer: of a chat, of vectors, of a count. A list of chunks has that of its last one.
pub(super) fn whole_usage(body: &[u8]) -> Option<Usage> {
    if memmem::find(body, b"\"totalTokens\"").is_some() {
        return usage::read_count(&serde_json::from_slice(body).ok()?);
    }
    memmem::find(body, b"\"usageMetadata\"")?;
    if body.trim_ascii_start().starts_with(b"[") {
        let chunks: Vec<Watched<'_>> = serde_json::from_slice(body).ok()?;
        return chunks.iter().rev().find_map(|chunk| read(chunk.usage_metadata?));
    }
    read(serde_json::from_slice::<Watched<'_>>(body).ok()?.usage_metadata?)
}

/// The usage that a message of a conversation over a WebSocket states: that of one turn.
pub(super) fn realtime_usage(message: &[u8]) -> Option<Usage> {
    memmem::find(message, b"\"usageMetadata\"")?;
    read(serde_json::from_slice::<Watched<'_>>(message).ok()?.usage_metadata?)
}

fn read(stated: &RawValue) -> Option<Usage> {
    usage::read(&serde_json::from_str(stated.get()).ok()?)
}
