// SPDX-License-Identifier: Apache-2.0
//! Blocks of a caller's request into the canonical form. Each is an object with one member, which says what it is.

use serde_json::{Map, Value, json};

use super::read::{take, take_list, take_object, take_text, wrong};
use super::{NAME, blob, media};
use crate::anthropic_messages::input_text;
use crate::ir::{Block, Content, Fault, Source};

type Object = Map<String, Value>;

/// Name of the extension which says that a text was given as JSON.
pub(super) const JSON: &str = "json";

/// The canonical cache mark for a `cachePoint`.
pub(super) fn cache_mark(point: &Value) -> Value {
    match &point["ttl"] {
        Value::Null => json!({"type": "ephemeral"}),
        ttl => json!({"type": "ephemeral", "ttl": ttl}),
    }
}

/// The blocks of a message, of the instructions or of a tool's result. A cache point is a mark on the block before it.
pub(super) fn blocks(list: Vec<Value>, path: &str) -> Result<Vec<Block>, Fault> {
    let mut blocks: Vec<Block> = Vec::with_capacity(list.len());
    for (index, json) in list.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Value::Object(mut union) = json else { return Err(wrong(&path, "must be an object")) };
        union.retain(|_, value| !value.is_null());
        if let (Some(point), Some(last)) = (union.get("cachePoint"), blocks.last_mut())
            && last.cache.is_none()
        {
            last.cache = Some(cache_mark(point));
            continue;
        }
        blocks.push(block(union, &path)?);
    }
    Ok(blocks)
}

fn block(mut union: Object, path: &str) -> Result<Block, Fault> {
    let mut names = union.keys();
    let (Some(name), None) = (names.next().cloned(), names.next()) else {
        return Err(wrong(path, "must have exactly one member"));
    };
    let before = format!("{path}.");
    let of_vendor = |member: &Value| member["type"].is_string();
    match name.as_str() {
        "text" => Ok(Block::text(take_text(&mut union, "text", &before)?.unwrap_or_default())),
        JSON => {
            let text = union.shift_remove(JSON).unwrap_or_default().to_string();
            let extension = [(JSON.to_owned(), Value::Bool(true))].into();
            Ok(Block { extensions: [(NAME.to_owned(), extension)].into(), ..Block::text(text) })
        }
        kind if media::KINDS.contains(&kind) => {
            medium(kind, member(&mut union, kind, &before)?, &format!("{path}.{kind}"))
        }
        // Tools that the vendor runs itself are no business of the caller's.
        "toolUse" if !of_vendor(&union["toolUse"]) => {
            tool_use(member(&mut union, "toolUse", &before)?, &format!("{path}.toolUse"))
        }
        "toolResult" if !of_vendor(&union["toolResult"]) => {
            tool_result(member(&mut union, "toolResult", &before)?, &format!("{path}.toolResult"))
        }
        "reasoningContent" => {
            reasoning(member(&mut union, "reasoningContent", &before)?, &format!("{path}.reasoningContent"))
        }
        "citationsContent" => {
            let mut cited = member(&mut union, "citationsContent", &before)?;
            let texts = take_list(&mut cited, "content", &format!("{path}.citationsContent."))?.unwrap_or_default();
            let text = texts.iter().filter_map(|part| part["text"].as_str()).collect();
            let citations =
                take_list(&mut cited, "citations", &format!("{path}.citationsContent."))?.unwrap_or_default();
            Ok(Block::new(Content::Text { text, citations }))
        }
        _ => Ok(Block::new(Content::Opaque { dialect: NAME.to_owned(), json: Value::Object(union) })),
    }
}

fn member(union: &mut Object, name: &str, before: &str) -> Result<Object, Fault> {
    Ok(take_object(union, name, before)?.unwrap_or_default())
}

