// SPDX-License-Identifier: Apache-2.0
//! Reads a vendor's answer, whole or chunk by chunk, into events. Tolerant: vendors that call themselves compatible
//! differ in where they put usage, reasoning, errors and tool calls, and each branch here is something that a recorded
//! vendor does.

use serde_json::{Map, Value};

use super::{fault, plain, seal, usage};
use crate::codec::StreamDecoder;
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Finish, Usage};

/// Terminator of a stream.
pub(super) const DONE: &[u8] = b"[DONE]";

/// Reads a whole answer.
pub(super) fn whole(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let object: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if let Some(fault) = fault::in_band(&object, false) {
        return Err(fault);
    }
    if object["choices"].as_array().is_none_or(Vec::is_empty) {
        return Err(Fault::new(FaultClass::VendorBug, "the vendor's answer has no choices"));
    }
    let mut reading = Reading { whole: true, ..Reading::default() };
    let mut events = Vec::new();
    reading.object(&object, &mut events);
    if let Some(fault) =
        events.iter().find_map(|event| if let Event::Fault(fault) = event { Some(fault) } else { None })
    {
        return Err(fault.clone());
    }
    reading.done = true;
    reading.conclude(&mut events);
    Ok(events)
}

/// State of an answer that is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Not a stream: members of a list have no index of their own.
    whole: bool,
    started: bool,
    failed: bool,
    /// The terminator has come.
    done: bool,
    concluded: bool,
    tools: Vec<Slot>,
    finish: Option<String>,
    usage: Option<Usage>,
    /// Whether `usage` is the answer's own, not one from a vendor's corner.
    usage_is_own: bool,
    reasoning_from: Option<ReasoningFrom>,
}

/// A tool call that is being read.
#[derive(Debug, Default)]
struct Slot {
    /// The vendor's index; none if it gives none.
    place: Option<u64>,
    id: String,
    /// Whether its start has been told: only when its name is known.
    told: bool,
    /// Arguments that came before the name.
    early: String,
}

/// Which member the text of the reasoning is taken from; many vendors send it in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReasoningFrom {
    Member,
    Details,
}

impl StreamDecoder for Reading {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        let data = frame.data.trim_ascii();
        if data == DONE {
            self.done = true;
            self.conclude(events);
            return;
        }
        if data.is_empty() || self.concluded {
            return;
        }
        if self.started && frame.name.is_empty() && self.plain(data, events) {
            return;
        }
        match serde_json::from_slice::<Value>(data) {
            Ok(object) => {
                let fault = fault::in_band(&object, frame.name == "error");
                self.fail(fault, events);
                self.object(&object, events);
            }
            Err(_) if frame.name == "error" => {
                let text = String::from_utf8_lossy(data).into_owned();
                self.fail(fault::in_band(&Value::String(text), true), events);
            }
            Err(error) => self.fail(Some(unreadable(&error)), events),
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.conclude(events);
    }
}

impl Reading {
    /// Takes a chunk that is plain; false if it is not.
    fn plain(&mut self, data: &[u8], events: &mut Vec<Event>) -> bool {
        let Some(chunk) = plain::read(data) else { return false };
        if chunk.reasoning.is_some()
            && *self.reasoning_from.get_or_insert(ReasoningFrom::Member) != ReasoningFrom::Member
        {
            return false;
        }
        events.extend(chunk.reasoning.map(Event::Reasoning));
        events.extend(chunk.text.map(Event::Text));
        true
    }

