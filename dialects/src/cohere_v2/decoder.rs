// SPDX-License-Identifier: Apache-2.0
//! Reads a streamed answer: `message-start`, parts of content (`content-start`, `content-delta`…, `content-end`) with
//! citations between them, `tool-plan-delta`…, calls (`tool-call-start`, `tool-call-delta`…, `tool-call-end`), `message-end`,
//! `[DONE]`. Unknown events are passed over.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::{arguments, other, part_events, plan_piece};
use super::{fault, finish, logprobs, sealed_plan, unreadable, usage};
use crate::codec::StreamDecoder;
use crate::collect::CITATION;
use crate::framing::Frame;
use crate::ir::Event;

/// State of one streamed answer.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    started: bool,
    open: Open,
    /// The text part has ended; citations of it may still come.
    text_ended: bool,
    /// The tool plan so far.
    planned: String,
    /// Citations that came where there is no text.
    held: Vec<Value>,
    /// The vendor's index of each call, in the order of their begin.
    calls: Vec<u64>,
    /// `message-end` has come: what follows belongs to no answer.
    complete: bool,
}

/// What is being said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    Text,
    Thinking,
    Plan,
}

/// What is read of an event.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    index: Option<u64>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    logprobs: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Delta<'a> {
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Cow<'a, str>>,
    usage: Option<Value>,
    error: Option<Value>,
    error_type: Option<String>,
}

#[derive(Deserialize, Default)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_plan: Option<Cow<'a, str>>,
    tool_calls: Option<Value>,
    citations: Option<Value>,
}

/// More of a part.
#[derive(Deserialize)]
struct More<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    thinking: Option<Cow<'a, str>>,
    #[serde(borrow)]
    signature: Option<Cow<'a, str>>,
    #[serde(borrow)]
    redacted: Option<Cow<'a, str>>,
}

impl StreamDecoder for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        let data = frame.data.trim_ascii();
        if self.complete || data.is_empty() || data == b"[DONE]" {
            return;
        }
        match serde_json::from_slice::<Wire<'_>>(data) {
            Ok(mut wire) => {
                if wire.kind.is_empty() {
                    wire.kind = Cow::Owned(frame.name.to_owned());
                }
                self.wire(wire, data, events);
            }
            Err(error) => events.push(Event::Fault(unreadable(&error.to_string()))),
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        // A stream without `message-end` was cut: what is open ends, and nothing is complete.
        if !self.complete {
            self.close(events);
        }
    }
}

impl Decoder {
    fn wire(&mut self, wire: Wire<'_>, data: &[u8], events: &mut Vec<Event>) {
        let delta = wire.delta.unwrap_or_default();
        let message = delta.message.unwrap_or_default();
        let index = wire.index.unwrap_or_default();
        match wire.kind.as_ref() {
            "message-start" => self.start(wire.id.unwrap_or_default(), events),
            "content-start" => self.content_start(message.content, events),
            "content-delta" => {
                self.content_delta(message.content, events);
                // One item, or a list of them.
                let items = match wire.logprobs {
                    Some(Value::Array(items)) => items,
                    item => item.into_iter().collect(),
                };
                events.extend(logprobs::from_wire(&items).map(|json| other("logprobs", &json)));
            }
            "content-end" => self.content_end(events),
            "tool-plan-delta" => self.plan(&message.tool_plan.unwrap_or_default(), events),
            "tool-call-start" => self.call_start(index, &message.tool_calls.unwrap_or_default(), events),
            "tool-call-delta" => {
                let call = message.tool_calls.unwrap_or_default();
                self.call_more(index, arguments(&call["function"]["arguments"]), events);
            }
            "tool-call-end" => events.push(Event::BlockEnd),
            "citation-start" => self.citations(message.citations, events),
            "message-end" => {
                self.close(events);
                events.extend(self.held.drain(..).map(|cited| other(CITATION, &cited)));
                events.extend(delta.usage.as_ref().and_then(usage::read).map(Event::Usage));
                let reason = delta.finish_reason.unwrap_or_default();
                let reason = match reason.as_ref() {
                    "" if self.calls.is_empty() => "COMPLETE",
                    "" => "TOOL_CALL",
                    reason => reason,
                };
                let (error, kind) = (delta.error.unwrap_or_default(), delta.error_type.unwrap_or_default());
                events.push(match finish::from_wire(reason) {
                    Some(finish) => Event::Finish(finish),
                    None => Event::Fault(fault::of_finish(reason, &error, &kind)),
                });
                self.complete = true;
            }
            "" | "error" => {
                let object: Value = serde_json::from_slice(data).unwrap_or_default();
                events.extend(fault::in_band(&object).map(Event::Fault));
            }
            _ => {}
        }
    }

