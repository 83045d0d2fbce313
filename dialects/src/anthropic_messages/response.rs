// SPDX-License-Identifier: Apache-2.0
//! Whole answers, both ways.

use serde_json::{Map, Value, json};

use super::{ENVELOPE, NAME, fault, stop, usage, write_blocks};
use crate::codec::Envelope;
use crate::collect::{CITATION, OPAQUE};
use crate::ir::{Content, Event, Fault, FaultClass, Finish, Members, Response, Usage};

/// Members of an answer that have a canonical place, or that say what kind of JSON this is.
const KNOWN_MEMBERS: &[&str] =
    &["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage", "base_resp"];

/// Reads a whole answer to a chat request, or the one to a count-tokens request.
pub(super) fn decode(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let nonsense =
        |what: &str| Fault::new(FaultClass::VendorBug, format!("the vendor's answer cannot be read: {what}"));
    let answer: Value = serde_json::from_slice(body).map_err(|error| nonsense(&error.to_string()))?;
    if let Some(fault) = fault::stated(&answer, None) {
        return Err(fault);
    }
    let Value::Object(answer) = answer else { return Err(nonsense("it is not a JSON object")) };
    let Some(content) = answer.get("content") else {
        return decode_count(&answer).ok_or_else(|| nonsense("it has no `content`"));
    };
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut events = vec![Event::Start { id: text("id"), model: text("model") }];
    let stated = answer.get("usage").and_then(Value::as_object);
    events.extend(stated.map(|stated| Event::Usage(usage::from_wire(stated))));
    let mut tool_count = 0;
    match content {
        Value::Array(blocks) => blocks.iter().for_each(|block| block_events(block, &mut tool_count, &mut events)),
        Value::String(text) => events.push(Event::Text(text.clone())),
        Value::Null => {}
        _ => return Err(nonsense("`content` is not a list")),
    }
    events.extend(envelope_event(&answer));
    let sequence = answer.get("stop_sequence").and_then(Value::as_str).map(str::to_owned);
    let reason = answer.get("stop_reason").and_then(Value::as_str).unwrap_or("end_turn");
    events.push(Event::Finish(stop::from_wire(reason, sequence)));
    Ok(events)
}

