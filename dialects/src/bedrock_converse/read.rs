// SPDX-License-Identifier: Apache-2.0
//! A caller's request into the canonical form. Members without a canonical place become extensions, so that a vendor of
//! the same dialect gets them again.

use serde_json::{Map, Value};

use super::NAME;
use super::read_blocks::{self, cache_mark};
use crate::ir::{Fault, FaultClass, Format, Message, Reasoning, Request, Role, Tool, ToolChoice};

type Object = Map<String, Value>;

/// Reads a request for an answer, or for a count: `{"input": {"converse": …}}`.
pub(super) fn request(body: &[u8]) -> Result<Request, Fault> {
    let invalid = |what: String| Fault::new(FaultClass::InvalidRequest, what);
    let mut members = match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => members,
        Ok(_) => return Err(invalid("the body must be a JSON object".to_owned())),
        Err(error) => return Err(invalid(format!("the body is not JSON: {error}"))),
    };
    if !members.contains_key("messages")
        && let Some(mut input) = take_object(&mut members, "input", "")?
    {
        let converse = take_object(&mut input, "converse", "input.")?;
        members = converse
            .ok_or_else(|| wrong("input.converse", "is required: bodies of other APIs are not counted here"))?;
    }
    conversation(members)
}

fn conversation(mut members: Object) -> Result<Request, Fault> {
    members.retain(|_, value| !value.is_null());
    // The model stands in the path, and streams always tell their usage.
    let mut request = Request { stream_usage: true, ..Request::default() };
    if let Some(system) = take_list(&mut members, "system", "")? {
        request.system = read_blocks::blocks(system, "system")?;
    }
    messages(&mut members, &mut request)?;
    inference(&mut members, &mut request)?;
    tools(&mut members, &mut request)?;
    model_fields(&mut members, &mut request)?;
    output(&mut members, &mut request)?;
    if !members.is_empty() {
        request.extensions.insert(NAME.to_owned(), members.into_iter().collect());
    }
    Ok(request)
}

/// A refusal that names the path of what is wrong.
pub(super) fn wrong(path: &str, what: &str) -> Fault {
    Fault::new(FaultClass::InvalidRequest, format!("{path}: {what}"))
}

/// Takes a member; null is absent. `read` says what it must be.
pub(super) fn take<T>(
    members: &mut Object,
    name: &str,
    before: &str,
    read: impl Fn(Value) -> Option<T>,
    what: &str,
) -> Result<Option<T>, Fault> {
    let Some(value) = members.shift_remove(name).filter(|value| !value.is_null()) else { return Ok(None) };
    read(value).map(Some).ok_or_else(|| wrong(&format!("{before}{name}"), &format!("must be {what}")))
}

pub(super) fn take_text(members: &mut Object, name: &str, before: &str) -> Result<Option<String>, Fault> {
    let text = |value| if let Value::String(text) = value { Some(text) } else { None };
    take(members, name, before, text, "a string")
}

pub(super) fn take_list(members: &mut Object, name: &str, before: &str) -> Result<Option<Vec<Value>>, Fault> {
    take(members, name, before, |value| if let Value::Array(list) = value { Some(list) } else { None }, "a list")
}

pub(super) fn take_object(members: &mut Object, name: &str, before: &str) -> Result<Option<Object>, Fault> {
    take(
        members,
        name,
        before,
        |value| if let Value::Object(object) = value { Some(object) } else { None },
        "an object",
    )
}

fn take_tokens(members: &mut Object, name: &str, before: &str) -> Result<Option<u64>, Fault> {
    take(members, name, before, |value| value.as_u64(), "a whole number, not negative")
}

/// What is left of an object stays, as an extension.
fn give_back(members: &mut Object, name: &str, rest: Object) {
    if !rest.is_empty() {
        members.insert(name.to_owned(), Value::Object(rest));
    }
}

