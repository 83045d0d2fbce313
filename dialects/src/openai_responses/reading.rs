// SPDX-License-Identifier: Apache-2.0
//! Reads a vendor's answer, whole or event by event. Vendors differ in what they leave out: Codex's last event has no
//! output, others name no events, or send the whole answer in the last one; `OpenRouter` adds the terminator of another
//! dialect. The last event is taken for what no earlier one has said.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::slots::Slots;
use super::{ENVELOPE, fault, usage};
use crate::codec::StreamDecoder;
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Finish, Usage};

/// Members of an answer that have a canonical place, or that say what kind of JSON this is.
const KNOWN_MEMBERS: &[&str] = &[
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "error",
    "incomplete_details",
    "model",
    "output",
    "output_text",
    "usage",
];

/// Reads a whole answer to a request for one, or the one to a request for a count.
pub(super) fn whole(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if let Some(fault) = fault::in_answer(&answer) {
        return Err(fault);
    }
    if let Some(input) = answer["input_tokens"].as_u64().filter(|_| answer["output"].is_null()) {
        let usage = Usage { input, stated: answer.to_string(), ..Usage::default() };
        let finish = Finish { reason: "stop".to_owned(), sequence: None };
        return Ok(vec![Event::Usage(usage), Event::Finish(finish)]);
    }
    if !answer["output"].is_array() {
        return Err(Fault::new(FaultClass::VendorBug, "the vendor's answer has no output"));
    }
    let (mut reading, mut events) = (Reading::default(), Vec::new());
    reading.last(&answer, "", &mut events);
    Ok(events)
}

/// How an answer ends: with a finish, or with a fault. `kind` is the type of the event that says so, if any.
pub(super) fn ending(answer: &Value, kind: &str, called: bool) -> Event {
    if let Some(fault) = fault::in_answer(answer) {
        return Event::Fault(fault);
    }
    let status = answer["status"].as_str().or_else(|| kind.strip_prefix("response."));
    let reason = match status.unwrap_or_default() {
        "" | "completed" if called => "tool_calls",
        "" | "completed" => "stop",
        "incomplete" => match answer["incomplete_details"]["reason"].as_str().unwrap_or_default() {
            "" | "max_output_tokens" | "max_tokens" => "length",
            reason => reason,
        },
        "failed" => return Event::Fault(Fault::new(FaultClass::VendorBug, "the vendor broke its answer off")),
        status => status,
    };
    Event::Finish(Finish { reason: reason.to_owned(), sequence: None })
}

/// Whether an event is the last one of an answer.
pub(super) fn is_last(kind: &str) -> bool {
    matches!(kind, "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled")
}

/// State of an answer that is being read.
#[derive(Default)]
pub(super) struct Reading {
    started: bool,
    failed: bool,
    /// The last event has come: what follows belongs to no answer.
    over: bool,
    slots: Slots,
}

/// What is read of a delta, which is nearly every event.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    delta: String,
    output_index: Option<u64>,
    content_index: Option<u64>,
    summary_index: Option<u64>,
}

impl StreamDecoder for Reading {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        let data = frame.data.trim_ascii();
        if self.over || data.is_empty() || data == b"[DONE]" || self.delta(data, events) {
            return;
        }
        match serde_json::from_slice::<Value>(data) {
            Ok(event) => {
                let kind = event["type"].as_str().unwrap_or(frame.name).to_owned();
                self.event(&kind, &event, events);
            }
            Err(_) if frame.name == "error" => {
                let text = String::from_utf8_lossy(data).into_owned();
                self.fail(fault::in_event("error", &Value::String(text)), events);
            }
            Err(error) => self.fail(Some(unreadable(&error)), events),
        }
    }

    fn end(&mut self, _: &mut Vec<Event>) {}
}

impl Reading {
    /// Takes an event that is a delta; false if it is none.
    fn delta(&mut self, data: &[u8], events: &mut Vec<Event>) -> bool {
        if memmem::find(data, b".delta\"").is_none() {
            return false;
        }
        let Ok(delta) = serde_json::from_slice::<Delta<'_>>(data) else { return false };
        let place = delta.output_index;
        match delta.kind.as_ref() {
            "response.output_text.delta" => self.slots.text(place, delta.content_index, delta.delta, false, events),
            "response.refusal.delta" => self.slots.text(place, delta.content_index, delta.delta, true, events),
            "response.reasoning_summary_text.delta" => {
                self.slots.thought(place, delta.summary_index, false, delta.delta, events);
            }
            "response.reasoning_text.delta" => {
                self.slots.thought(place, delta.content_index, true, delta.delta, events);
            }
            "response.function_call_arguments.delta" => self.slots.input(place, delta.delta, events),
            kind => return kind.starts_with("response."), // what is said whole at the end of its item
        }
        true
    }

    fn event(&mut self, kind: &str, event: &Value, events: &mut Vec<Event>) {
        let place = event["output_index"].as_u64();
        match kind {
            "response.created" | "response.in_progress" | "response.queued" => self.start(&event["response"], events),
            "response.output_item.added" => self.slots.added(place, &event["item"], events),
            "response.content_part.done" => {
                self.slots.part_done(place, event["content_index"].as_u64(), &event["part"], events);
            }
            "response.output_text.annotation.added" => {
                let index = event["content_index"].as_u64();
                self.slots.annotation(place, index, &event["annotation"], events);
            }
            "response.output_item.done" => self.slots.done(place, &event["item"], events),
            kind if is_last(kind) => self.last(&event["response"], kind, events),
            kind if kind.starts_with("response.") => {}
            kind => self.fail(fault::in_event(kind, event), events),
        }
    }

    fn start(&mut self, answer: &Value, events: &mut Vec<Event>) {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start { id: text("id"), model: text("model") });
        }
    }

    fn last(&mut self, answer: &Value, kind: &str, events: &mut Vec<Event>) {
        self.start(answer, events);
        self.slots.last(answer["output"].as_array().map(Vec::as_slice).unwrap_or_default(), events);
        events.extend(envelope_event(answer));
        events.extend(usage::read(answer).map(Event::Usage));
        match ending(answer, kind, self.slots.called()) {
            Event::Fault(fault) => self.fail(Some(fault), events),
            finish if !self.failed => events.push(finish),
            _ => {}
        }
        self.over = true;
    }

    fn fail(&mut self, fault: Option<Fault>, events: &mut Vec<Event>) {
        if let Some(fault) = fault
            && !std::mem::replace(&mut self.failed, true)
        {
            events.push(Event::Fault(fault));
        }
    }
}

/// The event that keeps what only this dialect knows of an answer; none if there is nothing.
fn envelope_event(answer: &Value) -> Option<Event> {
    let mut rest: Map<String, Value> = answer.as_object().cloned().unwrap_or_default();
    rest.retain(|name, value| !KNOWN_MEMBERS.contains(&name.as_str()) && !value.is_null());
    if rest.is_empty() {
        return None;
    }
    Some(Event::Other { name: ENVELOPE.to_owned(), json: Value::Object(rest).to_string() })
}

fn unreadable(error: &serde_json::Error) -> Fault {
    Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}"))
}
