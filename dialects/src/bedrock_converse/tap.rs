// SPDX-License-Identifier: Apache-2.0
//! Watches answers that are relayed untouched. The names of the frames tell what is worth a look.

use memchr::memmem;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{fault, usage};
use crate::codec::Tap;
use crate::framing::Frame;
use crate::ir::{Fault, Usage};

/// What has passed by of one stream.
#[derive(Default)]
pub(super) struct ConverseTap {
    usage: Option<Usage>,
    complete: bool,
    fault: Option<Fault>,
}

/// What is read of a whole answer, or of `metadata`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Watched {
    usage: Option<Map<String, Value>>,
    input_tokens: Option<u64>,
}

impl Tap for ConverseTap {
    fn frame(&mut self, frame: &Frame<'_>) {
        match frame.name {
            "contentBlockDelta" | "contentBlockStart" | "contentBlockStop" | "messageStart" => {}
            // The usage comes behind this, and may be lost without the answer being so.
            "messageStop" => self.complete = true,
            "metadata" => self.usage = whole_usage(frame.data).or_else(|| self.usage.take()),
            name => {
                if let Some(fault) = fault::of_frame(name, frame.data) {
                    self.fault.get_or_insert(fault);
                }
            }
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.usage.clone()
    }

    fn complete(&self) -> bool {
        self.complete
    }

    fn fault(&self) -> Option<Fault> {
        self.fault.clone()
    }

    fn is_prelude(&self, frame: &Frame<'_>) -> bool {
        frame.name == "messageStart"
    }
}

/// The usage of a whole answer, or the count of a count-tokens answer.
pub(super) fn whole_usage(body: &[u8]) -> Option<Usage> {
    memmem::find(body, b"\"inputTokens\"")?;
    let answer: Watched = serde_json::from_slice(body).ok()?;
    let counted = answer.input_tokens.map(|count| Map::from_iter([("inputTokens".to_owned(), json!(count))]));
    answer.usage.or(counted).as_ref().map(usage::from_wire)
}
