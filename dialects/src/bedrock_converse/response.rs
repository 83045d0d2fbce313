// SPDX-License-Identifier: Apache-2.0
//! Whole answers, both ways.

use serde_json::{Map, Value, json};

use super::{ENVELOPE, NAME, SERVER_TOOL, blob, citation, fault, stop, usage};
use crate::anthropic_messages::{input_object, input_text};
use crate::codec::Envelope;
use crate::collect::{CITATION, OPAQUE};
use crate::ir::{Content, Event, Fault, FaultClass, Finish, Members, Response, Usage};

/// Members of an answer that have a canonical place.
const KNOWN_MEMBERS: &[&str] = &["output", "stopReason", "usage", "p"];

/// Reads a whole answer to a chat request, or the one to a count.
pub(super) fn decode(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let nonsense =
        |what: &str| Fault::new(FaultClass::VendorBug, format!("the vendor's answer cannot be read: {what}"));
    let answer: Value = serde_json::from_slice(body).map_err(|error| nonsense(&error.to_string()))?;
    let Value::Object(answer) = answer else { return Err(nonsense("it is not a JSON object")) };
    let Some(output) = answer.get("output") else {
        return decode_count(&answer)
            .or_else(|| fault::stated(&answer).map(Err))
            .unwrap_or_else(|| Err(nonsense("it has no `output`")));
    };
    let mut events = vec![Event::Start { id: String::new(), model: routed_model(&answer) }];
    events.extend(answer.get("usage").and_then(Value::as_object).map(|stated| Event::Usage(usage::from_wire(stated))));
    let mut tool_count = 0;
    for block in output["message"]["content"].as_array().into_iter().flatten() {
        block_events(block, &mut tool_count, &mut events);
    }
    events.extend(envelope_event(&answer));
    let reason = answer.get("stopReason").and_then(Value::as_str).unwrap_or("end_turn");
    events.push(Event::Finish(stop::from_wire(reason, stop_sequence(&answer))));
    Ok(events)
}

/// The stop sequence that was met, where the caller has asked for it (`/stop_sequence`).
pub(super) fn stop_sequence(members: &Map<String, Value>) -> Option<String> {
    members.get("additionalModelResponseFields")?["stop_sequence"].as_str().map(str::to_owned)
}

/// The model that a prompt router has chosen; "" without one.
pub(super) fn routed_model(members: &Map<String, Value>) -> String {
    let invoked = members.get("trace").and_then(|trace| trace["promptRouter"]["invokedModelId"].as_str());
    invoked.unwrap_or_default().to_owned()
}

/// The event that keeps what only this dialect knows of an answer; none if there is nothing.
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

/// The event before a call of a tool that the vendor runs itself.
pub(super) fn server_tool_event(kind: &Value) -> Option<Event> {
    kind.as_str().map(|_| Event::Other { name: SERVER_TOOL.to_owned(), json: kind.to_string() })
}

/// Writes a whole answer.
pub(super) fn encode(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let (mut tool_count, mut client_tools) = (0_u32, false);
    let mut server_tools = response.other.iter().filter(|(name, _)| name == SERVER_TOOL).count();
    let mut content = Vec::with_capacity(response.blocks.len());
    for block in &response.blocks {
        let mut wire = wire_block(&block.content, tool_count, envelope);
        if matches!(block.content, Content::ToolUse { .. }) {
            tool_count += 1;
            // Folded answers do not tell which of several calls the vendor has run; those it runs come first.
            if server_tools > 0 {
                server_tools -= 1;
                if let Some(wire) = &mut wire {
                    wire["toolUse"]["type"] = json!("server_tool_use");
                }
            } else {
                client_tools = true;
            }
        }
        content.extend(wire);
    }
    let refused = response.blocks.iter().any(|block| matches!(block.content, Content::Refusal { .. }));
    let finish = response.finish.as_ref();
    let usage = response.usage.as_ref().map_or_else(|| usage::to_wire(&Usage::default()), usage::to_wire);
    let mut answer = Map::new();
    answer.insert("output".to_owned(), json!({"message": {"role": "assistant", "content": content}}));
    answer.insert("stopReason".to_owned(), json!(stop::to_wire(finish, client_tools, refused)));
    answer.insert("usage".to_owned(), Value::Object(usage));
    answer.extend(envelope_members(&response.other, finish));
    Value::Object(answer).to_string().into_bytes()
}