    fn start(&mut self, id: Cow<'_, str>, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start { id: id.into_owned(), model: String::new() });
        }
    }

    fn content_start(&mut self, content: Option<&RawValue>, events: &mut Vec<Event>) {
        self.close(events);
        let part: Value = content.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        self.open = match part["type"].as_str() {
            Some("text") => Open::Text,
            Some("thinking") => Open::Thinking,
            Some(_) => Open::Nothing,
            None => return,
        };
        part_events(&part, events);
        self.cite(events);
    }

    fn content_delta(&mut self, content: Option<&RawValue>, events: &mut Vec<Event>) {
        let Some(more) = content.and_then(|raw| serde_json::from_str::<More<'_>>(raw.get()).ok()) else { return };
        let said = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).filter(|text| !text.is_empty());
        if let Some(text) = said(more.text) {
            self.turn_to(Open::Text, events);
            events.push(Event::Text(text));
            self.cite(events);
        }
        if let Some(thought) = said(more.thinking) {
            self.turn_to(Open::Thinking, events);
            events.push(Event::Reasoning(thought));
        }
        events.extend(said(more.signature).map(Event::Signature));
        events.extend(said(more.redacted).map(Event::Redacted));
    }

    /// A delta without a begin.
    fn turn_to(&mut self, open: Open, events: &mut Vec<Event>) {
        if self.open != open || self.text_ended {
            self.close(events);
            self.open = open;
        }
    }

    fn content_end(&mut self, events: &mut Vec<Event>) {
        if self.open == Open::Text {
            self.text_ended = true;
        } else {
            self.close(events);
        }
    }

    fn plan(&mut self, more: &str, events: &mut Vec<Event>) {
        if more.is_empty() {
            return;
        }
        if self.open != Open::Plan {
            self.close(events);
            self.open = Open::Plan;
        }
        events.push(plan_piece(more));
        self.planned.push_str(more);
    }

    fn call_start(&mut self, index: u64, call: &Value, events: &mut Vec<Event>) {
        self.close(events);
        let function = &call["function"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.calls.push(index);
        let place = self.place(index);
        events.push(Event::Tool { index: place, id: text(&call["id"]), name: text(&function["name"]) });
        self.call_more(index, arguments(&function["arguments"]), events);
    }

    fn call_more(&mut self, index: u64, json: String, events: &mut Vec<Event>) {
        if !json.is_empty() {
            events.push(Event::ToolInput { index: self.place(index), json });
        }
    }

    /// Position of the call that the vendor gave this index last.
    fn place(&self, index: u64) -> u32 {
        let place = self.calls.iter().rposition(|known| *known == index);
        u32::try_from(place.unwrap_or_else(|| self.calls.len().saturating_sub(1))).unwrap_or(u32::MAX)
    }

    fn citations(&mut self, citations: Option<Value>, events: &mut Vec<Event>) {
        match citations {
            Some(Value::Array(list)) => self.held.extend(list),
            citation => self.held.extend(citation),
        }
        if self.open == Open::Text {
            self.cite(events);
        }
    }

    /// Tells the citations that are held.
    fn cite(&mut self, events: &mut Vec<Event>) {
        if self.open == Open::Text {
            events.extend(self.held.drain(..).map(|cited| other(CITATION, &cited)));
        }
    }

    /// Ends what is open.
    fn close(&mut self, events: &mut Vec<Event>) {
        match self.open {
            Open::Nothing => {}
            Open::Plan => {
                let plan = std::mem::take(&mut self.planned);
                events.extend([Event::Redacted(sealed_plan(&plan)), Event::BlockEnd]);
            }
            Open::Text | Open::Thinking => events.push(Event::BlockEnd),
        }
        self.open = Open::Nothing;
        self.text_ended = false;
    }
}
