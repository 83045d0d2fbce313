// SPDX-License-Identifier: Apache-2.0
//! Whole answers, both ways.

use serde_json::{Map, Value, json};

use super::{NAME, PLAN, REST, fault, finish, logprobs, plan_of, sealed_plan, text, unreadable, usage};
use crate::codec::Envelope;
use crate::collect::{CITATION, OPAQUE};
use crate::ir::{Content, Event, Fault, Response};

/// Members of an answer that have an event of their own.
const KNOWN_MEMBERS: &[&str] = &["id", "finish_reason", "message", "usage", "logprobs"];

/// Reads a whole answer.
pub(super) fn decode(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))?;
    let Value::Object(message) = &answer["message"] else {
        return Err(fault::in_band(&answer).unwrap_or_else(|| unreadable("it has no `message`")));
    };
    let reason = text(&answer, "finish_reason");
    let Some(ending) = finish::from_wire(if reason.is_empty() { "COMPLETE" } else { reason }) else {
        return Err(fault::of_finish(reason, &answer["error"], text(&answer, "error_type")));
    };
    let mut events = vec![Event::Start { id: text(&answer, "id").to_owned(), model: String::new() }];
    plan_events(message.get("tool_plan").and_then(Value::as_str).unwrap_or_default(), &mut events);
    let uncited = content_events(message, &mut events);
    for (index, call) in (0..).zip(list(message.get("tool_calls"))) {
        let function = &call["function"];
        events.push(Event::Tool { index, id: text(call, "id").to_owned(), name: text(function, "name").to_owned() });
        let json = arguments(&function["arguments"]);
        events.extend(Some(json).filter(|json| !json.is_empty()).map(|json| Event::ToolInput { index, json }));
        events.push(Event::BlockEnd);
    }
    events.extend(uncited.into_iter().map(|cited| other(CITATION, cited)));
    let probabilities = logprobs::from_wire(list(answer.get("logprobs")));
    events.extend(probabilities.map(|json| other("logprobs", &json)));
    events.extend(rest(&answer));
    events.extend(usage::read(&answer["usage"]).map(Event::Usage));
    events.push(Event::Finish(ending));
    Ok(events)
}

/// The events of a whole tool plan.
fn plan_events(plan: &str, events: &mut Vec<Event>) {
    if !plan.is_empty() {
        events.push(plan_piece(plan));
        events.push(Event::Redacted(sealed_plan(plan)));
        events.push(Event::BlockEnd);
    }
}

/// The parts of a message, each text with the citations of it. A citation of what is no text stands with the first text.
/// Returns the citations if there is no text at all.
fn content_events<'m>(message: &'m Map<String, Value>, events: &mut Vec<Event>) -> Vec<&'m Value> {
    let parts = list(message.get("content"));
    let is_text = |place: &usize| parts.get(*place).is_some_and(|part| part["type"] == "text");
    let first = (0..parts.len()).find(is_text);
    let place_of = |cited: &Value| {
        let stated = cited["content_index"].as_u64().and_then(|place| usize::try_from(place).ok());
        stated.filter(is_text).or(first)
    };
    let citations = list(message.get("citations"));
    for (place, part) in parts.iter().enumerate() {
        part_events(part, events);
        let own = citations.iter().filter(|cited| is_text(&place) && place_of(cited) == Some(place));
        events.extend(own.map(|cited| other(CITATION, cited)));
        events.push(Event::BlockEnd);
    }
    if let Some(text) = message.get("content").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        events.push(Event::Text(text.to_owned()));
        events.extend(citations.iter().map(|cited| other(CITATION, cited)));
        events.push(Event::BlockEnd);
        return Vec::new();
    }
    citations.iter().filter(|_| first.is_none()).collect()
}

/// The events of one part, without its end.
pub(super) fn part_events(part: &Value, events: &mut Vec<Event>) {
    let said = |member: &str| Some(text(part, member).to_owned()).filter(|text| !text.is_empty());
    match text(part, "type") {
        "text" => events.extend(said("text").map(Event::Text)),
        "thinking" => {
            events.extend(said("thinking").map(Event::Reasoning));
            events.extend(said("signature").map(Event::Signature));
            events.extend(said("redacted").map(Event::Redacted));
        }
        _ => events.push(other(OPAQUE, &json!({ "dialect": NAME, "json": part }))),
    }
}

/// The event of a piece of a tool plan.
pub(super) fn plan_piece(text: &str) -> Event {
    other(PLAN, &Value::from(text))
}

