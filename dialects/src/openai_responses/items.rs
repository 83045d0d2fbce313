// SPDX-License-Identifier: Apache-2.0
//! Reads the items of `input`. They are flat: a call, its result and a thought are each an item beside the messages. In the
//! canonical form what the model produced in one go is one message of the assistant, and results that follow each other
//! are one message of the user.
//!
//! What an item says beyond its content (`id`, `phase`, `status`) stays with its first block, in the extension `item`.

use serde_json::{Map, Value, json};

use super::{NAME, parts, seal};
use crate::ir::{Block, Content, Fault, Members, Message, Role};
use crate::members::{Fields, wrong};

/// Reads `input`: a text, or items.
pub(super) fn messages(input: Value) -> Result<Vec<Message>, Fault> {
    match input {
        Value::String(text) => Ok(vec![Message { role: Role::User, name: None, blocks: vec![Block::text(text)] }]),
        Value::Array(items) => {
            let mut turns = Turns::default();
            for (index, item) in items.into_iter().enumerate() {
                turns.item(item, &format!("input[{index}]"))?;
            }
            Ok(turns.messages)
        }
        _ => Err(wrong("input", "must be a string or a list of items")),
    }
}

#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
}

impl Turns {
    fn item(&mut self, item: Value, path: &str) -> Result<(), Fault> {
        let mut fields = Fields::of(item, path)?;
        let kind = match fields.peek("type").and_then(Value::as_str) {
            Some(kind) => kind.to_owned(),
            None if fields.peek("role").is_some() => "message".to_owned(),
            None if fields.peek("id").is_some() => "item_reference".to_owned(),
            None => return Err(fields.wrong("type", "is required")),
        };
        match kind.as_str() {
            "message" => return self.message(fields),
            "function_call" => {
                fields.take("type");
                let content = Content::ToolUse {
                    id: fields.required_text("call_id")?,
                    name: fields.required_text("name")?,
                    input: fields.text("arguments")?.unwrap_or_default(),
                };
                self.assistant().push(with_item(Block::new(content), fields.rest()));
            }
            "function_call_output" => {
                fields.take("type");
                let id = fields.required_text("call_id")?;
                let output = fields.take("output");
                let blocks = parts::blocks(output, &fields.at("output"))?;
                let content = Content::ToolResult { id, blocks, is_error: false };
                self.results().push(with_item(Block::new(content), fields.rest()));
            }
            "reasoning" => {
                let block = reasoning(fields.into_map());
                self.assistant().push(block);
            }
            other => {
                let of_user = other.ends_with("_output") || other == "mcp_approval_response";
                let blocks = if of_user { self.results() } else { self.assistant() };
                blocks.push(opaque(Value::Object(fields.into_map())));
            }
        }
        Ok(())
    }

    fn message(&mut self, mut fields: Fields) -> Result<(), Fault> {
        let word = fields.required_text("role")?;
        let role = match word.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            "developer" => {
                fields.put("role", word);
                Role::System
            }
            other => return Err(fields.wrong("role", &format!("unknown role {other:?}"))),
        };
        fields.take("type");
        let Some(content) = fields.take("content") else { return Err(fields.wrong("content", "is required")) };
        let mut blocks = parts::blocks(Some(content), &fields.at("content"))?;
        let item = fields.rest();
        if let Some(first) = blocks.first_mut() {
            *first = with_item(std::mem::take(first), item);
        }
        match self.messages.last_mut() {
            Some(last) if role == Role::Assistant && last.role == role && !has_said(last) => last.blocks.extend(blocks),
            _ => self.messages.push(Message { role, name: None, blocks }),
        }
        Ok(())
    }

    /// The assistant's turn that goes on.
    fn assistant(&mut self) -> &mut Vec<Block> {
        self.turn(|last| last.role == Role::Assistant, Role::Assistant)
    }

    /// The results of tools that go on.
    fn results(&mut self) -> &mut Vec<Block> {
        let is_result =
            |block: &Block| matches!(block.content, Content::ToolResult { .. }) || is_opaque_item(&block.content);
        self.turn(
            |last| last.role == Role::User && !last.blocks.is_empty() && last.blocks.iter().all(is_result),
            Role::User,
        )
    }

    fn turn(&mut self, goes_on: impl Fn(&Message) -> bool, role: Role) -> &mut Vec<Block> {
        if !self.messages.last().is_some_and(goes_on) {
            self.messages.push(Message { role, ..Message::default() });
        }
        let last = self.messages.len() - 1;
        &mut self.messages[last].blocks
    }
}

/// Whether a turn has a message already: a second one begins another turn.
fn has_said(message: &Message) -> bool {
    let is_part = |block: &Block| match &block.content {
        Content::Text { .. } | Content::Refusal { .. } | Content::Media { .. } => true,
        Content::Opaque { .. } => !is_opaque_item(&block.content),
        _ => false,
    };
    message.blocks.iter().any(is_part)
}

/// A thought with its seal. An item in which nobody but its vendor reads anything stays as it is.
fn reasoning(mut item: Map<String, Value>) -> Block {
    item.retain(|_, value| !value.is_null());
    if let Some((foreign, redacted)) = item.get("encrypted_content").and_then(Value::as_str).and_then(seal::foreign) {
        let seal = foreign.to_owned();
        return Block::new(match redacted {
            true => Content::Redacted { data: seal },
            false => Content::Reasoning { text: seal::text(&item), signature: Some(seal) },
        });
    }
    if seal::is_made_up(item.get("id")) {
        item.shift_remove("id");
    }
    let text = seal::text(&item);
    if text.is_empty() && !item.contains_key("encrypted_content") {
        return opaque(Value::Object(item));
    }
    // A thought of a vendor without seals comes back with nothing but what we made up.
    let bare = item.iter().all(|(name, value)| matches!(name.as_str(), "type" | "summary") || *value == json!([]));
    let signature = if bare { None } else { Some(seal::pack(&item)) };
    Block::new(Content::Reasoning { text, signature })
}

/// A block with what its item says beyond its content. Ids that we made up for an answer mean nothing to a vendor.
fn with_item(mut block: Block, mut item: Members) -> Block {
    if seal::is_made_up(item.get("id")) {
        item.remove("id");
    }
    if !item.is_empty() {
        block.extensions.entry(NAME.to_owned()).or_default().insert("item".to_owned(), json!(item));
    }
    block
}

fn opaque(json: Value) -> Block {
    Block::new(Content::Opaque { dialect: NAME.to_owned(), json })
}

/// Whether this is a whole item that only this dialect knows (and no part of a message).
pub(super) fn is_opaque_item(content: &Content) -> bool {
    matches!(content, Content::Opaque { dialect, json } if dialect == NAME && !json["part"].is_object())
}
