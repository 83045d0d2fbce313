// SPDX-License-Identifier: Apache-2.0
//! Writes the conversation of a request to a vendor.

use serde_json::{Map, Value, json};

use super::answer::{is_citation, thinking};
use super::messages::DOCUMENT;
use super::{NAME, plan_of};
use crate::ir::{Block, Content, Message, Request, Role, Source};

/// The conversation, and the documents that stand beside it.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) messages: Vec<Value>,
    pub(super) documents: Vec<Value>,
}

/// Writes the conversation.
pub(super) fn write(request: &Request, dropped: &mut Vec<String>) -> Turns {
    // The API takes no documents together with a shape of the answer.
    let mut writer = Writer { turns: Turns::default(), dropped, documents_apart: request.format.is_none() };
    if !request.system.is_empty() {
        let parts = writer.parts(&request.system, "system", Role::System);
        writer.push("system", parts);
    }
    for (index, message) in request.messages.iter().enumerate() {
        let path = format!("messages[{index}]");
        if message.name.is_some() {
            writer.drop(format!("{path}.name"));
        }
        match message.role {
            Role::System => {
                let parts = writer.parts(&message.blocks, &format!("{path}.blocks"), Role::System);
                writer.push("system", parts);
            }
            Role::User => writer.user(message, &format!("{path}.blocks")),
            Role::Assistant => {
                let parts = writer.parts(&message.blocks, &format!("{path}.blocks"), Role::Assistant);
                writer.push("assistant", parts);
            }
        }
    }
    writer.turns
}

struct Writer<'d> {
    turns: Turns,
    dropped: &'d mut Vec<String>,
    /// Whether documents stand beside the conversation, not in it.
    documents_apart: bool,
}

/// What the blocks of one message become.
#[derive(Default)]
struct Parts {
    content: Vec<Value>,
    calls: Vec<Value>,
    cited: Vec<Value>,
    plan: String,
    kept: Map<String, Value>,
}