pub(super) fn other(name: &str, json: &Value) -> Event {
    Event::Other { name: name.to_owned(), json: json.to_string() }
}

/// Arguments of a call as text.
pub(super) fn arguments(stated: &Value) -> String {
    match stated {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn rest(answer: &Value) -> Option<Event> {
    let known = |name: &str, value: &Value| KNOWN_MEMBERS.contains(&name) || value.is_null();
    let members = answer.as_object()?.iter().filter(|(name, value)| !known(name, value));
    let members: Map<String, Value> = members.map(|(name, value)| (name.clone(), value.clone())).collect();
    (!members.is_empty()).then(|| other(REST, &Value::Object(members)))
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Writes a whole answer.
pub(super) fn encode(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let mut answer = Map::new();
    answer.insert("id".to_owned(), json!(answer_id(&response.id, envelope)));
    answer.insert("message".to_owned(), message(response, envelope));
    let reason = finish::to_wire(response.finish.as_ref(), finish::calls(response));
    answer.insert("finish_reason".to_owned(), json!(reason));
    if let Some(usage) = &response.usage {
        answer.insert("usage".to_owned(), usage::write(usage));
    }
    for (name, json) in &response.other {
        match (name.as_str(), serde_json::from_str::<Value>(json)) {
            ("logprobs", Ok(stated)) => {
                let items = answer.entry("logprobs").or_insert_with(|| json!([]));
                items.as_array_mut().into_iter().for_each(|items| items.extend(logprobs::to_wire(&stated)));
            }
            (REST, Ok(Value::Object(members))) => answer.extend(members),
            _ => {}
        }
    }
    Value::Object(answer).to_string().into_bytes()
}

fn message(response: &Response, envelope: &Envelope) -> Value {
    let (mut content, mut calls, mut cited, mut plan) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    for block in &response.blocks {
        match &block.content {
            Content::Text { text, citations } => {
                cited.extend(citations.iter().filter(|citation| is_citation(citation)).cloned());
                content.extend(Some(json!({ "type": "text", "text": text })).filter(|_| !text.is_empty()));
            }
            Content::Refusal { text } => content.push(json!({ "type": "text", "text": text })),
            Content::Reasoning { text, signature } => content.push(thinking(text, signature.as_deref())),
            Content::Redacted { data } => match plan_of(data) {
                Some(text) => plan.push_str(&text),
                None => content.push(redacted(data)),
            },
            Content::ToolUse { id, name, input } => {
                let input = if input.is_empty() { "{}" } else { input };
                let id = call_id(id, calls.len(), envelope);
                calls.push(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": input } }));
            }
            Content::Opaque { dialect, json } if dialect == NAME => content.push(json.clone()),
            Content::Media { .. } | Content::ToolResult { .. } | Content::Opaque { .. } => {}
        }
    }
    let mut message = json!({ "role": "assistant" });
    if !plan.is_empty() {
        message["tool_plan"] = json!(plan);
    }
    // An answer that says nothing has an empty text: callers read the first part without looking whether there is one.
    if content.is_empty() && calls.is_empty() {
        content.push(json!({ "type": "text", "text": "" }));
    }
    for (name, list) in [("content", content), ("tool_calls", calls), ("citations", cited)] {
        if !list.is_empty() {
            message[name] = Value::from(list);
        }
    }
    message
}

/// A thought, with the seal of another vendor if it has one.
pub(super) fn thinking(text: &str, seal: Option<&str>) -> Value {
    match seal {
        Some(seal) => json!({ "type": "thinking", "thinking": text, "signature": seal }),
        None => json!({ "type": "thinking", "thinking": text }),
    }
}

/// A thought that only its vendor can read.
pub(super) fn redacted(data: &str) -> Value {
    json!({ "type": "thinking", "thinking": "", "redacted": data })
}

/// Whether a citation is one of this dialect; those of others would not be understood.
pub(super) fn is_citation(citation: &Value) -> bool {
    citation["sources"].is_array() || (citation["start"].is_number() && citation["end"].is_number())
}

/// The vendor's id of the answer, or the host's of the request.
pub(super) fn answer_id(id: &str, envelope: &Envelope) -> String {
    if id.is_empty() { envelope.request_id.clone() } else { id.to_owned() }
}

/// Callers send the id of a call back with its result, so it cannot be empty.
pub(super) fn call_id(id: &str, index: usize, envelope: &Envelope) -> String {
    if id.is_empty() { format!("call_{}_{index}", envelope.request_id) } else { id.to_owned() }
}