    fn object(&mut self, object: &Value, events: &mut Vec<Event>) {
        let choices = object["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        let counted = self.usage.is_some();
        self.start(object, !choices.is_empty(), events);
        for choice in choices.iter().filter(|choice| choice["index"].as_u64().unwrap_or_default() == 0) {
            self.choice(choice, events);
            self.usage(&choice["usage"], "", false, events);
        }
        self.usage(&object["x_groq"]["usage"], "", false, events);
        self.usage(&object["usage"], text(object, "service_tier"), true, events);
        // A vendor that counts with every piece has said everything with the last one, and says no `[DONE]` (Perplexity).
        self.done |= counted && self.finish.is_some() && object["usage"].is_object();
        if self.whole || self.finish.is_some() {
            for name in ["citations", "search_results"] {
                other(name, &object[name], events);
            }
        }
    }

    fn start(&mut self, object: &Value, has_choices: bool, events: &mut Vec<Event>) {
        let (id, model) = (text(object, "id"), text(object, "model"));
        // Azure's first chunk has neither, and no choices.
        if !self.started && !self.failed && (has_choices || !id.is_empty() || !model.is_empty()) {
            self.started = true;
            events.push(Event::Start { id: id.to_owned(), model: model.to_owned() });
        }
    }

    fn choice(&mut self, choice: &Value, events: &mut Vec<Event>) {
        let (first, second) = if self.whole { ("message", "delta") } else { ("delta", "message") };
        if let Some(message) = choice[first].as_object().or_else(|| choice[second].as_object()) {
            self.message(message, events);
        }
        other("logprobs", &choice["logprobs"], events);
        self.fail(fault::in_band(&choice["error"], true).filter(|_| !choice["error"].is_null()), events);
        match text(choice, "finish_reason") {
            "" | "null" => {}
            reason => match finish_fault(reason) {
                Some(fault) => self.fail(Some(fault), events),
                None => self.finish = Some(reason.to_owned()),
            },
        }
    }

    fn message(&mut self, message: &Map<String, Value>, events: &mut Vec<Event>) {
        self.reasoning(message, events);
        if let Some(extra) = message.get("extra_content").filter(|extra| extra.is_object()) {
            events.push(Event::Signature(seal::extra_content(extra, None)));
        }
        match message.get("content") {
            Some(Value::String(text)) if !text.is_empty() => events.push(Event::Text(text.clone())),
            Some(Value::Array(parts)) => parts.iter().for_each(|part| content_part(part, events)),
            _ => {}
        }
        match message.get("refusal") {
            Some(Value::String(refusal)) if !refusal.is_empty() => events.push(Event::Refusal(refusal.clone())),
            _ => {}
        }
        for name in ["annotations", "audio", "images"] {
            other(name, message.get(name).unwrap_or(&Value::Null), events);
        }
        if let Some(call) = message.get("function_call").filter(|call| call.is_object()) {
            self.tool(Some(u64::MAX), "", call, events);
        }
        let calls = message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (position, call) in calls.iter().enumerate() {
            let id = text(call, "id");
            if call["extra_content"].is_object() {
                events.push(Event::Signature(seal::extra_content(&call["extra_content"], Some(id))));
            }
            let place = if self.whole { Some(position as u64) } else { call["index"].as_u64() };
            self.tool(place, id, &call["function"], events);
        }
    }

    fn reasoning(&mut self, message: &Map<String, Value>, events: &mut Vec<Event>) {
        let member = ["reasoning_content", "reasoning"].iter().find_map(|name| message.get(*name)?.as_str());
        let member = member.filter(|text| !text.is_empty());
        let details = message.get("reasoning_details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let details: Vec<&Map<String, Value>> = details.iter().filter_map(Value::as_object).collect();
        let sealed = self.whole && details.iter().any(|item| seal::signature(item, false).is_some());
        if self.reasoning_from.is_none() {
            self.reasoning_from = match member {
                Some(_) if !sealed => Some(ReasoningFrom::Member),
                _ if details.iter().any(|item| !seal::text(item).is_empty()) => Some(ReasoningFrom::Details),
                _ => member.map(|_| ReasoningFrom::Member),
            };
        }
        if self.reasoning_from == Some(ReasoningFrom::Member) {
            events.extend(member.map(|text| Event::Reasoning(text.to_owned())));
        }
        for item in details {
            if seal::kind(item) == "reasoning.encrypted" {
                events.push(Event::Redacted(seal::redacted(item)));
                continue;
            }
            if self.reasoning_from == Some(ReasoningFrom::Details) && !seal::text(item).is_empty() {
                events.push(Event::Reasoning(seal::text(item).to_owned()));
            }
            events.extend(seal::signature(item, false).map(Event::Signature));
        }
    }

    /// One piece of a tool call. Vendors leave out the index, or give parallel calls the same one, or send the id again
    /// with every piece, or an empty one.
    fn tool(&mut self, place: Option<u64>, id: &str, function: &Value, events: &mut Vec<Event>) {
        let name = text(function, "name");
        let known = match place {
            Some(_) => self.tools.iter().rposition(|slot| slot.place == place),
            None => self.tools.len().checked_sub(1),
        };
        let another = |slot: &Slot| !id.is_empty() && !slot.id.is_empty() && slot.id != id && !name.is_empty();
        let without_index = |slot: &Slot| place.is_none() && id.is_empty() && slot.told && !name.is_empty();
        let position = match known.filter(|at| !another(&self.tools[*at]) && !without_index(&self.tools[*at])) {
            Some(position) => position,
            None => {
                self.tools.push(Slot { place, id: id.to_owned(), ..Slot::default() });
                self.tools.len() - 1
            }
        };
        let slot = &mut self.tools[position];
        if slot.id.is_empty() {
            id.clone_into(&mut slot.id);
        }
        let arguments = match &function["arguments"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        if !slot.told && name.is_empty() {
            slot.early.push_str(&arguments);
            return;
        }
        tell(slot, position, name, events);
        if !arguments.is_empty() {
            events.push(Event::ToolInput { index: index_of(position), json: arguments });
        }
    }

    fn usage(&mut self, stated: &Value, tier: &str, own: bool, events: &mut Vec<Event>) {
        if !stated.is_object() || (self.usage_is_own && !own) {
            return;
        }
        let Some(mut usage) = usage::read(stated) else { return };
        usage.served_as(tier);
        if self.usage.as_ref() != Some(&usage) {
            events.push(Event::Usage(usage.clone()));
            self.usage = Some(usage);
            self.usage_is_own = own;
        }
    }

    fn fail(&mut self, fault: Option<Fault>, events: &mut Vec<Event>) {
        if let Some(fault) = fault
            && !std::mem::replace(&mut self.failed, true)
        {
            events.push(Event::Fault(fault));
        }
    }

    /// The finish waits until here, since usage may come behind it and a vendor may state it twice.
    fn conclude(&mut self, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.concluded, true) {
            return;
        }
        for (position, slot) in self.tools.iter_mut().enumerate() {
            let named = !slot.id.is_empty() || !slot.early.is_empty();
            if named && !slot.told {
                tell(slot, position, "", events);
            }
        }
        let unstated = if self.tools.is_empty() { "stop" } else { "tool_calls" };
        match &self.finish {
            Some(reason) if self.done || self.whole => events.push(finished(reason)),
            None if self.done && !self.failed => events.push(finished(unstated)),
            // Without `[DONE]` nobody knows what is missing.
            _ => {}
        }
    }
}

fn tell(slot: &mut Slot, position: usize, name: &str, events: &mut Vec<Event>) {
    if std::mem::replace(&mut slot.told, true) {
        return;
    }
    let index = index_of(position);
    events.push(Event::Tool { index, id: slot.id.clone(), name: name.to_owned() });
    let json = std::mem::take(&mut slot.early);
    if !json.is_empty() {
        events.push(Event::ToolInput { index, json });
    }
}

/// A part of a content list.
fn content_part(part: &Value, events: &mut Vec<Event>) {
    match text(part, "type") {
        "text" | "output_text" => push_text(part, "text", Event::Text, events),
        "refusal" => push_text(part, "refusal", Event::Refusal, events),
        // Mistral: a list of text parts; others: a string.
        "thinking" => match &part["thinking"] {
            Value::Array(thoughts) => {
                thoughts.iter().for_each(|thought| push_text(thought, "text", Event::Reasoning, events));
            }
            _ => push_text(part, "thinking", Event::Reasoning, events),
        },
        "reasoning" => push_text(part, "text", Event::Reasoning, events),
        "" => {}
        kind => other(kind, part, events),
    }
}

fn push_text(part: &Value, member: &str, event: fn(String) -> Event, events: &mut Vec<Event>) {
    let text = text(part, member);
    if !text.is_empty() {
        events.push(event(text.to_owned()));
    }
}

/// An event for what has no event of its own; nothing for null and empty lists.
fn other(name: &str, value: &Value, events: &mut Vec<Event>) {
    let absent = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if !absent {
        events.push(Event::Other { name: name.to_owned(), json: value.to_string() });
    }
}

fn finished(reason: &str) -> Event {
    Event::Finish(Finish { reason: canonical_finish(reason).to_owned(), sequence: None })
}

/// The canonical word for a finish reason; what is not known stays as it is.
fn canonical_finish(reason: &str) -> &str {
    match reason {
        "stop" | "STOP" | "end_turn" | "eos" | "eos_token" | "stop_sequence" | "COMPLETE" | "completed" => "stop",
        "length" | "max_tokens" | "MAX_TOKENS" | "max_output_tokens" | "model_length" | "incomplete" => "length",
        "model_context_window_exceeded" => "length",
        "tool_calls" | "tool_use" | "function_call" | "TOOL_CALL" => "tool_calls",
        "content_filter" | "sensitive" | "SAFETY" | "safety" | "RECITATION" | "PROHIBITED_CONTENT" => "content_filter",
        "guardrail_intervened" => "content_filter",
        "pause_turn" => "pause",
        other => other,
    }
}

/// Finish reasons that say that the answer failed.
fn finish_fault(reason: &str) -> Option<Fault> {
    let class = match reason {
        "error" | "ERROR" | "failed" => FaultClass::VendorBug,
        "network_error" | "insufficient_system_resource" => FaultClass::Overloaded,
        _ => return None,
    };
    let message = format!("the vendor broke its answer off: {reason}");
    Some(Fault { code: Some(reason.to_owned()), ..Fault::new(class, message) })
}

fn unreadable(error: &serde_json::Error) -> Fault {
    Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}"))
}

fn text<'v>(object: &'v Value, member: &str) -> &'v str {
    object[member].as_str().unwrap_or_default()
}

fn index_of(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
