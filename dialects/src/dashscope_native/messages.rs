// SPDX-License-Identifier: Apache-2.0
//! Writes the turns of a conversation. For the text service content is a string, for the multimodal one a list of parts
//! that are named by their kind: `{"text": …}`, `{"image": …}`, `{"video": …}`, `{"audio": …}`.

use serde_json::{Value, json};

use super::chat::Style;
use crate::ir::{Block, Content, Message, Request, Role, Source};

/// Writes turns.
pub(super) struct Turns<'d> {
    pub(super) style: Style,
    pub(super) dropped: &'d mut Vec<String>,
}

/// What the blocks of one message become.
#[derive(Default)]
struct Parts {
    content: Vec<Value>,
    calls: Vec<Value>,
    reasoning: String,
}

impl Turns<'_> {
    pub(super) fn write(mut self, request: &Request) -> Vec<Value> {
        let mut messages = Vec::with_capacity(request.messages.len() + 1);
        if !request.system.is_empty() {
            let parts = self.parts(&request.system, "system");
            messages.push(self.message("system", parts));
        }
        for (index, message) in request.messages.iter().enumerate() {
            if message.name.is_some() {
                self.drop(format!("messages[{index}].name"));
            }
            let path = format!("messages[{index}].blocks");
            let role = match message.role {
                Role::User => {
                    self.user(message, &path, &mut messages);
                    continue;
                }
                Role::System => "system",
                Role::Assistant => "assistant",
            };
            let parts = self.parts(&message.blocks, &path);
            messages.push(self.message(role, parts));
        }
        messages
    }

    fn drop(&mut self, path: impl Into<String>) {
        self.dropped.push(path.into());
    }

    /// A user's turn: each result of a tool is a message of its own, before what the user says and what the tools show.
    fn user(&mut self, message: &Message, path: &str, messages: &mut Vec<Value>) {
        let (mut rest, mut has_results) = (Parts::default(), false);
        for (index, block) in message.blocks.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Content::ToolResult { id, blocks, is_error } = &block.content else {
                self.block(block, &path, &mut rest);
                continue;
            };
            has_results = true;
            if *is_error {
                self.drop(format!("{path}.is_error"));
            }
            if block.cache.is_some() {
                self.drop(format!("{path}.cache"));
            }
            let mut told = Parts::default();
            for (index, block) in blocks.iter().enumerate() {
                let shown = matches!(&block.content, Content::Media { kind, .. } if kind != "document");
                self.block(block, &format!("{path}.blocks[{index}]"), if shown { &mut rest } else { &mut told });
            }
            let mut result = self.message("tool", told);
            result["tool_call_id"] = Value::from(id.as_str());
            messages.push(result);
        }
        if !has_results || !rest.content.is_empty() {
            messages.push(self.message("user", rest));
        }
    }

    fn parts(&mut self, blocks: &[Block], path: &str) -> Parts {
        let mut parts = Parts::default();
        for (index, block) in blocks.iter().enumerate() {
            self.block(block, &format!("{path}[{index}]"), &mut parts);
        }
        parts
    }

    fn block(&mut self, block: &Block, path: &str, parts: &mut Parts) {
        match &block.content {
            Content::Text { text, .. } | Content::Refusal { text } => self.text(text, block, path, parts),
            Content::Media { source: Source::Text { text }, .. } => self.text(text, block, path, parts),
            Content::Media { kind, source, detail, .. } => match url(source) {
                Some(url) if self.style.multimodal && matches!(kind.as_str(), "image" | "video" | "audio") => {
                    if detail.as_deref().is_some_and(|detail| detail != "auto") {
                        self.drop(format!("{path}.detail"));
                    }
                    self.part(json!({ kind: url }), block, path, parts);
                }
                _ => self.drop(path),
            },
            Content::ToolUse { id, name, input } => {
                let input = if input.is_empty() { "{}" } else { input };
                let function = json!({ "name": name, "arguments": input });
                parts.calls.push(json!({ "id": id, "type": "function", "function": function }));
                if block.cache.is_some() {
                    self.drop(format!("{path}.cache"));
                }
            }
            Content::Reasoning { text, signature } => {
                parts.reasoning.push_str(text);
                if signature.is_some() {
                    self.drop(format!("{path}.signature"));
                }
            }
            Content::Opaque { dialect, json } if dialect == super::NAME => parts.content.push(json.clone()),
            Content::Redacted { .. } | Content::ToolResult { .. } | Content::Opaque { .. } => self.drop(path),
        }
    }

    fn text(&mut self, text: &str, block: &Block, path: &str, parts: &mut Parts) {
        self.part(json!({ "text": text }), block, path, parts);
    }

    fn part(&mut self, mut part: Value, block: &Block, path: &str, parts: &mut Parts) {
        match &block.cache {
            Some(mark) if self.style.cache_marks => part["cache_control"] = mark.clone(),
            Some(_) => self.drop(format!("{path}.cache")),
            None => {}
        }
        parts.content.push(part);
    }

    fn message(&self, role: &str, parts: Parts) -> Value {
        let mut message = json!({ "role": role, "content": self.content(parts.content) });
        if !parts.reasoning.is_empty() {
            message["reasoning_content"] = Value::from(parts.reasoning);
        }
        if !parts.calls.is_empty() {
            message["tool_calls"] = Value::from(parts.calls);
        }
        message
    }

    /// The text service takes several texts as one; a list only where a mark stands between them.
    fn content(&self, mut parts: Vec<Value>) -> Value {
        if self.style.multimodal {
            if parts.is_empty() {
                parts.push(json!({ "text": "" }));
            }
            return Value::from(parts);
        }
        let plain = |part: &Value| part.as_object().is_some_and(|part| part.len() == 1 && part.contains_key("text"));
        if parts.iter().all(plain) {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            return Value::from(texts.join("\n"));
        }
        for part in &mut parts {
            if let Value::Object(part) = part {
                part.shift_insert(0, "type".to_owned(), Value::from("text"));
            }
        }
        Value::from(parts)
    }
}

/// Where a medium is, as the API takes it: pictures in the request itself are `data:` URLs.
pub(super) fn url(source: &Source) -> Option<String> {
    match source {
        Source::Url { url } => Some(url.clone()),
        Source::Base64 { media_type, data } => Some(format!("data:{media_type};base64,{data}")),
        Source::File { .. } | Source::Text { .. } => None,
    }
}
