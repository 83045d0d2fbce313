// SPDX-License-Identifier: Apache-2.0
//! Reads a streamed answer: `message_start`, then for each block `content_block_start`, `content_block_delta`…,
//! `content_block_stop`, then `message_delta` and `message_stop`; `ping` and `error` anywhere; unknown events are passed over.

use std::borrow::Cow;
use std::mem;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{fault, read_blocks, response, stop, usage};
use crate::codec::StreamDecoder;
use crate::collect::CITATION;
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Finish};

/// State of one streamed answer.
#[derive(Default)]
pub(super) struct Decoder {
    /// Blocks that have begun and not ended, by index. One at a time, by the protocol.
    open: Vec<(u64, Open)>,
    tool_count: u32,
    /// Union of what was stated of the usage.
    usage: Map<String, Value>,
    /// How the answer ended, as soon as that is known.
    finish: Option<Finish>,
    /// `message_stop` has come: what follows belongs to no answer.
    complete: bool,
}

/// A block that has begun.
enum Open {
    Text,
    /// With the pieces of its signature.
    Thinking(String),
    /// With its index among the calls, and the input that it began with, as long as no piece has come.
    Tool(u32, Option<Value>),
    /// A block that only this dialect knows, and the pieces of its input.
    Opaque(Value, String),
    /// Said already, whole.
    Silent,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    index: Option<u64>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    content_block: Option<Value>,
    message: Option<Map<String, Value>>,
    usage: Option<Map<String, Value>>,
    error: Option<Value>,
    context_management: Option<Value>,
}

/// What is read of `delta`.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    thinking: Option<Cow<'a, str>>,
    #[serde(borrow)]
    signature: Option<Cow<'a, str>>,
    #[serde(borrow)]
    partial_json: Option<Cow<'a, str>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl StreamDecoder for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        // Some vendors of this dialect add the terminator of another one.
        if self.complete || frame.data.trim_ascii().is_empty() || frame.data.trim_ascii() == b"[DONE]" {
            return;
        }
        match serde_json::from_slice::<Wire<'_>>(frame.data) {
            Ok(mut wire) => {
                if wire.kind.is_empty() {
                    wire.kind = Cow::Owned(frame.name.to_owned());
                }
                self.wire(wire, events);
            }
            Err(error) => {
                let message = format!("an event of the vendor's stream cannot be read: {error}");
                events.push(Event::Fault(Fault::new(FaultClass::VendorBug, message)));
            }
        }
    }

    /// A stream without `message_stop` was cut, even if a stop reason has come.
    fn end(&mut self, _: &mut Vec<Event>) {}
}

impl Decoder {
    fn wire(&mut self, wire: Wire<'_>, events: &mut Vec<Event>) {
        let index = wire.index.unwrap_or_default();
        match wire.kind.as_ref() {
            "message_start" => self.message_start(&wire.message.unwrap_or_default(), events),
            "content_block_start" => self.block_start(index, wire.content_block.unwrap_or_default(), events),
            "content_block_delta" => {
                if let Some(delta) = wire.delta {
                    self.block_delta(index, delta, events);
                }
            }
            "content_block_stop" => self.block_stop(index, events),
            "message_delta" => {
                self.message_delta(wire.delta, wire.usage, events);
                let edits = wire.context_management.map(|edits| ("context_management".to_owned(), edits));
                events.extend(response::envelope_event(&edits.into_iter().collect()));
            }
            "message_stop" => self.stop(events),
            // An error is one even where a vendor forgets to say so.
            kind if kind == "error" || wire.error.is_some() => {
                let body = serde_json::json!({"type": "error", "error": wire.error.unwrap_or_default()});
                events.extend(fault::stated(&body, None).map(Event::Fault));
            }
            _ => {}
        }
    }

    fn message_start(&mut self, message: &Map<String, Value>, events: &mut Vec<Event>) {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        events.push(Event::Start { id: text("id"), model: text("model") });
        events.extend(response::envelope_event(message));
        if let Some(Value::Object(stated)) = message.get("usage") {
            self.stated(stated, events);
        }
    }

    fn message_delta(&mut self, delta: Option<Delta<'_>>, stated: Option<Map<String, Value>>, events: &mut Vec<Event>) {
        if let Some(stated) = stated {
            self.stated(&stated, events);
        }
        let Some(Delta { rest, .. }) = delta else { return };
        let text = |name: &str| rest.get(name).and_then(Value::as_str);
        if let Some(reason) = text("stop_reason") {
            self.finish = Some(stop::from_wire(reason, text("stop_sequence").map(str::to_owned)));
        }
        events.extend(response::envelope_event(&rest));
    }