impl Writer<'_> {
    fn drop(&mut self, path: impl Into<String>) {
        self.dropped.push(path.into());
    }

    /// A user's turn: each result of a tool is a message of its own here, before what the user says.
    fn user(&mut self, message: &Message, path: &str) {
        let mut said = Parts::default();
        let mut has_results = false;
        for (index, block) in message.blocks.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match &block.content {
                Content::ToolResult { id, blocks, is_error } => {
                    has_results = true;
                    if *is_error {
                        self.drop(format!("{path}.is_error"));
                    }
                    self.mark(block, &path);
                    self.result(id, blocks, &path, &mut said);
                }
                _ => self.block(block, &path, Role::User, &mut said),
            }
        }
        if !(has_results && said.content.is_empty()) {
            self.push("user", said);
        }
    }

    /// A result takes text and documents only: pictures stand in the user's message after it.
    fn result(&mut self, id: &str, blocks: &[Block], path: &str, said: &mut Parts) {
        let mut parts = Parts::default();
        for (index, block) in blocks.iter().enumerate() {
            let path = format!("{path}.blocks[{index}]");
            match &block.content {
                Content::Media { kind, .. } if kind == "image" => self.block(block, &path, Role::User, said),
                Content::Media { source: Source::Text { text }, title, .. } => {
                    let part = json!({ "type": "document", "document": document(block, text, title.as_deref()) });
                    parts.content.push(part);
                }
                Content::Text { text, .. } => match kept_document(block) {
                    Some(document) => parts.content.push(json!({ "type": "document", "document": document })),
                    None => parts.content.push(json!({ "type": "text", "text": text })),
                },
                _ => self.block(block, &path, Role::User, &mut parts),
            }
        }
        let mut message = json!({ "role": "tool", "tool_call_id": id, "content": content(parts.content) });
        parts.kept.into_iter().for_each(|(name, value)| message[name] = value);
        self.turns.messages.push(message);
    }

    fn parts(&mut self, blocks: &[Block], path: &str, role: Role) -> Parts {
        let mut parts = Parts::default();
        for (index, block) in blocks.iter().enumerate() {
            self.block(block, &format!("{path}[{index}]"), role, &mut parts);
        }
        parts
    }

    fn push(&mut self, role: &str, parts: Parts) {
        let mut message = json!({ "role": role });
        if !parts.plan.is_empty() {
            message["tool_plan"] = json!(parts.plan);
        }
        if parts.calls.is_empty() || !parts.content.is_empty() {
            message["content"] = content(parts.content);
        }
        for (name, list) in [("tool_calls", parts.calls), ("citations", parts.cited)] {
            if !list.is_empty() {
                message[name] = Value::from(list);
            }
        }
        parts.kept.into_iter().for_each(|(name, value)| message[name] = value);
        self.turns.messages.push(message);
    }

    fn block(&mut self, block: &Block, path: &str, role: Role, parts: &mut Parts) {
        self.mark(block, path);
        match &block.content {
            Content::Text { text, citations } => self.text(block, text, citations, path, parts),
            Content::Refusal { text } => parts.content.push(json!({ "type": "text", "text": text })),
            Content::Media { kind, source, title, detail } => match (kind.as_str(), source) {
                ("image", Source::Url { .. } | Source::Base64 { .. }) if role == Role::User => {
                    parts.content.push(image(source, detail.as_deref()));
                }
                ("document", Source::Text { text }) if role == Role::User && self.documents_apart => {
                    self.turns.documents.push(document(block, text, title.as_deref()));
                }
                ("document", Source::Text { text }) => parts.content.push(json!({ "type": "text", "text": text })),
                _ => self.drop(path),
            },
            Content::ToolUse { id, name, input } if role == Role::Assistant => {
                let input = if input.is_empty() { "{}" } else { input };
                let function = json!({ "name": name, "arguments": input });
                parts.calls.push(json!({ "id": id, "type": "function", "function": function }));
            }
            Content::Reasoning { text, signature } if role == Role::Assistant => {
                self.reasoning(text, signature.as_deref(), path, parts);
            }
            Content::Redacted { data } if role == Role::Assistant => match plan_of(data) {
                Some(plan) => parts.plan.push_str(&plan),
                None => self.drop(path),
            },
            Content::Opaque { dialect, json } if dialect == NAME => match &json["message"] {
                Value::Object(members) if json.get("type").is_none() => parts.kept.extend(members.clone()),
                _ => parts.content.push(json.clone()),
            },
            _ => self.drop(path),
        }
    }

    fn text(&mut self, block: &Block, text: &str, citations: &[Value], path: &str, parts: &mut Parts) {
        let (own, foreign): (Vec<&Value>, Vec<&Value>) = citations.iter().partition(|cited| is_citation(cited));
        if !foreign.is_empty() {
            self.drop(format!("{path}.citations"));
        }
        let cites = !own.is_empty();
        parts.cited.extend(own.into_iter().cloned());
        match kept_document(block) {
            Some(document) => parts.content.push(json!({ "type": "document", "document": document })),
            None if text.is_empty() && cites => {}
            None => parts.content.push(json!({ "type": "text", "text": text })),
        }
    }

    /// Seals of other vendors are of no use here, and neither is a seal without a thought.
    fn reasoning(&mut self, text: &str, seal: Option<&str>, path: &str, parts: &mut Parts) {
        match seal {
            Some(_) if text.is_empty() => self.drop(path),
            Some(_) => {
                self.drop(format!("{path}.signature"));
                parts.content.push(thinking(text, None));
            }
            None => parts.content.push(thinking(text, None)),
        }
    }

    fn mark(&mut self, block: &Block, path: &str) {
        if block.cache.is_some() {
            self.drop(format!("{path}.cache"));
        }
    }
}

/// A content: one text as a string, everything else as parts.
fn content(mut parts: Vec<Value>) -> Value {
    match parts.as_mut_slice() {
        [] => json!(""),
        [only] if only["type"] == "text" => only["text"].take(),
        _ => Value::from(parts),
    }
}

/// The document that a block has kept as it came.
fn kept_document(block: &Block) -> Option<&Value> {
    block.extensions.get(NAME)?.get(DOCUMENT)
}

fn document(block: &Block, text: &str, title: Option<&str>) -> Value {
    match (kept_document(block), title) {
        (Some(kept), _) => kept.clone(),
        (None, Some(title)) => json!({ "data": { "title": title, "text": text } }),
        (None, None) => json!({ "data": { "text": text } }),
    }
}

/// A picture as a part.
pub(super) fn image(source: &Source, detail: Option<&str>) -> Value {
    let url = match source {
        Source::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
        Source::Url { url } | Source::File { id: url } | Source::Text { text: url } => url.clone(),
    };
    let mut stated = json!({ "url": url });
    if let Some(detail) = detail {
        stated["detail"] = json!(detail);
    }
    json!({ "type": "image_url", "image_url": stated })
}
