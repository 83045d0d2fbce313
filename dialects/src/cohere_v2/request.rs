// SPDX-License-Identifier: Apache-2.0
//! Reads a caller's request. Strict about what it understands, and every refusal names the path; what it does not know
//! goes into the extensions of this dialect. `null` is read as absent everywhere.
//!
//! Normalised on the way (a request that is read and written again differs in this only): leading system messages become
//! one; `k: 0`, which switches sampling by k off, is absent; a part of text that is all of a content becomes a string; a
//! text that is empty beside calls goes, and so does an empty list of documents; `strict_tools` holds for every tool.

use serde_json::Value;

use super::{NAME, messages};
use crate::ir::{Block, Content, Fault, Format, Message, Reasoning, Request, Role, Source, Tool, ToolChoice};
use crate::members::Fields;

/// Reads a request.
pub(super) fn decode(body: &[u8]) -> Result<Request, Fault> {
    let mut fields = Fields::of_body(body)?;
    let mut request = Request { model: fields.required_text("model")?, ..Request::default() };
    conversation(&mut fields, &mut request)?;
    documents(&mut fields, &mut request);
    tools(&mut fields, &mut request)?;
    request.output_tokens_max = fields.count("max_tokens")?;
    request.temperature = fields.number("temperature")?;
    request.top_p = fields.number("p")?;
    request.top_k = fields.count("k")?.filter(|k| *k > 0);
    request.stop = fields.texts("stop_sequences")?.unwrap_or_default();
    request.seed = fields.integer("seed")?;
    request.format = format(&mut fields)?;
    request.reasoning = reasoning(&mut fields)?;
    request.streaming = fields.flag("stream")?.unwrap_or_default();
    // A stream of this dialect always tells its usage.
    request.stream_usage = request.streaming;
    let rest = fields.rest();
    if !rest.is_empty() {
        request.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(request)
}

fn conversation(fields: &mut Fields, request: &mut Request) -> Result<(), Fault> {
    let list = fields.list("messages")?.ok_or_else(|| fields.wrong("messages", "is required"))?;
    if list.is_empty() {
        return Err(fields.wrong("messages", "must have at least one message"));
    }
    for (index, message) in list.into_iter().enumerate() {
        let message = messages::message(message, format!("messages[{index}]"))?;
        if message.role == Role::System && request.messages.is_empty() {
            request.system.extend(message.blocks);
            continue;
        }
        match request.messages.last_mut() {
            // The results of one turn belong together.
            Some(last) if messages::is_results(last) && messages::is_results(&message) => {
                last.blocks.extend(message.blocks);
            }
            _ => request.messages.push(message),
        }
    }
    Ok(())
}

/// Documents become blocks of what the user said last, before what is said of them. Without such a turn they stay as they
/// are.
fn documents(fields: &mut Fields, request: &mut Request) {
    let Some(Value::Array(documents)) = fields.peek("documents") else { return };
    let is_said = |message: &&mut Message| message.role == Role::User && !messages::is_results(message);
    let Some(last) = request.messages.iter_mut().rev().find(is_said) else { return };
    let blocks = documents.iter().map(document).collect::<Vec<_>>();
    last.blocks.splice(0..0, blocks);
    fields.take("documents");
}

/// A document block that keeps the document as it came.
fn document(raw: &Value) -> Block {
    let (title, text) = document_text(raw);
    let content = Content::Media { kind: "document".to_owned(), source: Source::Text { text }, title, detail: None };
    messages::with_document(content, raw.clone())
}

/// Title and text of a document: a string, or `{"data", "id"}` whose data is a string or an object.
pub(super) fn document_text(document: &Value) -> (Option<String>, String) {
    let data = if document.is_object() { &document["data"] } else { document };
    let Value::Object(members) = data else {
        return (None, data.as_str().map_or_else(|| data.to_string(), str::to_owned));
    };
    let title = members.get("title").and_then(Value::as_str).map(str::to_owned);
    let mut others = members.iter().filter(|(name, value)| !(name.as_str() == "title" && value.is_string()));
    match (others.next(), others.next()) {
        (Some((_, Value::String(text))), None) => (title, text.clone()),
        _ => (title, data.to_string()),
    }
}

fn tools(fields: &mut Fields, request: &mut Request) -> Result<(), Fault> {
    let list = fields.list("tools")?.unwrap_or_default();
    let strict = if list.is_empty() { None } else { fields.flag("strict_tools")? };
    for (index, tool) in list.into_iter().enumerate() {
        request.tools.push(self::tool(tool, strict, &format!("tools[{index}]"))?);
    }
    request.tool_choice = match fields.text("tool_choice")?.as_deref() {
        None => None,
        Some("REQUIRED" | "required") => Some(ToolChoice::Required),
        Some("NONE" | "none") => Some(ToolChoice::None),
        Some("AUTO" | "auto") => Some(ToolChoice::Auto),
        Some(_) => return Err(fields.wrong("tool_choice", "must be REQUIRED or NONE")),
    };
    Ok(())
}

fn tool(value: Value, strict: Option<bool>, path: &str) -> Result<Tool, Fault> {
    if value["type"].as_str().is_some_and(|kind| kind != "function") {
        return Ok(Tool { opaque: Some((NAME.to_owned(), value)), ..Tool::default() });
    }
    let mut members = Fields::of(value, path)?;
    let function = members.take("function").ok_or_else(|| members.wrong("function", "is required"))?;
    let mut function = Fields::of(function, members.at("function"))?;
    Ok(Tool {
        name: function.required_text("name")?,
        description: function.text("description")?,
        parameters: function.take("parameters").unwrap_or(Value::Null),
        strict,
        ..Tool::default()
    })
}

fn format(fields: &mut Fields) -> Result<Option<Format>, Fault> {
    let Some(stated) = fields.take("response_format") else { return Ok(None) };
    let schema = [&stated["json_schema"], &stated["schema"]].into_iter().find(|schema| schema.is_object());
    match (stated["type"].as_str(), schema) {
        (Some("text"), _) => Ok(None),
        (Some("json_object"), None) => Ok(Some(Format::Json)),
        (Some("json_object"), Some(schema)) => {
            Ok(Some(Format::Schema { name: None, description: None, schema: schema.clone(), strict: None }))
        }
        _ => Err(fields.wrong("response_format.type", "must be text or json_object")),
    }
}

fn reasoning(fields: &mut Fields) -> Result<Option<Reasoning>, Fault> {
    let Some(stated) = fields.take("thinking") else { return Ok(None) };
    let mut stated = Fields::of(stated, "thinking")?;
    let enabled = match stated.required_text("type")?.as_str() {
        "enabled" => true,
        "disabled" => false,
        _ => return Err(stated.wrong("type", "must be enabled or disabled")),
    };
    Ok(Some(Reasoning { enabled: Some(enabled), budget_tokens: stated.count("token_budget")?, effort: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn the_text_of_a_document_is_found_wherever_it_stands() {
        let cases = [
            (json!("plain"), None, "plain"),
            (json!({"data": "text"}), None, "text"),
            (json!({"id": "1", "data": {"title": "T", "snippet": "s"}}), Some("T"), "s"),
            (json!({"data": {"a": "x", "b": 1}}), None, r#"{"a":"x","b":1}"#),
        ];
        for (raw, title, text) in cases {
            assert_eq!(document_text(&raw), (title.map(str::to_owned), text.to_owned()), "{raw}");
        }
    }
}
