// SPDX-License-Identifier: Apache-2.0
//! Reads a caller's request. Strict about what it understands, and every refusal names the path; what it does not know
//! goes into the extensions of this dialect. `null` is read as absent everywhere.
//!
//! Normalised on the way (a request that is read and written again differs in this only): leading system and developer
//! messages become one system message; `functions` and `function_call` become tools; `max_completion_tokens` becomes
//! the output limit; a `stop` string becomes a list; a cache mark on a message moves to its last part; the names of
//! reasoning members become `reasoning_content`; ids of legacy function calls are made up.

use serde_json::{Map, Value};

use super::{NAME, content};
use crate::ir::{Fault, FaultClass, Format, Message, Reasoning, Request, Role, Tool, ToolChoice};

/// Reads a request.
pub(super) fn decode(body: &[u8]) -> Result<Request, Fault> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Fault::new(FaultClass::InvalidRequest, format!("the body is not JSON: {error}")))?;
    let Value::Object(mut members) = value else {
        return Err(Fault::new(FaultClass::InvalidRequest, "the body must be a JSON object"));
    };
    members.retain(|_, value| !value.is_null());
    let mut request = Request { model: required_text(&mut members, "model")?, ..Request::default() };
    conversation(&mut members, &mut request)?;
    tools(&mut members, &mut request)?;
    sampling(&mut members, &mut request)?;
    request.format = format(&mut members)?;
    reasoning(&mut members, &mut request)?;
    if !members.is_empty() {
        request.extensions.insert(NAME.to_owned(), members.into_iter().collect());
    }
    Ok(request)
}

/// A refusal that names the path of what is wrong.
pub(super) fn wrong(path: &str, what: &str) -> Fault {
    Fault::new(FaultClass::InvalidRequest, format!("{path}: {what}"))
}

/// A member that must be a string.
pub(super) fn required_text(members: &mut Map<String, Value>, name: &str) -> Result<String, Fault> {
    text(members, name)?.ok_or_else(|| wrong(name, "is required"))
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Fault> {
    match members.shift_remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(name, "must be a string")),
    }
}

fn boolean(members: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Fault> {
    match members.shift_remove(name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(wrong(name, "must be true or false")),
    }
}

fn number(members: &mut Map<String, Value>, name: &str) -> Result<Option<f64>, Fault> {
    let value = members.shift_remove(name);
    value.map(|value| value.as_f64().ok_or_else(|| wrong(name, "must be a number"))).transpose()
}

fn whole_number(members: &mut Map<String, Value>, name: &str) -> Result<Option<u64>, Fault> {
    let value = members.shift_remove(name);
    value.map(|value| value.as_u64().ok_or_else(|| wrong(name, "must be a whole number, not negative"))).transpose()
}

fn list(members: &mut Map<String, Value>, name: &str) -> Result<Option<Vec<Value>>, Fault> {
    match members.shift_remove(name) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(wrong(name, "must be a list")),
    }
}

fn conversation(members: &mut Map<String, Value>, request: &mut Request) -> Result<(), Fault> {
    let messages = list(members, "messages")?.ok_or_else(|| wrong("messages", "is required"))?;
    if messages.is_empty() {
        return Err(wrong("messages", "must have at least one message"));
    }
    let mut legacy_id = String::new();
    for (index, message) in messages.into_iter().enumerate() {
        let path = format!("messages[{index}]");
        let Value::Object(message) = message else { return Err(wrong(&path, "must be an object")) };
        let message = content::message(message, &path, index, &mut legacy_id)?;
        if message.role == Role::System && message.name.is_none() && request.messages.is_empty() {
            request.system.extend(message.blocks);
        } else if !joins_results(request.messages.last(), &message) {
            request.messages.push(message);
        } else if let Some(last) = request.messages.last_mut() {
            last.blocks.extend(message.blocks);
        }
    }
    Ok(())
}

/// Whether both messages are results of tools: those of one turn belong together.
fn joins_results(last: Option<&Message>, message: &Message) -> bool {
    last.is_some_and(|last| content::is_results(last) && content::is_results(message))
}

fn tools(members: &mut Map<String, Value>, request: &mut Request) -> Result<(), Fault> {
    for (index, tool) in list(members, "tools")?.unwrap_or_default().into_iter().enumerate() {
        request.tools.push(self::tool(tool, &format!("tools[{index}]"))?);
    }
    for (index, function) in list(members, "functions")?.unwrap_or_default().into_iter().enumerate() {
        request.tools.push(function_tool(function, None, &format!("functions[{index}]"))?);
    }
    request.tool_choice = match (members.shift_remove("tool_choice"), members.shift_remove("function_call")) {
        (Some(choice), _) => match tool_choice(&choice) {
            Some(choice) => Some(choice),
            // Custom and allowed tools: known to OpenAI only.
            None if choice.is_object() => {
                members.insert("tool_choice".to_owned(), choice);
                None
            }
            None => return Err(wrong("tool_choice", "must be none, auto, required or an object")),
        },
        (None, Some(Value::Object(call))) => {
            let name = call.get("name").and_then(Value::as_str);
            Some(ToolChoice::Tool(name.ok_or_else(|| wrong("function_call.name", "is required"))?.to_owned()))
        }
        (None, Some(choice)) => {
            Some(tool_choice(&choice).ok_or_else(|| wrong("function_call", "must be none, auto or an object"))?)
        }
        (None, None) => None,
    };
    request.parallel_tools = boolean(members, "parallel_tool_calls")?;
    Ok(())
}

