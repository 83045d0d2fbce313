// SPDX-License-Identifier: Apache-2.0
//! The conversation of a canonical request as this dialect has it: instructions on top, user and assistant in turn, the
//! results of tools at the head of the turn after the calls.

use serde_json::{Map, Value, json};

use super::NAME;
use super::ids::Ids;
use super::write::is_blank;
use crate::ir::{Block, Content, Message, Request, Role, Source};

/// What stands where a conversation begins with the model: the API wants the user to begin.
const OPENING: &str = "(The conversation begins.)";

/// Writes blocks; keeps the ids of tool calls and the paths of what was dropped.
#[derive(Default)]
pub(super) struct Blocks {
    ids: Ids,
    pub(super) dropped: Vec<String>,
}

impl Blocks {
    /// The instructions that stand before the conversation.
    pub(super) fn system(&mut self, request: &Request) -> Vec<Value> {
        self.blocks(&request.system, "system")
    }

    /// The conversation. Instructions within it go to the end of `system`.
    pub(super) fn messages(&mut self, request: &Request, system: &mut Vec<Value>) -> Vec<Value> {
        let mut turns: Vec<(Role, Vec<Value>)> = Vec::new();
        for (index, message) in request.messages.iter().enumerate() {
            let path = format!("messages[{index}]");
            if message.name.is_some() {
                self.dropped.push(format!("{path}.name"));
            }
            let blocks = self.message(message, &path);
            if message.role == Role::System {
                // Above the conversation they stand before what they followed: that is worth telling.
                if !turns.is_empty() {
                    self.dropped.push(format!("{path}.role"));
                }
                system.extend(blocks);
                continue;
            }
            match turns.last_mut() {
                _ if blocks.is_empty() => {}
                Some((role, turn)) if *role == message.role => turn.extend(blocks),
                _ => turns.push((message.role, blocks)),
            }
        }
        if turns.first().is_none_or(|(role, _)| *role != Role::User) {
            turns.insert(0, (Role::User, vec![json!({"type": "text", "text": OPENING})]));
        }
        trim_end(&mut turns);
        turns.into_iter().map(|(role, blocks)| turn(role, blocks)).collect()
    }

    fn message(&mut self, message: &Message, path: &str) -> Vec<Value> {
        let blocks = self.blocks(&message.blocks, &format!("{path}.blocks"));
        if message.role == Role::Assistant { thoughts_before_calls(blocks) } else { blocks }
    }

    fn blocks(&mut self, blocks: &[Block], path: &str) -> Vec<Value> {
        let mut written = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.iter().enumerate() {
            if is_blank(&block.content) {
                continue;
            }
            match self.block(block, &format!("{path}[{index}]")) {
                Some(wire) => written.push(wire),
                None => self.dropped.push(format!("{path}[{index}]")),
            }
        }
        written
    }

    /// None if this dialect has no place for the block.
    fn block(&mut self, block: &Block, path: &str) -> Option<Value> {
        let wire = match &block.content {
            Content::Text { text, citations } => {
                let citations: Vec<&Value> =
                    citations.iter().filter(|cited| super::response::is_citation(cited)).collect();
                match citations.is_empty() {
                    true => json!({"type": "text", "text": text}),
                    false => json!({"type": "text", "text": text, "citations": citations}),
                }
            }
            Content::Refusal { text } => json!({"type": "text", "text": text}),
            Content::Media { kind, source, title, detail } => {
                if detail.as_deref().is_some_and(|detail| detail != "auto") {
                    self.dropped.push(format!("{path}.detail"));
                }
                media(kind, source, title.as_deref())?
            }
            Content::ToolUse { id, name, input } => {
                json!({"type": "tool_use", "id": self.ids.call(id), "name": name, "input": input_object(input)})
            }
            Content::ToolResult { id, blocks, is_error } => {
                let id = self.ids.result(id).into_owned();
                self.tool_result(&id, blocks, *is_error, path)
            }
            // Only the vendor's own thoughts are taken back, and the seal is how it knows them.
            Content::Reasoning { text, signature: Some(signature) } if is_own_seal(signature) => {
                json!({"type": "thinking", "thinking": text, "signature": signature})
            }
            Content::Redacted { data } if is_own_seal(data) => json!({"type": "redacted_thinking", "data": data}),
            Content::Opaque { dialect, json } if dialect == NAME => return Some(json.clone()),
            Content::Reasoning { .. } | Content::Redacted { .. } | Content::Opaque { .. } => return None,
        };
        let Value::Object(mut wire) = wire else { return None };
        for (name, value) in block.extensions.get(NAME).into_iter().flatten() {
            wire.insert(name.clone(), value.clone());
        }
        Some(cached(wire, block.cache.as_ref()))
    }

