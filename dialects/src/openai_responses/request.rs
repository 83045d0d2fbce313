// SPDX-License-Identifier: Apache-2.0
//! Reads a caller's request. Strict about what it understands, and every refusal names the path; what it does not know
//! goes into the extensions of this dialect, which are always there: by them the writer of requests tells a caller of
//! this dialect from others (see [`super::asking`]).
//!
//! Normalised on the way (a request that is read and written again differs in this only): nulls and empty lists of tools
//! are left out, `input` becomes a list, a message's single text becomes a string, and `text.format` of type text, which
//! is the default, is left out.

use serde_json::Value;

use super::{NAME, items};
use crate::ir::{Block, Fault, Format, Members, Reasoning, Request, Tool, ToolChoice};
use crate::members::Fields;

/// Members instead of which, or besides which, a request may go without input.
const INPUT_ELSEWHERE: &[&str] = &["previous_response_id", "conversation", "prompt"];

/// Reads a request for an answer or for a count.
pub(super) fn decode(body: &[u8]) -> Result<Request, Fault> {
    let mut fields = Fields::of_body(body)?;
    let mut request = Request { model: fields.required_text("model")?, ..Request::default() };
    if let Some(instructions) = fields.text("instructions")? {
        request.system.push(Block::text(instructions));
    }
    match fields.take("input") {
        Some(input) => request.messages = items::messages(input)?,
        None if INPUT_ELSEWHERE.iter().any(|member| fields.peek(member).is_some()) => {}
        None => return Err(fields.wrong("input", "is required")),
    }
    for (index, tool) in fields.list("tools")?.unwrap_or_default().into_iter().enumerate() {
        request.tools.push(self::tool(tool, &format!("tools[{index}]"))?);
    }
    request.tool_choice = tool_choice(&mut fields)?;
    request.parallel_tools = fields.flag("parallel_tool_calls")?;
    request.output_tokens_max = fields.count("max_output_tokens")?;
    request.temperature = fields.number("temperature")?;
    request.top_p = fields.number("top_p")?;
    // `user` was its name before; it stays beside it as an extension, so that the vendor reads what the caller wrote.
    request.user =
        fields.text("user")?.or_else(|| fields.peek("safety_identifier").and_then(Value::as_str).map(str::to_owned));
    request.streaming = fields.flag("stream")?.unwrap_or_default();
    // Streams of this dialect always tell their usage.
    request.stream_usage = request.streaming;
    request.format = format(&mut fields)?;
    request.reasoning = reasoning(&mut fields)?;
    request.extensions.insert(NAME.to_owned(), fields.rest());
    Ok(request)
}

/// A function, which has its members at the top here; other tools are known to this dialect only.
fn tool(tool: Value, path: &str) -> Result<Tool, Fault> {
    let mut fields = Fields::of(tool, path)?;
    let kind = fields.peek("type").and_then(Value::as_str).ok_or_else(|| fields.wrong("type", "is required"))?;
    if kind != "function" {
        let name = fields.peek("name").and_then(Value::as_str).unwrap_or(kind).to_owned();
        let opaque = Some((NAME.to_owned(), Value::Object(fields.into_map())));
        return Ok(Tool { name, opaque, ..Tool::default() });
    }
    fields.take("type");
    let mut tool = Tool {
        name: fields.required_text("name")?,
        description: fields.text("description")?,
        parameters: fields.take("parameters").unwrap_or(Value::Null),
        strict: fields.flag("strict")?,
        ..Tool::default()
    };
    let mut own: Members = fields.rest();
    if tool.strict.is_none() {
        // Not stating it means something else here than in other dialects: the vendor makes the schema strict if it can.
        own.insert("strict".to_owned(), Value::Null);
    }
    if !own.is_empty() {
        tool.extensions.insert(NAME.to_owned(), own);
    }
    Ok(tool)
}

fn tool_choice(fields: &mut Fields) -> Result<Option<ToolChoice>, Fault> {
    let Some(choice) = fields.take("tool_choice") else { return Ok(None) };
    match choice.as_str() {
        Some("auto") => return Ok(Some(ToolChoice::Auto)),
        Some("none") => return Ok(Some(ToolChoice::None)),
        Some("required") => return Ok(Some(ToolChoice::Required)),
        _ => {}
    }
    if !choice.is_object() {
        return Err(fields.wrong("tool_choice", "must be none, auto, required or an object"));
    }
    if choice["type"] == "function" {
        let name = choice["name"].as_str().ok_or_else(|| fields.wrong("tool_choice.name", "is required"))?;
        return Ok(Some(ToolChoice::Tool(name.to_owned())));
    }
    // Allowed tools, server tools: known to this dialect only.
    fields.put("tool_choice", choice);
    Ok(None)
}

fn format(fields: &mut Fields) -> Result<Option<Format>, Fault> {
    let Some(mut text) = fields.object("text")? else { return Ok(None) };
    let mut read = None;
    if let Some(mut format) = text.object("format")? {
        match format.required_text("type")?.as_str() {
            "text" => {}
            "json_object" => read = Some(Format::Json),
            "json_schema" => {
                read = Some(Format::Schema {
                    schema: format.take("schema").ok_or_else(|| format.wrong("schema", "is required"))?,
                    name: format.text("name")?,
                    description: format.text("description")?,
                    strict: format.flag("strict")?,
                });
            }
            other => {
                format.put("type", other);
                text.put("format", format.into_map());
            }
        }
    }
    fields.put_rest("text", text);
    Ok(read)
}

/// How much to think; what else is said about thinking (`summary`) stays an extension.
fn reasoning(fields: &mut Fields) -> Result<Option<Reasoning>, Fault> {
    let Some(mut reasoning) = fields.object("reasoning")? else { return Ok(None) };
    let effort = reasoning.text("effort")?;
    fields.put_rest("reasoning", reasoning);
    Ok(effort.map(|effort| Reasoning { effort: Some(effort), ..Reasoning::default() }))
}