/// What is left of a block is kept for a vendor of this dialect.
fn with_rest(content: Content, rest: Object) -> Block {
    let mut block = Block::new(content);
    if !rest.is_empty() {
        block.extensions.insert(NAME.to_owned(), rest.into_iter().collect());
    }
    block
}

fn medium(kind: &str, mut members: Object, path: &str) -> Result<Block, Fault> {
    let before = format!("{path}.");
    let format = take_text(&mut members, "format", &before)?;
    let media_type = |default: &str| media::media_type(kind, format.as_deref().unwrap_or(default));
    let title = take_text(&mut members, "name", &before)?;
    let stated = members.shift_remove("source").unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let source = if let Some(data) = text(&stated["bytes"]) {
        Source::Base64 { media_type: media_type("bin"), data }
    } else if let Some(url) = text(&stated["s3Location"]["uri"]) {
        keep(&mut members, "bucketOwner", stated["s3Location"].get("bucketOwner"));
        keep(&mut members, "format", format.map(Value::from).as_ref());
        Source::Url { url }
    } else if let Some(text) = text(&stated["text"]) {
        keep(&mut members, "format", format.filter(|format| format != "txt").map(Value::from).as_ref());
        Source::Text { text }
    } else if let Some(parts) = stated["content"].as_array() {
        // In pieces that can be cited one by one: for other dialects it is text, for this one it stays as it is.
        let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        let text = texts.join("\n\n");
        keep(&mut members, "format", format.map(Value::from).as_ref());
        members.insert("source".to_owned(), stated);
        Source::Text { text }
    } else {
        return Err(wrong(&format!("{path}.source"), "must have bytes, s3Location, text or content"));
    };
    Ok(with_rest(Content::Media { kind: kind.to_owned(), source, title, detail: None }, members))
}

fn keep(members: &mut Object, name: &str, value: Option<&Value>) {
    members.extend(value.map(|value| (name.to_owned(), value.clone())));
}

fn tool_use(mut members: Object, path: &str) -> Result<Block, Fault> {
    let before = format!("{path}.");
    let required =
        |text: Option<String>, name: &str| text.ok_or_else(|| wrong(&format!("{path}.{name}"), "is required"));
    let id = required(take_text(&mut members, "toolUseId", &before)?, "toolUseId")?;
    let name = required(take_text(&mut members, "name", &before)?, "name")?;
    let input = input_text(members.shift_remove("input").as_ref());
    Ok(with_rest(Content::ToolUse { id, name, input }, members))
}

fn tool_result(mut members: Object, path: &str) -> Result<Block, Fault> {
    let before = format!("{path}.");
    let id = take_text(&mut members, "toolUseId", &before)?;
    let id = id.ok_or_else(|| wrong(&format!("{path}.toolUseId"), "is required"))?;
    let content = take_list(&mut members, "content", &before)?.unwrap_or_default();
    let blocks = blocks(content, &format!("{path}.content"))?;
    let is_failure = |value: Value| match value.as_str() {
        Some("success") => Some(false),
        Some("error") => Some(true),
        _ => None,
    };
    let is_error = take(&mut members, "status", &before, is_failure, "\"success\" or \"error\"")?.unwrap_or_default();
    Ok(with_rest(Content::ToolResult { id, blocks, is_error }, members))
}

fn reasoning(mut members: Object, path: &str) -> Result<Block, Fault> {
    let before = format!("{path}.");
    if let Some(data) = take_text(&mut members, "redactedContent", &before)? {
        return Ok(Block::new(Content::Redacted { data: blob::unwrap(&data) }));
    }
    let mut thought = take_object(&mut members, "reasoningText", &before)?
        .ok_or_else(|| wrong(path, "must have reasoningText or redactedContent"))?;
    let before = format!("{path}.reasoningText.");
    let text = take_text(&mut thought, "text", &before)?.unwrap_or_default();
    let signature = take_text(&mut thought, "signature", &before)?.filter(|signature| !signature.is_empty());
    Ok(Block::new(Content::Reasoning { text, signature }))
}