    fn stated(&mut self, stated: &Map<String, Value>, events: &mut Vec<Event>) {
        usage::merge(&mut self.usage, stated);
        events.push(Event::Usage(usage::from_wire(&self.usage)));
    }

    fn stop(&mut self, events: &mut Vec<Event>) {
        for (_, open) in mem::take(&mut self.open) {
            end_block(open, events);
        }
        self.complete = true;
        let finish = self.finish.take().unwrap_or_else(|| stop::from_wire("end_turn", None));
        events.push(Event::Finish(finish));
    }

    fn block_start(&mut self, index: u64, mut block: Value, events: &mut Vec<Event>) {
        let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
        let open = match block["type"].as_str().unwrap_or_default() {
            "text" => {
                events.extend(Some(text("text")).filter(|text| !text.is_empty()).map(Event::Text));
                let citations = block["citations"].as_array().into_iter().flatten();
                events.extend(citations.map(citation));
                Open::Text
            }
            "thinking" => {
                events.extend(Some(text("thinking")).filter(|text| !text.is_empty()).map(Event::Reasoning));
                Open::Thinking(text("signature"))
            }
            "redacted_thinking" => {
                events.push(Event::Redacted(text("data")));
                Open::Silent
            }
            "tool_use" => {
                let call = self.tool_count;
                self.tool_count += 1;
                events.push(Event::Tool { index: call, id: text("id"), name: text("name") });
                Open::Tool(call, block.get_mut("input").map(Value::take))
            }
            _ => Open::Opaque(block, String::new()),
        };
        self.open.retain(|(other, _)| *other != index);
        self.open.push((index, open));
    }

    fn block_delta(&mut self, index: u64, delta: Delta<'_>, events: &mut Vec<Event>) {
        let open = self.open.iter_mut().find(|(other, _)| *other == index).map(|(_, open)| open);
        let more = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).filter(|text| !text.is_empty());
        match (delta.kind.as_ref(), open) {
            (_, Some(Open::Opaque(block, input))) => opaque_delta(block, input, delta),
            ("text_delta", _) => events.extend(more(delta.text).map(Event::Text)),
            ("thinking_delta", _) => events.extend(more(delta.thinking).map(Event::Reasoning)),
            ("signature_delta", Some(Open::Thinking(signature))) => {
                signature.push_str(&delta.signature.unwrap_or_default());
            }
            ("signature_delta", _) => events.extend(more(delta.signature).map(Event::Signature)),
            ("input_json_delta", Some(Open::Tool(call, begun))) => {
                if let Some(json) = more(delta.partial_json) {
                    *begun = None;
                    events.push(Event::ToolInput { index: *call, json });
                }
            }
            ("citations_delta", _) => events.extend(delta.rest.get("citation").map(citation)),
            _ => {}
        }
    }

    fn block_stop(&mut self, index: u64, events: &mut Vec<Event>) {
        if let Some(place) = self.open.iter().position(|(other, _)| *other == index) {
            end_block(self.open.remove(place).1, events);
        }
    }
}

fn end_block(open: Open, events: &mut Vec<Event>) {
    match open {
        Open::Text | Open::Silent => {}
        Open::Thinking(signature) => {
            events.extend(Some(signature).filter(|signature| !signature.is_empty()).map(Event::Signature));
        }
        Open::Tool(index, begun) => {
            if begun.is_some() {
                events.push(Event::ToolInput { index, json: read_blocks::input_text(begun.as_ref()) });
            }
        }
        Open::Opaque(mut block, input) => {
            if let (Value::Object(block), Ok(input)) = (&mut block, serde_json::from_str(&input)) {
                block.insert("input".to_owned(), input);
            }
            events.push(response::opaque_event(&block));
        }
    }
    events.push(Event::BlockEnd);
}

/// Deltas of blocks that are not known in detail: pieces of `input`, and texts that are appended to the member of their
/// name (`compaction_delta`).
fn opaque_delta(block: &mut Value, input: &mut String, delta: Delta<'_>) {
    input.push_str(&delta.partial_json.unwrap_or_default());
    let Value::Object(block) = block else { return };
    let known = [("text", delta.text), ("thinking", delta.thinking), ("signature", delta.signature)];
    let known = known.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?.into_owned()))));
    for (name, more) in known.chain(delta.rest) {
        match (block.get_mut(&name), more) {
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (_, more) => {
                block.insert(name, more);
            }
        }
    }
}

fn citation(citation: &Value) -> Event {
    Event::Other { name: CITATION.to_owned(), json: citation.to_string() }
}
