// SPDX-License-Identifier: Apache-2.0
//! Reads the messages of a request: roles, parts, tool calls, reasoning that comes back.

use serde_json::{Map, Value, json};

use super::request::wrong;
use super::{NAME, seal};
use crate::ir::{Block, Content, Fault, Message, Role, Source};

type Object = Map<String, Value>;

/// Whether a message holds results of tools and nothing else.
pub(super) fn is_results(message: &Message) -> bool {
    let result = |block: &Block| matches!(block.content, Content::ToolResult { .. });
    message.role == Role::User
        && message.name.is_none()
        && !message.blocks.is_empty()
        && message.blocks.iter().all(result)
}

/// Reads one message. `legacy_id` is the id made up for the last legacy function call, whose result follows.
pub(super) fn message(mut members: Object, path: &str, index: usize, legacy_id: &mut String) -> Result<Message, Fault> {
    members.retain(|_, value| !value.is_null());
    let role = take_text(&mut members, "role", path)?.ok_or_else(|| wrong(&format!("{path}.role"), "is required"))?;
    let name = take_text(&mut members, "name", path)?;
    let cache = members.shift_remove("cache_control");
    let content = members.shift_remove("content");
    let mut message = Message { role: Role::User, name, blocks: Vec::new() };
    match role.as_str() {
        "system" | "developer" => {
            message.role = Role::System;
            message.blocks = required_blocks(content, path)?;
        }
        "user" => message.blocks = required_blocks(content, path)?,
        "assistant" => {
            message.role = Role::Assistant;
            message.blocks = assistant(content, &mut members, path, index, legacy_id)?;
        }
        "tool" => {
            let id = take_text(&mut members, "tool_call_id", path)?;
            let id = id.ok_or_else(|| wrong(&format!("{path}.tool_call_id"), "is required"))?;
            message.blocks = vec![result(id, blocks(content, path)?, &mut members)];
        }
        "function" => {
            message.name = None;
            message.blocks = vec![result(legacy_id.clone(), blocks(content, path)?, &mut members)];
        }
        other => return Err(wrong(&format!("{path}.role"), &format!("unknown role {other:?}"))),
    }
    if let (Some(mark), Some(last)) = (cache, message.blocks.last_mut()) {
        last.cache.get_or_insert(mark);
    }
    members.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    if !members.is_empty() {
        message.blocks.push(block(kept_members(&members)));
    }
    Ok(message)
}

/// Members of a message that the canonical form has no place for: an opaque block without a type.
fn kept_members(members: &Object) -> Content {
    Content::Opaque { dialect: NAME.to_owned(), json: json!({ "message": members }) }
}

fn block(content: Content) -> Block {
    Block::new(content)
}

fn text_block(text: String) -> Block {
    block(Content::Text { text, citations: Vec::new() })
}

fn take_text(members: &mut Object, name: &str, path: &str) -> Result<Option<String>, Fault> {
    match members.shift_remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(&format!("{path}.{name}"), "must be a string")),
    }
}

fn required_blocks(content: Option<Value>, path: &str) -> Result<Vec<Block>, Fault> {
    match content {
        None => Err(wrong(&format!("{path}.content"), "is required")),
        content => blocks(content, path),
    }
}

/// A content: a string or a list of parts.
fn blocks(content: Option<Value>, path: &str) -> Result<Vec<Block>, Fault> {
    match content {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text_block(text)]),
        Some(Value::Array(parts)) => {
            let read = |(index, part)| self::part(part, &format!("{path}.content[{index}]"));
            parts.into_iter().enumerate().map(read).collect()
        }
        Some(_) => Err(wrong(&format!("{path}.content"), "must be a string or a list of parts")),
    }
}

fn result(id: String, mut blocks: Vec<Block>, members: &mut Object) -> Block {
    members.retain(|_, value| !value.is_null());
    if !members.is_empty() {
        blocks.push(block(kept_members(&std::mem::take(members))));
    }
    block(Content::ToolResult { id, blocks, is_error: false })
}

/// One part of a content.
pub(super) fn part(part: Value, path: &str) -> Result<Block, Fault> {
    let Value::Object(mut members) = part else { return Err(wrong(path, "must be an object")) };
    let cache = members.shift_remove("cache_control").filter(|mark| !mark.is_null());
    let kind = members.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let must = |member: &str, what: &str| wrong(&format!("{path}.{member}"), what);
    let content = match kind.as_str() {
        "" => return Err(must("type", "is required")),
        "text" | "input_text" => {
            let text = members.get("text").and_then(Value::as_str).ok_or_else(|| must("text", "must be a string"))?;
            Content::Text { text: text.to_owned(), citations: Vec::new() }
        }
        "image_url" | "video_url" => {
            let stated = members.get(&kind).unwrap_or(&Value::Null);
            let url =
                stated.as_str().or_else(|| stated["url"].as_str()).ok_or_else(|| must(&kind, "must have a url"))?;
            let detail = stated["detail"].as_str().map(str::to_owned);
            let medium = kind.trim_end_matches("_url").to_owned();
            Content::Media { kind: medium, source: url_source(url), title: None, detail }
        }
        "input_audio" => {
            let stated = members.get("input_audio").unwrap_or(&Value::Null);
            let data = stated["data"].as_str().ok_or_else(|| must("input_audio.data", "must be a string"))?;
            let format = stated["format"].as_str().ok_or_else(|| must("input_audio.format", "must be a string"))?;
            let source = Source::Base64 { media_type: format!("audio/{format}"), data: data.to_owned() };
            Content::Media { kind: "audio".to_owned(), source, title: None, detail: None }
        }
        "file" => file(members.get("file").unwrap_or(&Value::Null))
            .ok_or_else(|| must("file", "must have file_id or file_data"))?,
        "refusal" => {
            let text = members.get("refusal").and_then(Value::as_str).unwrap_or_default();
            Content::Refusal { text: text.to_owned() }
        }
        "thinking" => Content::Reasoning { text: thoughts(&members), signature: None },
        _ => Content::Opaque { dialect: NAME.to_owned(), json: Value::Object(members) },
    };
    Ok(Block { cache, ..Block::new(content) })
}

