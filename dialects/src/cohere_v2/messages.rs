// SPDX-License-Identifier: Apache-2.0
//! Reads the messages of a request: roles, parts, calls and their results, reasoning that comes back.

use serde_json::{Value, json};

use super::answer::{arguments, is_citation};
use super::{NAME, request, sealed_plan};
use crate::ir::{Block, Content, Fault, Message, Role, Source};
use crate::members::{Fields, wrong};

/// Name of the extension that holds a document as it came.
pub(super) const DOCUMENT: &str = "document";

/// Whether a message holds results of tools and nothing else.
pub(super) fn is_results(message: &Message) -> bool {
    let result = |block: &Block| matches!(block.content, Content::ToolResult { .. });
    message.role == Role::User && !message.blocks.is_empty() && message.blocks.iter().all(result)
}

/// A block that keeps the document as it came.
pub(super) fn with_document(content: Content, document: Value) -> Block {
    let mut block = Block::new(content);
    let members = [(DOCUMENT.to_owned(), document)].into_iter().collect();
    block.extensions.insert(NAME.to_owned(), members);
    block
}

/// Reads one message.
pub(super) fn message(message: Value, path: String) -> Result<Message, Fault> {
    let mut fields = Fields::of(message, path)?;
    let role = fields.required_text("role")?;
    let (role, mut blocks) = match role.as_str() {
        "system" => (Role::System, required_content(&mut fields)?),
        "user" => (Role::User, required_content(&mut fields)?),
        "assistant" => (Role::Assistant, assistant(&mut fields)?),
        "tool" => {
            let id = fields.required_text("tool_call_id")?;
            let blocks = content(&mut fields)?;
            (Role::User, vec![Block::new(Content::ToolResult { id, blocks, is_error: false })])
        }
        other => return Err(fields.wrong("role", &format!("unknown role {other:?}"))),
    };
    let mut rest = fields.rest();
    rest.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    if !rest.is_empty() {
        // An opaque block without a type: members of the message that the canonical form has no place for.
        let kept = Content::Opaque { dialect: NAME.to_owned(), json: json!({ "message": rest }) };
        match blocks.last_mut() {
            Some(Block { content: Content::ToolResult { blocks, .. }, .. }) => blocks.push(Block::new(kept)),
            _ => blocks.push(Block::new(kept)),
        }
    }
    Ok(Message { role, name: None, blocks })
}

fn required_content(fields: &mut Fields) -> Result<Vec<Block>, Fault> {
    match fields.peek("content") {
        None => Err(fields.wrong("content", "is required")),
        Some(_) => content(fields),
    }
}

/// A content: a string or a list of parts.
fn content(fields: &mut Fields) -> Result<Vec<Block>, Fault> {
    match fields.take("content") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![Block::text(text)]),
        Some(Value::Array(parts)) => {
            let path = fields.at("content");
            let read = |(index, value)| part(value, &format!("{path}[{index}]"));
            parts.into_iter().enumerate().map(read).collect()
        }
        Some(_) => Err(fields.wrong("content", "must be a string or a list of parts")),
    }
}

/// Reads one part.
pub(super) fn part(value: Value, path: &str) -> Result<Block, Fault> {
    let kind = value["type"].as_str().unwrap_or_default().to_owned();
    let mut fields = Fields::of(value.clone(), path)?;
    Ok(Block::new(match kind.as_str() {
        "" => return Err(fields.wrong("type", "is required")),
        "text" => Content::Text { text: fields.required_text("text")?, citations: Vec::new() },
        "image_url" => image(&value["image_url"]).ok_or_else(|| fields.wrong("image_url", "must have a url"))?,
        "thinking" => match fields.text("redacted")? {
            Some(data) => Content::Redacted { data },
            None => {
                let text = fields.text("thinking")?.unwrap_or_default();
                Content::Reasoning { text, signature: fields.text("signature")? }
            }
        },
        "document" => {
            let document = fields.take("document").ok_or_else(|| fields.wrong("document", "is required"))?;
            let (_, text) = request::document_text(&document);
            return Ok(with_document(Content::Text { text, citations: Vec::new() }, document));
        }
        _ => Content::Opaque { dialect: NAME.to_owned(), json: value },
    }))
}

fn image(stated: &Value) -> Option<Content> {
    let url = stated.as_str().or_else(|| stated["url"].as_str())?;
    let detail = stated["detail"].as_str().map(str::to_owned);
    Some(Content::Media { kind: "image".to_owned(), source: source(url), title: None, detail })
}

/// Where a URL points: a `data:` URL with base64 lies in the request itself.
pub(super) fn source(url: &str) -> Source {
    match url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
        Some((media_type, data)) => Source::Base64 { media_type: media_type.to_owned(), data: data.to_owned() },
        None => Source::Url { url: url.to_owned() },
    }
}

/// What the model has said: its plan, its parts, its calls.
fn assistant(fields: &mut Fields) -> Result<Vec<Block>, Fault> {
    let mut said = Vec::new();
    if let Some(text) = fields.text("tool_plan")?.filter(|plan| !plan.is_empty()) {
        said.push(Block::new(Content::Redacted { data: sealed_plan(&text) }));
    }
    said.extend(content(fields)?);
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    if !calls.is_empty() {
        said.retain(|block| !matches!(&block.content, Content::Text { text, .. } if text.is_empty()));
    }
    cite(fields.list("citations")?.unwrap_or_default(), &mut said);
    let path = fields.at("tool_calls");
    for (index, value) in calls.into_iter().enumerate() {
        said.push(call(value, format!("{path}[{index}]"))?);
    }
    Ok(said)
}

/// Citations belong to the first text, or to an empty one where there is none.
fn cite(cited: Vec<Value>, said: &mut Vec<Block>) {
    let cited: Vec<Value> = cited.into_iter().filter(is_citation).collect();
    if cited.is_empty() {
        return;
    }
    let text = said.iter_mut().find_map(|block| match &mut block.content {
        Content::Text { citations, .. } => Some(citations),
        _ => None,
    });
    match text {
        Some(citations) => citations.extend(cited),
        None => said.push(Block::new(Content::Text { text: String::new(), citations: cited })),
    }
}

fn call(value: Value, path: String) -> Result<Block, Fault> {
    let mut fields = Fields::of(value, path)?;
    let id = fields.text("id")?.unwrap_or_default();
    let function = fields.take("function").ok_or_else(|| fields.wrong("function", "is required"))?;
    let name = function["name"].as_str().ok_or_else(|| wrong(&fields.at("function.name"), "is required"))?;
    Ok(Block::new(Content::ToolUse { id, name: name.to_owned(), input: arguments(&function["arguments"]) }))
}
