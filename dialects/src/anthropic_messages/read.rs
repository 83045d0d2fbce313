// SPDX-License-Identifier: Apache-2.0
//! A caller's request into the canonical form. Members without a canonical place become extensions, so that a vendor of
//! the same dialect gets them again.

use serde_json::{Map, Value};

use super::NAME;
use super::read_blocks::{At, content};
use crate::ir::{Fault, FaultClass, Format, Members, Message, Reasoning, Request, Role, Tool, ToolChoice};

/// Reads a request for an answer or for a count.
pub(super) fn request(body: &[u8]) -> Result<Request, Fault> {
    let invalid = |what: String| Fault::new(FaultClass::InvalidRequest, what);
    let members = match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => members,
        Ok(_) => return Err(invalid("the body must be a JSON object".to_owned())),
        Err(error) => return Err(invalid(format!("the body is not JSON: {error}"))),
    };
    let mut body = Body { members, at: At::ROOT };
    let mut request = Request {
        model: body.text("model")?.ok_or_else(|| At::ROOT.member("model").wrong("is required"))?,
        messages: messages(&mut body)?,
        tools: tools(&mut body)?,
        output_tokens_max: body.whole_number("max_tokens")?,
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        top_k: body.whole_number("top_k")?,
        stop: stop(&mut body)?,
        streaming: body.boolean("stream")?.unwrap_or_default(),
        ..Request::default()
    };
    // Streams of this dialect always tell their usage.
    request.stream_usage = request.streaming;
    if let Some(value) = body.taken("system") {
        request.system = content(value, At::ROOT, "system")?;
    }
    tool_choice(&mut body, &mut request)?;
    if let Some(mut metadata) = body.object("metadata")? {
        request.user = metadata.text("user_id")?;
        body.give_back("metadata", metadata.members);
    }
    thinking(&mut body, &mut request)?;
    output(&mut body, &mut request)?;
    let rest: Members = body.members.into_iter().filter(|(_, value)| !value.is_null()).collect();
    if !rest.is_empty() {
        request.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(request)
}

/// An object's members, taken one by one.
struct Body<'a> {
    members: Map<String, Value>,
    at: At<'a>,
}

impl Body<'_> {
    fn taken(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name).filter(|value| !value.is_null())
    }

    fn typed<T>(&mut self, name: &str, read: impl Fn(&Value) -> Option<T>, what: &str) -> Result<Option<T>, Fault> {
        let Some(value) = self.taken(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.at.member(name).wrong(&format!("must be {what}")))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.typed(name, |value| value.as_str().map(str::to_owned), "a string")
    }

    fn whole_number(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        self.typed(name, Value::as_u64, "a whole number")
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>, Fault> {
        self.typed(name, Value::as_f64, "a number")
    }

    fn boolean(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        self.typed(name, Value::as_bool, "true or false")
    }

    fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Fault> {
        self.typed(name, |value| value.as_array().cloned(), "a list")
    }

    fn object(&mut self, name: &'static str) -> Result<Option<Body<'static>>, Fault> {
        match self.taken(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Body { members, at: AT_ROOT.member(name) })),
            Some(_) => Err(self.at.member(name).wrong("must be an object")),
        }
    }

    /// What is left of an object stays, as an extension.
    fn give_back(&mut self, name: &str, rest: Map<String, Value>) {
        if !rest.is_empty() {
            self.members.insert(name.to_owned(), Value::Object(rest));
        }
    }
}

/// The request as a whole, with an address that lives as long as the paths that lead from it.
static AT_ROOT: At<'static> = At::ROOT;

fn messages(body: &mut Body<'_>) -> Result<Vec<Message>, Fault> {
    let Some(list) = body.list("messages")? else { return Err(body.at.member("messages").wrong("is required")) };
    if list.is_empty() {
        return Err(body.at.member("messages").wrong("must not be empty"));
    }
    list.into_iter().enumerate().map(|(index, json)| message(json, At::ROOT.element("messages", index))).collect()
}

fn message(json: Value, at: At<'_>) -> Result<Message, Fault> {
    let Value::Object(mut members) = json else { return Err(at.wrong("must be an object")) };
    let role = match members.get("role").and_then(Value::as_str) {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        Some(other) => {
            return Err(at.member("role").wrong(&format!("must be \"user\" or \"assistant\", not \"{other}\"")));
        }
        None => return Err(at.member("role").wrong("is required")),
    };
    let Some(value) = members.shift_remove("content") else { return Err(at.member("content").wrong("is required")) };
    Ok(Message { role, name: None, blocks: content(value, at, "content")? })
}

