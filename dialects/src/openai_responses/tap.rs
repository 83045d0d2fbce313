// SPDX-License-Identifier: Apache-2.0
//! Watches an answer that is relayed untouched: its usage, its end, its error. Deltas, which are nearly all of a stream,
//! are told apart by a few bytes and never parsed.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{fault, reading, usage};
use crate::codec;
use crate::framing::Frame;
use crate::ir::{Event, Fault, Usage};

/// What tells of the end or of an error, as JSON: inside a string the quotes would be escaped.
const TELLING: &[&[u8]] =
    &[b"\"response.completed\"", b"\"response.incomplete\"", b"\"response.failed\"", b"\"response.cancelled\""];

/// State of a stream that is watched.
#[derive(Debug, Default)]
pub(super) struct Tap {
    usage: Option<Usage>,
    over: bool,
    complete: bool,
    fault: Option<Fault>,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Watched<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    response: Option<Answer<'a>>,
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_usage: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    incomplete_details: Option<&'a RawValue>,
    input_tokens: Option<u64>,
}

impl codec::Tap for Tap {
    fn frame(&mut self, frame: &Frame<'_>) {
        if self.over || frame.name.ends_with(".delta") {
            return;
        }
        let finds = |word: &&[u8]| memmem::find(frame.data, word).is_some();
        if reading::is_last(frame.name) || TELLING.iter().any(finds) {
            self.last(frame);
        } else if frame.name == "error" || finds(&&b"\"error\""[..]) {
            self.error(frame);
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
        matches!(frame.name, "response.created" | "response.queued" | "response.in_progress")
            || frame.name.ends_with(".added")
    }
}

impl Tap {
    fn last(&mut self, frame: &Frame<'_>) {
        let (kind, answer) = match serde_json::from_slice::<Watched<'_>>(frame.data) {
            Ok(watched) => {
                (watched.kind.into_owned(), watched.response.map(|answer| answer.value()).unwrap_or_default())
            }
            Err(_) => {
                let mut event: Value = serde_json::from_slice(frame.data).unwrap_or_default();
                (event["type"].as_str().unwrap_or_default().to_owned(), event["response"].take())
            }
        };
        let kind = if kind.is_empty() { frame.name } else { &kind };
        if !reading::is_last(kind) {
            return;
        }
        self.usage = usage::read(&answer);
        self.over = true;
        match reading::ending(&answer, kind, false) {
            Event::Fault(fault) => {
                self.fault.get_or_insert(fault);
            }
            _ => self.complete = self.fault.is_none(),
        }
    }

    fn error(&mut self, frame: &Frame<'_>) {
        let event: Value = serde_json::from_slice(frame.data)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(frame.data.trim_ascii()).into_owned()));
        let kind = event["type"].as_str().unwrap_or(frame.name);
        if self.fault.is_none() && !kind.starts_with("response.") {
            self.fault = fault::in_event(kind, &event);
        }
    }
}

impl Answer<'_> {
    /// The same as a tree, without what is not watched.
    fn value(&self) -> Value {
        let members = [
            ("usage", self.usage),
            ("tool_usage", self.tool_usage),
            ("status", self.status),
            ("error", self.error),
            ("incomplete_details", self.incomplete_details),
        ];
        let read = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
        members.into_iter().filter_map(|(name, raw)| Some((name.to_owned(), read(raw?)?))).collect()
    }
}

/// The usage of a whole answer, or the count of one to a request for a count.
pub(super) fn whole_usage(body: &[u8]) -> Option<Usage> {
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    if let (Some(input), None) = (answer.input_tokens, answer.usage) {
        let stated = String::from_utf8_lossy(body).trim().to_owned();
        return Some(Usage { input, stated, ..Usage::default() });
    }
    usage::read(&answer.value())
}