/// What stands beside the answer: the API promises `metrics`.
fn envelope_members(other: &[(String, String)], finish: Option<&Finish>) -> Map<String, Value> {
    let mut members = Map::from_iter([("metrics".to_owned(), json!({"latencyMs": 0}))]);
    members.extend(stop_fields(finish));
    for (_, json) in other.iter().filter(|(name, _)| name == ENVELOPE) {
        if let Ok(Value::Object(stated)) = serde_json::from_str(json) {
            members.extend(stated);
        }
    }
    members
}

/// `additionalModelResponseFields` that tell the stop sequence.
pub(super) fn stop_fields(finish: Option<&Finish>) -> Option<(String, Value)> {
    let sequence = finish?.sequence.as_deref()?;
    Some(("additionalModelResponseFields".to_owned(), json!({"stop_sequence": sequence})))
}

/// The vendor's id of a tool call, or one made of the host's id of the request: callers need one to answer to.
pub(super) fn tool_id(id: &str, index: u32, envelope: &Envelope) -> String {
    if id.is_empty() { format!("tooluse_{}_{index}", envelope.request_id) } else { id.to_owned() }
}

fn wire_block(content: &Content, tool_count: u32, envelope: &Envelope) -> Option<Value> {
    Some(match content {
        Content::Text { text, citations } => {
            let wire: Vec<Value> = citations.iter().filter_map(citation::to_wire).collect();
            let parts = if text.is_empty() { Vec::new() } else { vec![json!({"text": text})] };
            match (text.is_empty(), wire.is_empty()) {
                (true, true) => return None,
                (_, true) => json!({"text": text}),
                _ => json!({"citationsContent": {"content": parts, "citations": wire}}),
            }
        }
        Content::Refusal { text } => json!({"text": text}),
        Content::Reasoning { text, signature } => match signature {
            Some(seal) => json!({"reasoningContent": {"reasoningText": {"text": text, "signature": seal}}}),
            None => json!({"reasoningContent": {"reasoningText": {"text": text}}}),
        },
        Content::Redacted { data } => json!({"reasoningContent": {"redactedContent": blob::wrap(data)}}),
        Content::ToolUse { id, name, input } => {
            let id = tool_id(id, tool_count, envelope);
            json!({"toolUse": {"toolUseId": id, "name": name, "input": input_object(input)}})
        }
        Content::Opaque { dialect, json } if dialect == NAME => json.clone(),
        Content::Opaque { .. } | Content::Media { .. } | Content::ToolResult { .. } => return None,
    })
}

fn block_events(block: &Value, tool_count: &mut u32, events: &mut Vec<Event>) {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(more) = block.get("text") {
        events.extend(text(more).map(Event::Text));
    } else if let Some(call) = block.get("toolUse") {
        let (index, name) = (*tool_count, text(&call["name"]).unwrap_or_default());
        *tool_count += 1;
        events.extend(server_tool_event(&call["type"]));
        events.push(Event::Tool { index, id: text(&call["toolUseId"]).unwrap_or_default(), name });
        events.push(Event::ToolInput { index, json: input_text(call.get("input")) });
    } else if let Some(thought) = block.get("reasoningContent").filter(|thought| is_known_thought(thought)) {
        events.extend(text(&thought["reasoningText"]["text"]).map(Event::Reasoning));
        events.extend(text(&thought["reasoningText"]["signature"]).map(Event::Signature));
        events.extend(text(&thought["redactedContent"]).map(|data| Event::Redacted(blob::unwrap(&data))));
    } else if let Some(cited) = block.get("citationsContent") {
        let parts = cited["content"].as_array().into_iter().flatten();
        events.extend(parts.filter_map(|part| text(&part["text"])).map(Event::Text));
        let citations = cited["citations"].as_array().into_iter().flatten();
        events.extend(citations.map(|cited| Event::Other { name: CITATION.into(), json: cited.to_string() }));
    } else {
        events.push(opaque_event(block));
    }
    events.push(Event::BlockEnd);
}

fn is_known_thought(thought: &Value) -> bool {
    thought.get("reasoningText").is_some() || thought.get("redactedContent").is_some()
}

/// `{"inputTokens": 14}`
fn decode_count(answer: &Map<String, Value>) -> Option<Result<Vec<Event>, Fault>> {
    answer.get("inputTokens").and_then(Value::as_u64)?;
    Some(Ok(vec![Event::Usage(usage::from_wire(answer)), Event::Finish(stop::from_wire("end_turn", None))]))
}
