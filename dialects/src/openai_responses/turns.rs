// SPDX-License-Identifier: Apache-2.0
//! The conversation of a canonical request as items, and the paths of what has no place among them.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};

use super::{NAME, items, notes, parts, seal};
use crate::ir::{Block, Content, Members, Message, Role};

/// The API takes ids of calls up to here.
const CALL_ID_BYTES_MAX: usize = 64;

/// The items so far.
#[derive(Default)]
pub(super) struct Turns {
    items: Vec<Item>,
    said: Said,
    dropped: Vec<String>,
    unnamed_calls: u32,
    unnamed_results: u32,
}

struct Item {
    json: Map<String, Value>,
    /// The block that it is made of.
    path: String,
}

/// The parts of a message that has not ended.
#[derive(Default)]
struct Said {
    parts: Vec<Value>,
    /// What the item says beside its content.
    item: Members,
}

impl Turns {
    /// Writes a message.
    pub(super) fn message(&mut self, message: &Message, path: &str) {
        if message.name.is_some() {
            self.dropped.push(format!("{path}.name"));
        }
        for (index, block) in message.blocks.iter().enumerate() {
            self.block(block, message.role, &format!("{path}.blocks[{index}]"));
        }
        self.end_message(message.role);
    }

    /// The items, and what was dropped.
    pub(super) fn finish(mut self) -> (Vec<Value>, Vec<String>) {
        self.match_ids();
        (self.items.into_iter().map(|item| Value::Object(item.json)).collect(), self.dropped)
    }

    fn block(&mut self, block: &Block, role: Role, path: &str) {
        let own = block.extensions.get(NAME);
        if block.cache.is_some() && !own.is_some_and(|own| own.contains_key("prompt_cache_breakpoint")) {
            self.dropped.push(format!("{path}.cache"));
        }
        let item = own.and_then(|own| own.get("item")).and_then(Value::as_object);
        match &block.content {
            Content::ToolUse { id, name, input } => {
                self.end_message(role);
                let input = if input.is_empty() { "{}" } else { input };
                let id = call_id(id, &mut self.unnamed_calls);
                let call = json!({ "type": "function_call", "call_id": id, "name": name, "arguments": input });
                self.push(call, item, path);
            }
            Content::ToolResult { id, blocks, is_error } => {
                self.end_message(role);
                if *is_error {
                    self.dropped.push(format!("{path}.is_error"));
                }
                let output = self.output(blocks, path);
                let id = call_id(id, &mut self.unnamed_results);
                self.push(json!({ "type": "function_call_output", "call_id": id, "output": output }), item, path);
            }
            Content::Reasoning { text, signature } => {
                self.end_message(role);
                match signature.as_deref().and_then(|seal| seal::unpack(text, seal)) {
                    Some(item) => self.push(Value::Object(item), None, path),
                    // Only a vendor's own thoughts are taken back, and the seal is how it knows them.
                    None => self.dropped.push(path.to_owned()),
                }
            }
            Content::Opaque { json, .. } if items::is_opaque_item(&block.content) => {
                self.end_message(role);
                self.push(json.clone(), None, path);
            }
            content => {
                if let Some(item) = item {
                    self.end_message(role);
                    self.said.item = item.clone().into_iter().collect();
                }
                match self.part(content, own, role, path) {
                    Some(part) => self.said.parts.push(part),
                    None => self.dropped.push(path.to_owned()),
                }
            }
        }
    }

    fn part(&mut self, content: &Content, own: Option<&Members>, role: Role, path: &str) -> Option<Value> {
        let mut part = match role {
            Role::Assistant => parts::output(content),
            Role::User | Role::System => parts::input(content),
        }?;
        if let Content::Text { citations, .. } = content
            && (role != Role::Assistant || !citations.iter().all(notes::is_own))
            && !citations.is_empty()
        {
            self.dropped.push(format!("{path}.citations"));
        }
        for (name, value) in own.into_iter().flatten().filter(|(name, _)| *name != "item") {
            part[name] = value.clone();
        }
        Some(part)
    }

    /// The output of a tool: a text, or parts.
    fn output(&mut self, blocks: &[Block], path: &str) -> Value {
        let mut parts = Vec::with_capacity(blocks.len());
        for (index, block) in blocks.iter().enumerate() {
            let path = format!("{path}.blocks[{index}]");
            if block.cache.is_some() {
                self.dropped.push(format!("{path}.cache"));
            }
            match self.part(&block.content, block.extensions.get(NAME), Role::User, &path) {
                Some(part) => parts.push(part),
                None => self.dropped.push(path),
            }
        }
        only_text(&parts).unwrap_or(Value::Array(parts))
    }

    /// Writes the message that is being said, if any.
    fn end_message(&mut self, role: Role) {
        let Said { parts, item } = std::mem::take(&mut self.said);
        if parts.is_empty() {
            return;
        }
        let word = match role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let text = only_text(&parts).filter(|_| !item.contains_key("id"));
        let content = text.unwrap_or(Value::Array(parts));
        let mut message = json!({ "type": "message", "role": word, "content": content });
        for (name, value) in item {
            message[name] = value;
        }
        self.push(message, None, "");
    }

    fn push(&mut self, json: Value, more: Option<&Map<String, Value>>, path: &str) {
        let Value::Object(mut json) = json else { return };
        json.extend(more.cloned().unwrap_or_default());
        self.items.push(Item { json, path: path.to_owned() });
    }

    /// A vendor that keeps its answers takes a thought with its id only before the item that followed it, with its id, too.
    /// Callers of other dialects cannot send that one back. The sealed thought is taken without its id; one that has
    /// nothing but the id is not taken.
    fn match_ids(&mut self) {
        let is_thought = |item: &Item| item.json.get("type").is_some_and(|kind| kind == "reasoning");
        let has = |item: &Item, member: &str| item.json.get(member).is_some_and(|value| !value.is_null());
        let mut follower_has_id = false;
        let mut kept = Vec::with_capacity(self.items.len());
        for mut item in std::mem::take(&mut self.items).into_iter().rev() {
            if !is_thought(&item) {
                follower_has_id = has(&item, "id");
            } else if !follower_has_id {
                let is_open = item.json.get("content").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
                if has(&item, "encrypted_content") {
                    item.json.shift_remove("id");
                } else if !is_open {
                    self.dropped.push(item.path);
                    continue;
                }
            }
            kept.push(item);
        }
        kept.reverse();
        self.items = kept;
    }
}

/// The text of parts that are one plain text.
fn only_text(parts: &[Value]) -> Option<Value> {
    let is_plain =
        |name: &str, value: &Value| matches!(name, "type" | "text") || (name == "annotations" && *value == json!([]));
    match parts {
        [] => Some(Value::from("")),
        [Value::Object(only)] if only.iter().all(|(name, value)| is_plain(name, value)) => only.get("text").cloned(),
        _ => None,
    }
}

/// The wire id of a call or of its result, which are paired in order where ids are empty.
fn call_id<'i>(id: &'i str, unnamed: &mut u32) -> Cow<'i, str> {
    match id.len() {
        0 => {
            *unnamed += 1;
            Cow::Owned(format!("call_unnamed_{unnamed}"))
        }
        1..=CALL_ID_BYTES_MAX => Cow::Borrowed(id),
        _ => {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            Cow::Owned(format!("call_{:016x}_{}", hasher.finish(), id.len()))
        }
    }
}
