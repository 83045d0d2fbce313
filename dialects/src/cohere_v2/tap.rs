// SPDX-License-Identifier: Apache-2.0
//! Watches answers that are relayed untouched. Only the end of a stream says anything, and is told by its name or by a
//! byte search.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::Value;

use super::{fault, finish, usage};
use crate::codec;
use crate::framing::Frame;
use crate::ir::{Fault, Usage};

static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"message-end\""));
static TYPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"type\""));

/// What has passed by of one stream.
#[derive(Debug, Default)]
pub(super) struct Tap {
    usage: Option<Usage>,
    complete: bool,
    fault: Option<Fault>,
}

#[derive(Deserialize)]
struct Ended {
    #[serde(default)]
    delta: Delta,
}

#[derive(Deserialize, Default)]
struct Delta {
    #[serde(default)]
    finish_reason: String,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    error_type: Option<String>,
}

/// Where a whole answer counts.
#[derive(Deserialize)]
struct Whole {
    usage: Option<Value>,
    meta: Option<Value>,
}

impl codec::Tap for Tap {
    fn frame(&mut self, frame: &Frame<'_>) {
        match frame.name {
            "message-end" => self.end(frame.data),
            "" if END.find(frame.data).is_some() => self.end(frame.data),
            // An error has neither a name nor a type.
            "" | "error" if TYPE.find(frame.data).is_none() => {
                let object: Value = serde_json::from_slice(frame.data).unwrap_or_default();
                self.fault = self.fault.take().or_else(|| fault::in_band(&object));
            }
            _ => {}
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
        matches!(frame.name, "message-start" | "content-start")
    }
}

impl Tap {
    fn end(&mut self, data: &[u8]) {
        let Ok(Ended { delta }) = serde_json::from_slice(data) else { return };
        self.usage = usage::read(&delta.usage).or_else(|| self.usage.take());
        if finish::from_wire(&delta.finish_reason).is_some() {
            self.complete = true;
        } else {
            let kind = delta.error_type.unwrap_or_default();
            self.fault = Some(fault::of_finish(&delta.finish_reason, &delta.error, &kind));
        }
    }
}

/// The usage of a whole answer: of a chat in `usage`, of vectors and rankings in `meta`.
pub(super) fn whole_usage(body: &[u8]) -> Option<Usage> {
    let whole: Whole = serde_json::from_slice(body).ok()?;
    whole.usage.or(whole.meta).as_ref().and_then(usage::read)
}
