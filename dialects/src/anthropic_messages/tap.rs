// SPDX-License-Identifier: Apache-2.0
//! Watches answers that are relayed untouched. Deltas, which are nearly all of a stream, are told apart by a few bytes
//! and never parsed.

use memchr::memmem;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{fault, usage};
use crate::codec::Tap;
use crate::framing::Frame;
use crate::ir::{Fault, Usage};

/// What has passed by of one stream.
#[derive(Default)]
pub(super) struct MessagesTap {
    usage: Option<Map<String, Value>>,
    complete: bool,
    fault: Option<Fault>,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Watched {
    #[serde(rename = "type", default)]
    kind: String,
    message: Option<Started>,
    usage: Option<Map<String, Value>>,
    error: Option<Value>,
}

/// What is read of a whole answer.
#[derive(Deserialize)]
struct Whole {
    usage: Option<Map<String, Value>>,
    input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Started {
    usage: Option<Map<String, Value>>,
}

impl Tap for MessagesTap {
    fn frame(&mut self, frame: &Frame<'_>) {
        let worth_a_look = match frame.name {
            "message_start" | "message_delta" | "error" => true,
            "message_stop" => {
                self.complete = true;
                return;
            }
            "content_block_delta" | "content_block_start" | "content_block_stop" | "ping" => false,
            // A vendor that does not name its events. Inside a JSON string the quotes would be escaped.
            _ => [&b"\"message_"[..], b"\"error\""].iter().any(|word| memmem::find(frame.data, word).is_some()),
        };
        if worth_a_look && let Ok(watched) = serde_json::from_slice::<Watched>(frame.data) {
            self.watched(watched);
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage.as_ref().map(usage::from_wire)
    }

    fn complete(&self) -> bool {
        self.complete
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }

    fn is_prelude(&self, frame: &Frame<'_>) -> bool {
        matches!(frame.name, "message_start" | "content_block_start" | "ping")
    }
}

impl MessagesTap {
    fn watched(&mut self, watched: Watched) {
        let stated = match watched.kind.as_str() {
            "message_start" => watched.message.and_then(|message| message.usage),
            "message_delta" => watched.usage,
            "message_stop" => {
                self.complete = true;
                None
            }
            "error" => {
                let body = json!({"type": "error", "error": watched.error.unwrap_or_default()});
                self.fault = fault::stated(&body, None);
                None
            }
            _ => None,
        };
        if let Some(stated) = stated {
            usage::merge(self.usage.get_or_insert_default(), &stated);
        }
    }
}

/// The usage of a whole answer, or the count of a count-tokens answer.
pub(super) fn whole_usage(body: &[u8]) -> Option<Usage> {
    memmem::find(body, b"\"input_tokens\"")?;
    let answer: Whole = serde_json::from_slice(body).ok()?;
    let counted = answer.input_tokens.map(|count| Map::from_iter([("input_tokens".to_owned(), json!(count))]));
    answer.usage.or(counted).as_ref().map(usage::from_wire)
}