fn tool(tool: Value, path: &str) -> Result<Tool, Fault> {
    let Value::Object(mut members) = tool else { return Err(wrong(path, "must be an object")) };
    let is_function = members.get("type").is_none_or(|kind| kind == "function");
    if !is_function {
        let opaque = Some((NAME.to_owned(), Value::Object(members)));
        return Ok(Tool { opaque, ..Tool::default() });
    }
    let cache = members.shift_remove("cache_control").filter(|mark| !mark.is_null());
    let function = members.shift_remove("function").ok_or_else(|| wrong(&format!("{path}.function"), "is required"))?;
    function_tool(function, cache, &format!("{path}.function"))
}

fn function_tool(function: Value, cache: Option<Value>, path: &str) -> Result<Tool, Fault> {
    let Value::Object(mut members) = function else { return Err(wrong(path, "must be an object")) };
    members.retain(|_, value| !value.is_null());
    let at = |fault: Fault| Fault { message: format!("{path}.{}", fault.message), ..fault };
    Ok(Tool {
        name: required_text(&mut members, "name").map_err(at)?,
        description: text(&mut members, "description").map_err(at)?,
        strict: boolean(&mut members, "strict").map_err(at)?,
        parameters: members.shift_remove("parameters").unwrap_or(Value::Null),
        cache,
        ..Tool::default()
    })
}

fn tool_choice(choice: &Value) -> Option<ToolChoice> {
    match choice {
        Value::String(word) => match word.as_str() {
            "auto" => Some(ToolChoice::Auto),
            "none" => Some(ToolChoice::None),
            "required" | "any" => Some(ToolChoice::Required),
            _ => None,
        },
        choice => choice["function"]["name"].as_str().map(|name| ToolChoice::Tool(name.to_owned())),
    }
}

fn sampling(members: &mut Map<String, Value>, request: &mut Request) -> Result<(), Fault> {
    let completion = whole_number(members, "max_completion_tokens")?;
    request.output_tokens_max = completion.or(whole_number(members, "max_tokens")?);
    request.temperature = number(members, "temperature")?;
    request.top_p = number(members, "top_p")?;
    request.top_k = whole_number(members, "top_k")?;
    request.stop = match members.shift_remove("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(stop) => {
            serde_json::from_value(stop).map_err(|_| wrong("stop", "must be a string or a list of strings"))?
        }
    };
    let seed = members.shift_remove("seed");
    request.seed = seed.map(|seed| seed.as_i64().ok_or_else(|| wrong("seed", "must be a whole number"))).transpose()?;
    request.user = text(members, "user")?;
    request.streaming = boolean(members, "stream")?.unwrap_or_default();
    if let Some(options) = members.get_mut("stream_options") {
        let options = options.as_object_mut().ok_or_else(|| wrong("stream_options", "must be an object"))?;
        options.retain(|_, value| !value.is_null());
        request.stream_usage = match options.shift_remove("include_usage") {
            None => false,
            Some(Value::Bool(asked)) => asked,
            Some(_) => return Err(wrong("stream_options.include_usage", "must be true or false")),
        };
        if options.is_empty() {
            members.shift_remove("stream_options");
        }
    }
    Ok(())
}

fn format(members: &mut Map<String, Value>) -> Result<Option<Format>, Fault> {
    let Some(mut format) = members.shift_remove("response_format") else { return Ok(None) };
    if !format.is_object() {
        return Err(wrong("response_format", "must be an object"));
    }
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Format::Json)),
        Some("json_schema") | None if format["json_schema"].is_object() => {
            let stated = &mut format["json_schema"];
            Ok(Some(Format::Schema {
                schema: stated["schema"].take(),
                name: stated["name"].as_str().map(str::to_owned),
                description: stated["description"].as_str().map(str::to_owned),
                strict: stated["strict"].as_bool(),
            }))
        }
        Some("json_schema") => Err(wrong("response_format.json_schema", "must be an object")),
        Some(_) => {
            members.insert("response_format".to_owned(), format);
            Ok(None)
        }
        None => Err(wrong("response_format.type", "must be a string")),
    }
}

/// How much to think. Vendors have their own members for that beside `reasoning_effort`; they are understood, and kept
/// as extensions, since what they say beyond effort has no other place in this dialect.
fn reasoning(members: &mut Map<String, Value>, request: &mut Request) -> Result<(), Fault> {
    if members.get("reasoning_effort").is_some_and(|effort| !effort.is_string()) {
        return Err(wrong("reasoning_effort", "must be a string"));
    }
    request.reasoning = stated_reasoning(members);
    members.shift_remove("reasoning_effort");
    Ok(())
}

/// How much to think, in whichever members it is said; none if it is not.
pub(super) fn stated_reasoning(members: &Map<String, Value>) -> Option<Reasoning> {
    let member = |name: &str| members.get(name).unwrap_or(&Value::Null);
    let effort = member("reasoning_effort").as_str().map(str::to_owned);
    let mut stated = Reasoning { effort, ..Reasoning::default() };
    if let reasoning @ Value::Object(_) = member("reasoning") {
        stated.enabled = reasoning["enabled"].as_bool();
        stated.budget_tokens = reasoning["max_tokens"].as_u64();
        stated.effort = stated.effort.or_else(|| reasoning["effort"].as_str().map(str::to_owned));
    }
    if let thinking @ Value::Object(_) = member("thinking") {
        stated.enabled = thinking["type"].as_str().map(|kind| kind != "disabled").or(stated.enabled);
        stated.budget_tokens = thinking["budget_tokens"].as_u64().or(stated.budget_tokens);
    }
    stated.enabled = member("enable_thinking").as_bool().or(stated.enabled);
    stated.budget_tokens = member("thinking_budget").as_u64().or(stated.budget_tokens);
    Some(stated).filter(|stated| *stated != Reasoning::default())
}