/// The event that keeps what only this dialect knows of an answer's envelope; none if there is nothing.
pub(super) fn envelope_event(members: &Map<String, Value>) -> Option<Event> {
    let rest: Members = members
        .iter()
        .filter(|(name, value)| !KNOWN_MEMBERS.contains(&name.as_str()) && !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if rest.is_empty() {
        return None;
    }
    Some(Event::Other { name: ENVELOPE.to_owned(), json: json!(rest).to_string() })
}

/// The event that keeps a block which only this dialect knows.
pub(super) fn opaque_event(block: &Value) -> Event {
    Event::Other { name: OPAQUE.to_owned(), json: json!({"dialect": NAME, "json": block}).to_string() }
}

/// Writes a whole answer.
pub(super) fn encode(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let mut tool_count = 0_u32;
    let mut content = Vec::with_capacity(response.blocks.len());
    for block in &response.blocks {
        content.extend(wire_block(&block.content, &mut tool_count, envelope));
    }
    let refused = response.blocks.iter().any(|block| matches!(block.content, Content::Refusal { .. }));
    let finish = response.finish.as_ref();
    let mut answer = Map::new();
    for (_, json) in response.other.iter().filter(|(name, _)| name == ENVELOPE) {
        if let Ok(Value::Object(members)) = serde_json::from_str(json) {
            answer.extend(members);
        }
    }
    let usage = response.usage.as_ref().map_or_else(|| usage::to_wire(&Usage::default()), usage::to_wire);
    let model = if envelope.model.is_empty() { &response.model } else { &envelope.model };
    answer.extend([
        ("id".to_owned(), json!(message_id(&response.id, envelope))),
        ("type".to_owned(), json!("message")),
        ("role".to_owned(), json!("assistant")),
        ("model".to_owned(), json!(model)),
        ("content".to_owned(), Value::Array(content)),
        ("stop_reason".to_owned(), json!(stop::to_wire(finish, tool_count > 0, refused))),
        ("stop_sequence".to_owned(), json!(finish.and_then(|finish: &Finish| finish.sequence.as_deref()))),
        ("usage".to_owned(), Value::Object(usage)),
    ]);
    Value::Object(answer).to_string().into_bytes()
}

/// The vendor's id of the answer, or one made of the host's.
pub(super) fn message_id(id: &str, envelope: &Envelope) -> String {
    if id.is_empty() { format!("msg_{}", envelope.request_id) } else { id.to_owned() }
}

/// The vendor's id of a tool call, or one made of the host's id of the request: callers need one to answer to.
pub(super) fn tool_id(id: &str, index: u32, envelope: &Envelope) -> String {
    if id.is_empty() { format!("toolu_{}_{index}", envelope.request_id) } else { id.to_owned() }
}

/// Whether a citation is one of this dialect; those of others would not be understood.
pub(super) fn is_citation(citation: &Value) -> bool {
    citation["type"].as_str().is_some_and(|kind| kind.ends_with("_location"))
}

fn wire_block(content: &Content, tool_count: &mut u32, envelope: &Envelope) -> Option<Value> {
    Some(match content {
        Content::Text { text, citations } => {
            let citations: Vec<&Value> = citations.iter().filter(|citation| is_citation(citation)).collect();
            match (text.is_empty(), citations.is_empty()) {
                (true, true) => return None,
                (_, true) => json!({"type": "text", "text": text}),
                _ => json!({"type": "text", "text": text, "citations": citations}),
            }
        }
        Content::Refusal { text } => json!({"type": "text", "text": text}),
        // The SDKs demand a signature; one that is empty says that there is none.
        Content::Reasoning { text, signature } => {
            json!({"type": "thinking", "thinking": text, "signature": signature.as_deref().unwrap_or_default()})
        }
        Content::Redacted { data } => json!({"type": "redacted_thinking", "data": data}),
        Content::ToolUse { id, name, input } => {
            let id = tool_id(id, *tool_count, envelope);
            *tool_count += 1;
            json!({"type": "tool_use", "id": id, "name": name, "input": write_blocks::input_object(input)})
        }
        Content::Opaque { dialect, json } if dialect == NAME => json.clone(),
        Content::Opaque { .. } | Content::Media { .. } | Content::ToolResult { .. } => return None,
    })
}

fn block_events(block: &Value, tool_count: &mut u32, events: &mut Vec<Event>) {
    let text = |name: &str| block[name].as_str().unwrap_or_default().to_owned();
    match block["type"].as_str().unwrap_or_default() {
        "text" => {
            events.extend(Some(text("text")).filter(|text| !text.is_empty()).map(Event::Text));
            let citations = block["citations"].as_array().into_iter().flatten();
            events.extend(citations.map(|cited| Event::Other { name: CITATION.into(), json: cited.to_string() }));
        }
        "thinking" => {
            events.extend(Some(text("thinking")).filter(|text| !text.is_empty()).map(Event::Reasoning));
            events.extend(Some(text("signature")).filter(|seal| !seal.is_empty()).map(Event::Signature));
        }
        "redacted_thinking" => events.push(Event::Redacted(text("data"))),
        "tool_use" => {
            let index = *tool_count;
            *tool_count += 1;
            events.push(Event::Tool { index, id: text("id"), name: text("name") });
            let json = super::read_blocks::input_text(block.get("input"));
            events.push(Event::ToolInput { index, json });
        }
        _ => events.push(opaque_event(block)),
    }
    events.push(Event::BlockEnd);
}

/// `{"input_tokens": 14}`
fn decode_count(answer: &Map<String, Value>) -> Option<Vec<Event>> {
    answer.get("input_tokens").and_then(Value::as_u64)?;
    Some(vec![Event::Usage(usage::from_wire(answer)), Event::Finish(stop::from_wire("end_turn", None))])
}
