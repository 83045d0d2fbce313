// SPDX-License-Identifier: Apache-2.0
//! Writes an answer as OpenAI's SDKs read it: `chat.completion`, and `chat.completion.chunk` with its terminator.
//! (platform.openai.com/docs/api-reference/chat.) Reasoning stands in `reasoning_content`, as DeepSeek named it; its
//! seals in `reasoning_details` (see [`super::seal`]).

use serde_json::{Map, Value, json};

use super::{fault, seal, usage};
use crate::codec::{Envelope, StreamEncoder};
use crate::ir::{Content, Event, Fault, Response, Usage};

/// Other events that have a place in a message.
const MESSAGE_MEMBERS: &[&str] = &["annotations", "audio", "images"];

/// Writes a whole answer.
pub(super) fn whole(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let reason = response.finish.as_ref().map_or("stop", |finish| finish_reason(&finish.reason));
    let mut choice = json!({ "index": 0, "message": message(response, envelope), "finish_reason": reason });
    choice["logprobs"] = other(response, "logprobs").unwrap_or(Value::Null);
    let mut object = json!({
        "id": answer_id(&response.id, envelope),
        "object": "chat.completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": [choice],
    });
    if let Some(usage) = &response.usage {
        object["usage"] = usage::write(usage);
    }
    for name in ["citations", "search_results"] {
        if let Some(value) = other(response, name) {
            object[name] = value;
        }
    }
    object.to_string().into_bytes()
}

fn message(response: &Response, envelope: &Envelope) -> Value {
    let (mut text, mut reasoning, mut refusal) = (String::new(), String::new(), String::new());
    let (mut details, mut calls, mut sealed) = (Vec::new(), Vec::new(), false);
    let mut extra = Vec::new();
    for block in &response.blocks {
        match &block.content {
            Content::Text { text: more, .. } => text.push_str(more),
            Content::Refusal { text: more } => refusal.push_str(more),
            Content::Reasoning { text: more, signature } => {
                reasoning.push_str(more);
                extra.extend(signature.as_deref().and_then(seal::as_extra_content));
                let item = seal::text_item(more, signature.as_deref(), details.len());
                sealed |= item.is_some() && signature.is_some();
                details.extend(item);
            }
            Content::Redacted { data } => {
                details.push(seal::redacted_item(data, details.len()));
                sealed = true;
            }
            Content::ToolUse { id, name, input } => {
                let id = call_id(id, calls.len(), envelope);
                let input = if input.is_empty() { "{}" } else { input };
                calls.push(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": input } }));
            }
            Content::Media { .. } | Content::ToolResult { .. } | Content::Opaque { .. } => {}
        }
    }
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { Value::from(text) };
    let refusal = if refusal.is_empty() { Value::Null } else { Value::from(refusal) };
    let mut message = json!({ "role": "assistant", "content": content, "refusal": refusal });
    if !reasoning.is_empty() {
        message["reasoning_content"] = Value::from(reasoning);
    }
    if sealed {
        message["reasoning_details"] = Value::from(details);
    }
    place_extra_content(extra, &mut message, &mut calls);
    if !calls.is_empty() {
        message["tool_calls"] = Value::from(calls);
    }
    for name in MESSAGE_MEMBERS {
        if let Some(value) = other(response, name) {
            message[*name] = value;
        }
    }
    message
}

/// Puts every `extra_content` back to the message or the tool call that it came with.
pub(super) fn place_extra_content(extra: Vec<(Value, Option<String>)>, message: &mut Value, calls: &mut [Value]) {
    for (content, tool) in extra {
        match tool.and_then(|tool| calls.iter_mut().find(|call| call["id"] == *tool)) {
            Some(call) => call["extra_content"] = content,
            None => message["extra_content"] = content,
        }
    }
}

fn other(response: &Response, name: &str) -> Option<Value> {
    let (_, json) = response.other.iter().find(|(other, _)| other == name)?;
    serde_json::from_str(json).ok()
}

fn answer_id(id: &str, envelope: &Envelope) -> String {
    if id.is_empty() { format!("chatcmpl-{}", envelope.request_id) } else { id.to_owned() }
}

/// SDKs send the id of a call back with its result, so it cannot be empty.
fn call_id(id: &str, index: usize, envelope: &Envelope) -> String {
    if id.is_empty() { format!("call_{}_{index}", envelope.request_id) } else { id.to_owned() }
}

fn finish_reason(reason: &str) -> &'static str {
    match reason {
        "length" => "length",
        "tool_calls" => "tool_calls",
        "content_filter" | "refusal" => "content_filter",
        _ => "stop",
    }
}

/// A streamed answer that is being written.
#[derive(Debug)]
pub(super) struct Chunks {
    envelope: Envelope,
    /// The chunk up to its delta; empty until the answer begins.
    head: String,
    usage: Option<Usage>,
    /// Text of the reasoning block that is open: its seal repeats it.
    reasoning: String,
    details: usize,
    /// `extra_content` of tool calls that have not begun.
    extra: Vec<(Value, String)>,
}

impl Chunks {
    pub(super) fn new(envelope: &Envelope) -> Self {
        Self {
            envelope: envelope.clone(),
            head: String::new(),
            usage: None,
            reasoning: String::new(),
            details: 0,
            extra: Vec::new(),
        }
    }