/// Mistral's thinking part: a list of text parts, or a string.
fn thoughts(members: &Object) -> String {
    match members.get("thinking") {
        Some(Value::Array(thoughts)) => thoughts.iter().filter_map(|thought| thought["text"].as_str()).collect(),
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// Where a URL points: a `data:` URL with base64 lies in the request itself.
pub(super) fn url_source(url: &str) -> Source {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    match inline {
        Some((media_type, data)) => Source::Base64 { media_type: media_type.to_owned(), data: data.to_owned() },
        None => Source::Url { url: url.to_owned() },
    }
}

fn file(stated: &Value) -> Option<Content> {
    let title = stated["filename"].as_str().map(str::to_owned);
    let source = match (stated["file_id"].as_str(), stated["file_data"].as_str()) {
        (Some(id), _) => Source::File { id: id.to_owned() },
        (None, Some(data)) => match url_source(data) {
            Source::Url { url } if !url.contains("://") => {
                Source::Base64 { media_type: "application/pdf".to_owned(), data: url }
            }
            source => source,
        },
        (None, None) => return None,
    };
    Some(Content::Media { kind: "document".to_owned(), source, title, detail: None })
}

/// What the model has said, in the order in which it says it: thoughts, text, refusal, calls.
fn assistant(
    content: Option<Value>,
    members: &mut Object,
    path: &str,
    index: usize,
    legacy_id: &mut String,
) -> Result<Vec<Block>, Fault> {
    let mut said = reasoning(members, path)?;
    if let Some(extra) = members.shift_remove("extra_content") {
        said.push(sealed("", seal::extra_content(&extra, None)));
    }
    said.extend(blocks(content, path)?);
    let empty_text = |block: &Block| matches!(&block.content, Content::Text { text, .. } if text.is_empty());
    if let Some(text) = take_text(members, "refusal", path)? {
        said.push(block(Content::Refusal { text }));
    }
    for (position, call) in take_list(members, "tool_calls", path)?.into_iter().enumerate() {
        said.retain(|block| !empty_text(block));
        tool_call(call, &format!("{path}.tool_calls[{position}]"), &mut said)?;
    }
    if let Some(call) = members.shift_remove("function_call") {
        said.retain(|block| !empty_text(block));
        *legacy_id = format!("call_{index}");
        let name = call["name"].as_str().ok_or_else(|| wrong(&format!("{path}.function_call.name"), "is required"))?;
        let content =
            Content::ToolUse { id: legacy_id.clone(), name: name.to_owned(), input: arguments(&call["arguments"]) };
        said.push(block(content));
    }
    Ok(said)
}

fn take_list(members: &mut Object, name: &str, path: &str) -> Result<Vec<Value>, Fault> {
    match members.shift_remove(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(wrong(&format!("{path}.{name}"), "must be a list")),
    }
}

fn tool_call(call: Value, path: &str, said: &mut Vec<Block>) -> Result<(), Fault> {
    let Value::Object(mut members) = call else { return Err(wrong(path, "must be an object")) };
    members.retain(|_, value| !value.is_null());
    let function = members.shift_remove("function").unwrap_or(Value::Null);
    let Some(name) = function["name"].as_str() else {
        // A custom tool's call: known to OpenAI only.
        if members.contains_key("custom") {
            said.push(block(Content::Opaque { dialect: NAME.to_owned(), json: json!({ "tool_call": members }) }));
            return Ok(());
        }
        return Err(wrong(&format!("{path}.function.name"), "is required"));
    };
    let id = take_text(&mut members, "id", path)?.unwrap_or_default();
    if let Some(extra) = members.get("extra_content") {
        said.push(sealed("", seal::extra_content(extra, Some(&id))));
    }
    let content = Content::ToolUse { id, name: name.to_owned(), input: arguments(&function["arguments"]) };
    said.push(Block { cache: members.shift_remove("cache_control"), ..Block::new(content) });
    Ok(())
}

fn arguments(stated: &Value) -> String {
    match stated {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn sealed(text: &str, seal: String) -> Block {
    block(Content::Reasoning { text: text.to_owned(), signature: Some(seal) })
}

/// Thoughts that come back: `reasoning_details` where it has them, since only it knows the seals, and otherwise the
/// text.
fn reasoning(members: &mut Object, path: &str) -> Result<Vec<Block>, Fault> {
    let content = take_text(members, "reasoning_content", path)?;
    let other = match members.get("reasoning") {
        Some(Value::String(_)) => take_text(members, "reasoning", path)?,
        _ => None,
    };
    let text = content.or(other).filter(|text| !text.is_empty());
    let signature = take_text(members, "signature", path)?;
    let details = take_list(members, "reasoning_details", path)?;
    let items: Vec<&Object> = details.iter().filter_map(Value::as_object).collect();
    let in_items = items.iter().any(|item| !seal::text(item).is_empty());
    let mut blocks = Vec::new();
    if let Some(text) = text.filter(|_| !in_items) {
        blocks.push(block(Content::Reasoning { text, signature }));
    }
    for item in items {
        if seal::kind(item) == "reasoning.encrypted" {
            blocks.push(block(Content::Redacted { data: seal::redacted(item) }));
        } else {
            let content =
                Content::Reasoning { text: seal::text(item).to_owned(), signature: seal::signature(item, true) };
            blocks.push(block(content));
        }
    }
    Ok(blocks)
}