fn messages(members: &mut Object, request: &mut Request) -> Result<(), Fault> {
    let Some(list) = take_list(members, "messages", "")? else {
        // A prompt from the vendor's store brings its own.
        return if members.contains_key("promptVariables") { Ok(()) } else { Err(wrong("messages", "is required")) };
    };
    for (index, json) in list.into_iter().enumerate() {
        let path = format!("messages[{index}]");
        let Value::Object(mut members) = json else { return Err(wrong(&path, "must be an object")) };
        let before = format!("{path}.");
        let role = match take_text(&mut members, "role", &before)?.as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => Role::System,
            Some(other) => {
                return Err(wrong(
                    &format!("{path}.role"),
                    &format!("must be \"user\" or \"assistant\", not \"{other}\""),
                ));
            }
            None => return Err(wrong(&format!("{path}.role"), "is required")),
        };
        let content = take_list(&mut members, "content", &before)?;
        let content = content.ok_or_else(|| wrong(&format!("{path}.content"), "is required"))?;
        let blocks = read_blocks::blocks(content, &format!("{path}.content"))?;
        request.messages.push(Message { role, name: None, blocks });
    }
    Ok(())
}

fn inference(members: &mut Object, request: &mut Request) -> Result<(), Fault> {
    let Some(mut config) = take_object(members, "inferenceConfig", "")? else { return Ok(()) };
    let before = "inferenceConfig.";
    let number = |config: &mut Object, name| take(config, name, before, |value| value.as_f64(), "a number");
    request.output_tokens_max = take_tokens(&mut config, "maxTokens", before)?;
    request.temperature = number(&mut config, "temperature")?;
    request.top_p = number(&mut config, "topP")?;
    for (index, sequence) in
        take_list(&mut config, "stopSequences", before)?.unwrap_or_default().into_iter().enumerate()
    {
        let Value::String(sequence) = sequence else {
            return Err(wrong(&format!("inferenceConfig.stopSequences[{index}]"), "must be a string"));
        };
        request.stop.push(sequence);
    }
    give_back(members, "inferenceConfig", config);
    Ok(())
}

fn tools(members: &mut Object, request: &mut Request) -> Result<(), Fault> {
    let Some(mut config) = take_object(members, "toolConfig", "")? else { return Ok(()) };
    for (index, json) in take_list(&mut config, "tools", "toolConfig.")?.unwrap_or_default().into_iter().enumerate() {
        let path = format!("toolConfig.tools[{index}]");
        let Value::Object(mut union) = json else { return Err(wrong(&path, "must be an object")) };
        if let (Some(mark), Some(last)) = (union.get("cachePoint"), request.tools.last_mut())
            && last.cache.is_none()
        {
            last.cache = Some(cache_mark(mark));
            continue;
        }
        let Some(spec) = take_object(&mut union, "toolSpec", &format!("{path}."))? else {
            let name = union.get("systemTool").and_then(|tool| tool["name"].as_str()).unwrap_or_default().to_owned();
            let opaque = Some((NAME.to_owned(), Value::Object(union)));
            request.tools.push(Tool { name, opaque, ..Tool::default() });
            continue;
        };
        request.tools.push(tool(spec, &format!("{path}.toolSpec"))?);
    }
    if let Some(choice) = take_object(&mut config, "toolChoice", "toolConfig.")? {
        request.tool_choice = Some(tool_choice(&choice)?);
    }
    give_back(members, "toolConfig", config);
    Ok(())
}

fn tool(mut spec: Object, path: &str) -> Result<Tool, Fault> {
    let before = format!("{path}.");
    let name = take_text(&mut spec, "name", &before)?.ok_or_else(|| wrong(&format!("{path}.name"), "is required"))?;
    let description = take_text(&mut spec, "description", &before)?;
    let strict = take(&mut spec, "strict", &before, |value| value.as_bool(), "true or false")?;
    let mut schema = take_object(&mut spec, "inputSchema", &before)?.unwrap_or_default();
    let parameters =
        schema.shift_remove("json").ok_or_else(|| wrong(&format!("{path}.inputSchema.json"), "is required"))?;
    let mut tool = Tool { name, description, parameters, strict, ..Tool::default() };
    if !spec.is_empty() {
        tool.extensions.insert(NAME.to_owned(), spec.into_iter().collect());
    }
    Ok(tool)
}