    fn begin(&mut self, id: &str, out: &mut Vec<u8>) {
        if !self.head.is_empty() {
            return;
        }
        let head = json!({
            "id": answer_id(id, &self.envelope),
            "object": "chat.completion.chunk",
            "created": self.envelope.created,
            "model": self.envelope.model,
        });
        head.to_string().trim_end_matches('}').clone_into(&mut self.head);
        self.delta(&json!({ "role": "assistant", "content": "" }), out);
    }

    fn delta(&self, delta: &Value, out: &mut Vec<u8>) {
        self.chunk(&json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }]), None, out);
    }

    /// A delta with one string: nearly every chunk of a stream, so it is written without building a tree.
    fn text(&self, member: &str, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        self.open(out);
        out.extend_from_slice(b"[{\"index\":0,\"delta\":{\"");
        out.extend_from_slice(member.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(Value::from(text).to_string().as_bytes());
        out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":null}]");
        self.close(None, out);
    }

    fn chunk(&self, choices: &Value, usage: Option<&Value>, out: &mut Vec<u8>) {
        self.open(out);
        out.extend_from_slice(choices.to_string().as_bytes());
        self.close(usage, out);
    }

    fn open(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(b",\"choices\":");
    }

    fn close(&self, usage: Option<&Value>, out: &mut Vec<u8>) {
        match usage {
            Some(usage) => out.extend_from_slice(format!(",\"usage\":{usage}").as_bytes()),
            // Where usage is asked for, OpenAI's other chunks say that they have none.
            None if self.envelope.stream_usage => out.extend_from_slice(b",\"usage\":null"),
            None => {}
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn detail(&mut self, item: &Value, out: &mut Vec<u8>) {
        self.details += 1;
        self.delta(&json!({ "reasoning_details": [item] }), out);
    }

    fn signature(&mut self, signature: &str, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.reasoning);
        if let Some(item) = seal::text_item(&text, Some(signature), self.details) {
            self.detail(&item, out);
            return;
        }
        match seal::as_extra_content(signature) {
            Some((content, Some(tool))) => self.extra.push((content, tool)),
            Some((content, None)) => self.delta(&json!({ "extra_content": content }), out),
            None => {}
        }
    }

    fn tool(&mut self, index: u32, id: &str, name: &str, out: &mut Vec<u8>) {
        let function = json!({ "name": name, "arguments": "" });
        let id = call_id(id, index as usize, &self.envelope);
        let mut call = json!({ "index": index, "id": id, "type": "function", "function": function });
        if let Some(position) = self.extra.iter().position(|(_, tool)| *tool == id) {
            call["extra_content"] = self.extra.swap_remove(position).0;
        }
        self.delta(&json!({ "tool_calls": [call] }), out);
    }

    fn other(&self, name: &str, json: &str, out: &mut Vec<u8>) {
        let Ok(value) = serde_json::from_str::<Value>(json) else { return };
        if name == "logprobs" {
            let choice = json!([{ "index": 0, "delta": {}, "logprobs": value, "finish_reason": null }]);
            self.chunk(&choice, None, out);
        } else if MESSAGE_MEMBERS.contains(&name) {
            self.delta(&json!({ name: value }), out);
        }
    }
}

impl StreamEncoder for Chunks {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, .. } => self.begin(id, out),
            Event::Usage(usage) => return self.usage = Some(usage.clone()),
            Event::Fault(fault) => return self.fault(fault, out),
            _ => self.begin("", out),
        }
        match event {
            Event::Text(text) => {
                self.reasoning.clear();
                self.text("content", text, out);
            }
            Event::Refusal(text) => self.text("refusal", text, out),
            Event::Reasoning(text) => {
                self.reasoning.push_str(text);
                self.text("reasoning_content", text, out);
            }
            Event::Signature(signature) => self.signature(signature, out),
            Event::Redacted(data) => self.detail(&seal::redacted_item(data, self.details), out),
            Event::BlockEnd => self.reasoning.clear(),
            Event::Tool { index, id, name } => self.tool(*index, id, name, out),
            Event::ToolInput { index, json } if !json.is_empty() => {
                let call = json!({ "index": index, "function": { "arguments": json } });
                self.delta(&json!({ "tool_calls": [call] }), out);
            }
            Event::Finish(finish) => {
                let reason = finish_reason(&finish.reason);
                let choice = json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": reason }]);
                self.chunk(&choice, None, out);
            }
            Event::Other { name, json } => self.other(name, json, out),
            Event::Start { .. } | Event::Usage(_) | Event::Fault(_) | Event::ToolInput { .. } => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.envelope.stream_usage
            && let Some(usage) = self.usage.take()
        {
            self.begin("", out);
            self.chunk(&Value::Array(Vec::new()), Some(&usage::write(&usage)), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        // OpenAI's SDKs raise a chunk that has the member `error`.
        out.extend_from_slice(format!("data: {}\n\n", fault::encode(fault)).as_bytes());
    }
}

/// Writes the list of models.
pub(super) fn models(entries: impl Iterator<Item = (String, String)>) -> Vec<u8> {
    let model = |(id, owner)| json!({ "id": id, "object": "model", "created": 0, "owned_by": owner });
    let mut list = Map::new();
    list.insert("object".to_owned(), Value::from("list"));
    list.insert("data".to_owned(), entries.map(model).collect());
    Value::Object(list).to_string().into_bytes()
}