fn tools(body: &mut Body<'_>) -> Result<Vec<Tool>, Fault> {
    let list = body.list("tools")?.unwrap_or_default();
    list.into_iter().enumerate().map(|(index, json)| tool(json, At::ROOT.element("tools", index))).collect()
}

fn tool(json: Value, at: At<'_>) -> Result<Tool, Fault> {
    let Value::Object(members) = json else { return Err(at.wrong("must be an object")) };
    if members.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "custom") {
        let name = members.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        return Ok(Tool { name, opaque: Some((NAME.to_owned(), Value::Object(members))), ..Tool::default() });
    }
    let mut body = Body { members, at };
    body.taken("type");
    let mut tool = Tool {
        name: body.text("name")?.ok_or_else(|| at.member("name").wrong("is required"))?,
        description: body.text("description")?,
        strict: body.boolean("strict")?,
        cache: body.taken("cache_control"),
        ..Tool::default()
    };
    tool.parameters = match body.taken("input_schema") {
        Some(schema @ Value::Object(_)) => schema,
        Some(_) => return Err(at.member("input_schema").wrong("must be an object")),
        None => return Err(at.member("input_schema").wrong("is required")),
    };
    let rest: Members = body.members.into_iter().filter(|(_, value)| !value.is_null()).collect();
    if !rest.is_empty() {
        tool.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(tool)
}

fn tool_choice(body: &mut Body<'_>, request: &mut Request) -> Result<(), Fault> {
    let Some(mut choice) = body.object("tool_choice")? else { return Ok(()) };
    let kind = choice.text("type")?.unwrap_or_default();
    request.tool_choice = Some(match kind.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => match choice.text("name")? {
            Some(name) => ToolChoice::Tool(name),
            None => return Err(choice.at.member("name").wrong("is required")),
        },
        _ => return Err(choice.at.member("type").wrong("must be \"auto\", \"any\", \"tool\" or \"none\"")),
    });
    request.parallel_tools = choice.boolean("disable_parallel_tool_use")?.map(|disabled| !disabled);
    Ok(())
}

/// `thinking`: enabled with a budget, adaptive without one, or disabled.
fn thinking(body: &mut Body<'_>, request: &mut Request) -> Result<(), Fault> {
    let Some(mut thinking) = body.object("thinking")? else { return Ok(()) };
    let kind = thinking.text("type")?.unwrap_or_default();
    let budget_tokens = thinking.whole_number("budget_tokens")?;
    let enabled = match kind.as_str() {
        "enabled" if budget_tokens.is_none() => return Err(thinking.at.member("budget_tokens").wrong("is required")),
        "enabled" | "adaptive" => true,
        "disabled" => false,
        _ => return Err(thinking.at.member("type").wrong("must be \"enabled\", \"adaptive\" or \"disabled\"")),
    };
    request.reasoning = Some(Reasoning { enabled: Some(enabled), effort: None, budget_tokens });
    body.give_back("thinking", thinking.members);
    Ok(())
}

/// `output_config`, and `output_format`, which was its `format` once.
fn output(body: &mut Body<'_>, request: &mut Request) -> Result<(), Fault> {
    if let Some(format) = body.object("output_format")? {
        request.format = Some(schema(&format)?);
    }
    let Some(mut config) = body.object("output_config")? else { return Ok(()) };
    if let Some(format) = config.taken("format") {
        let Value::Object(members) = format else { return Err(config.at.member("format").wrong("must be an object")) };
        request.format = Some(schema(&Body { members, at: config.at.member("format") })?);
    }
    // The effort stays an extension, too: this dialect tells it apart from thinking, the canonical form does not.
    if let Some(effort) = config.members.get("effort").and_then(Value::as_str) {
        request.reasoning.get_or_insert_default().effort = Some(effort.to_owned());
    }
    body.give_back("output_config", config.members);
    Ok(())
}

fn schema(format: &Body<'_>) -> Result<Format, Fault> {
    match (format.members.get("type").and_then(Value::as_str), format.members.get("schema")) {
        (Some("json_schema"), Some(schema)) => {
            Ok(Format::Schema { name: None, description: None, schema: schema.clone(), strict: None })
        }
        (Some("json_schema"), None) => Err(format.at.member("schema").wrong("is required")),
        _ => Err(format.at.member("type").wrong("must be \"json_schema\"")),
    }
}

fn stop(body: &mut Body<'_>) -> Result<Vec<String>, Fault> {
    let list = body.list("stop_sequences")?.unwrap_or_default();
    let text = |(index, value): (usize, Value)| match value {
        Value::String(text) => Ok(text),
        _ => Err(At::ROOT.element("stop_sequences", index).wrong("must be a string")),
    };
    list.into_iter().enumerate().map(text).collect()
}