fn tool_choice(choice: &Object) -> Result<ToolChoice, Fault> {
    if choice.contains_key("auto") {
        return Ok(ToolChoice::Auto);
    }
    if choice.contains_key("any") {
        return Ok(ToolChoice::Required);
    }
    match choice.get("tool").map(|tool| tool["name"].as_str()) {
        Some(Some(name)) => Ok(ToolChoice::Tool(name.to_owned())),
        Some(None) => Err(wrong("toolConfig.toolChoice.tool.name", "is required")),
        None => Err(wrong("toolConfig.toolChoice", "must have auto, any or tool")),
    }
}

/// `additionalModelRequestFields`: what the models behind the API call the same thing by their own names.
fn model_fields(members: &mut Object, request: &mut Request) -> Result<(), Fault> {
    let name = "additionalModelRequestFields";
    let Some(mut fields) = take_object(members, name, "")? else { return Ok(()) };
    let before = "additionalModelRequestFields.";
    request.top_k = take_tokens(&mut fields, "top_k", before)?;
    for name in ["thinking", "reasoning_config"] {
        if let Some(thinking) = take_object(&mut fields, name, before)? {
            let path = format!("{before}{name}");
            request.reasoning = Some(reasoning(thinking, &path, &mut fields)?);
        }
    }
    // Nova's.
    if let Some(config) = take_object(&mut fields, "reasoningConfig", before)? {
        let effort = config.get("maxReasoningEffort").and_then(Value::as_str).map(str::to_owned);
        let enabled = Some(config.get("type").and_then(Value::as_str) != Some("disabled"));
        request.reasoning = Some(Reasoning { enabled, effort, budget_tokens: None });
    }
    if let Some(mut config) = take_object(&mut fields, "inferenceConfig", before)? {
        let nova_top_k = take_tokens(&mut config, "topK", "additionalModelRequestFields.inferenceConfig.")?;
        request.top_k = request.top_k.or(nova_top_k);
        give_back(&mut fields, "inferenceConfig", config);
    }
    // OpenAI's.
    if let Some(effort) = take_text(&mut fields, "reasoning_effort", before)? {
        request.reasoning = Some(Reasoning { enabled: None, effort: Some(effort), budget_tokens: None });
    }
    give_back(members, name, fields);
    Ok(())
}

fn reasoning(mut thinking: Object, path: &str, fields: &mut Object) -> Result<Reasoning, Fault> {
    let before = format!("{path}.");
    let kind = take_text(&mut thinking, "type", &before)?.unwrap_or_default();
    let budget_tokens = take_tokens(&mut thinking, "budget_tokens", &before)?;
    let enabled = match kind.as_str() {
        "enabled" | "adaptive" => true,
        "disabled" => false,
        _ => return Err(wrong(&format!("{path}.type"), "must be \"enabled\", \"adaptive\" or \"disabled\"")),
    };
    give_back(fields, "thinking", thinking);
    Ok(Reasoning { enabled: Some(enabled), effort: None, budget_tokens })
}

/// `outputConfig`: a schema as JSON text, and an effort.
fn output(members: &mut Object, request: &mut Request) -> Result<(), Fault> {
    let Some(mut config) = take_object(members, "outputConfig", "")? else { return Ok(()) };
    if let Some(format) = take_object(&mut config, "textFormat", "outputConfig.")? {
        let stated = &format.get("structure").unwrap_or(&Value::Null)["jsonSchema"];
        let path = "outputConfig.textFormat.structure.jsonSchema.schema";
        let schema = match &stated["schema"] {
            Value::String(text) => {
                serde_json::from_str(text).map_err(|_| wrong(path, "must be a JSON schema as text"))?
            }
            _ => return Err(wrong(path, "must be a JSON schema as text")),
        };
        let text = |name: &str| stated[name].as_str().map(str::to_owned);
        let (name, description) = (text("name"), text("description"));
        request.format = Some(Format::Schema { name, description, schema, strict: None });
    }
    // The effort stays an extension, too: this dialect tells it apart from thinking, the canonical form does not.
    if let Some(effort) = config.get("effort").and_then(Value::as_str) {
        request.reasoning.get_or_insert_default().effort = Some(effort.to_owned());
    }
    give_back(members, "outputConfig", config);
    Ok(())
}