    fn tool_result(&mut self, id: &str, blocks: &[Block], is_error: bool, path: &str) -> Value {
        let mut wire = json!({"type": "tool_result", "tool_use_id": id});
        let content = self.blocks(blocks, &format!("{path}.blocks"));
        if let [only] = content.as_slice()
            && let Some(text) = only.as_object().filter(|only| only.len() == 2).and_then(|only| only.get("text"))
        {
            wire["content"] = text.clone();
        } else if !content.is_empty() {
            wire["content"] = Value::Array(content);
        }
        if is_error {
            wire["is_error"] = json!(true);
        }
        wire
    }
}

/// An object with a cache mark.
pub(super) fn cached(mut wire: Map<String, Value>, mark: Option<&Value>) -> Value {
    wire.extend(mark.map(|mark| ("cache_control".to_owned(), mark.clone())));
    Value::Object(wire)
}

/// The input of a tool call, which is an object here. Text that is none (a model's broken JSON, or a bare value) becomes
/// `{"$raw": "<the text>"}`: the tool refuses that and the model reads why, whereas an empty object might be obeyed.
pub(crate) fn input_object(input: &str) -> Value {
    if input.trim().is_empty() {
        return json!({});
    }
    match serde_json::from_str(input) {
        Ok(object @ Value::Object(_)) => object,
        _ => json!({"$raw": input}),
    }
}

/// Whether a seal can be of this dialect. Its own are base64; those of others may be JSON.
fn is_own_seal(seal: &str) -> bool {
    !seal.starts_with('{')
}

fn media(kind: &str, source: &Source, title: Option<&str>) -> Option<Value> {
    if !matches!(kind, "image" | "document") {
        return None;
    }
    let source = match source {
        Source::Base64 { media_type, data } => json!({"type": "base64", "media_type": media_type, "data": data}),
        Source::Url { url } => match data_url(url) {
            Some((media_type, data)) => json!({"type": "base64", "media_type": media_type, "data": data}),
            None => json!({"type": "url", "url": url}),
        },
        Source::File { id } => json!({"type": "file", "file_id": id}),
        Source::Text { text } if kind == "document" => {
            json!({"type": "text", "media_type": "text/plain", "data": text})
        }
        Source::Text { .. } => return None,
    };
    let mut wire = json!({"type": kind, "source": source});
    if let Some(title) = title.filter(|_| kind == "document") {
        wire["title"] = json!(title);
    }
    Some(wire)
}

/// Media type and base64 text of `data:image/png;base64,…`.
pub(crate) fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    Some((media_type.split(';').next().unwrap_or(media_type), data))
}

/// Dialects that keep thoughts and calls apart may put the thoughts last; here the turn must begin with them. Where the
/// first of both kinds is a thought the order is the model's own, and stays.
fn thoughts_before_calls(blocks: Vec<Value>) -> Vec<Value> {
    let is_thought = |block: &Value| block["type"] == "thinking" || block["type"] == "redacted_thinking";
    let first = blocks.iter().find(|block| is_thought(block) || block["type"] == "tool_use");
    if first.is_none_or(is_thought) {
        return blocks;
    }
    let (mut thoughts, others): (Vec<Value>, Vec<Value>) = blocks.into_iter().partition(is_thought);
    thoughts.extend(others);
    thoughts
}

/// The API refuses white space at the end of a turn that the model is to continue.
fn trim_end(turns: &mut [(Role, Vec<Value>)]) {
    if let Some((Role::Assistant, blocks)) = turns.last_mut()
        && let Some(Value::String(text)) = blocks.last_mut().and_then(|block| block.get_mut("text"))
    {
        text.truncate(text.trim_end().len());
    }
}

fn turn(role: Role, blocks: Vec<Value>) -> Value {
    if role == Role::Assistant {
        return json!({"role": "assistant", "content": blocks});
    }
    let (mut results, others): (Vec<Value>, Vec<Value>) =
        blocks.into_iter().partition(|block| block["type"] == "tool_result");
    results.extend(others);
    json!({"role": "user", "content": results})
}
