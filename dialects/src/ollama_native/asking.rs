// SPDX-License-Identifier: Apache-2.0
//! Writes requests, and tells what of them the API has no place for.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::NAME;
use crate::ir::{
    Block, Content, Fault, FaultClass, Format, Message, Reasoning, Request, Role, Source, Tool, ToolChoice,
};
use crate::task::{Embed, EmbedInput, Extensions};

/// What the operator has chosen for every request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style<'s> {
    /// The model takes levels of thinking ("low", "medium", "high"); others only on and off.
    pub levels: bool,
    /// How long the model stays loaded, as Go writes durations.
    pub keep_alive: Option<&'s str>,
    /// Members of `options` where the caller says nothing.
    pub options: Option<&'s BTreeMap<String, Value>>,
}

/// Members of OpenAI's requests that are options here, under the same name.
const SHARED_OPTIONS: &[&str] = &["frequency_penalty", "presence_penalty"];

/// Writes a conversation, and the paths of what it leaves out.
#[must_use]
pub fn encode_request(request: &Request, style: &Style<'_>) -> (Vec<u8>, Vec<String>) {
    let mut writer = Writer { dropped: Vec::new() };
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(request.model.as_str()));
    body.insert("messages".to_owned(), Value::from(writer.messages(request)));
    writer.tools(request, &mut body);
    set(&mut body, "format", request.format.as_ref().map(format));
    set(&mut body, "think", writer.think(request.reasoning.as_ref(), style.levels));
    body.insert("stream".to_owned(), Value::from(request.streaming));
    set(&mut body, "keep_alive", style.keep_alive);
    let mut options = options(request);
    writer.extensions(&request.extensions, &mut options, &mut body);
    place_options(options, style, &mut body);
    if request.user.is_some() {
        writer.drop("user");
    }
    (Value::Object(body).to_string().into_bytes(), writer.dropped)
}

/// Writes a request for vectors, and the paths of what it leaves out.
///
/// # Errors
/// `invalid-request` for an input that is no text.
pub fn encode_embed(task: &Embed, style: &Style<'_>) -> Result<(Vec<u8>, Vec<String>), Fault> {
    let mut writer = Writer { dropped: Vec::new() };
    let mut texts = Vec::with_capacity(task.input.len());
    for (index, input) in task.input.iter().enumerate() {
        let text = match input {
            EmbedInput::Text(text) => Some(text.clone()),
            EmbedInput::Tokens(_) => None,
            EmbedInput::Blocks(blocks) => words(blocks),
        };
        let message = || format!("input[{index}]: this vendor makes vectors of texts only");
        texts.push(text.ok_or_else(|| Fault::new(FaultClass::InvalidRequest, message()))?);
    }
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(task.model.as_str()));
    body.insert("input".to_owned(), Value::from(texts));
    set(&mut body, "dimensions", task.dimensions);
    match task.truncate.as_deref() {
        Some("none") => set(&mut body, "truncate", Some(false)),
        Some("end") => set(&mut body, "truncate", Some(true)),
        Some(_) => writer.drop("truncate"),
        None => {}
    }
    for (index, encoding) in task.encodings.iter().enumerate() {
        if encoding != "float" {
            writer.drop(format!("encodings[{index}]"));
        }
    }
    for (stated, path) in [(task.purpose.is_some(), "purpose"), (task.user.is_some(), "user")] {
        if stated {
            writer.drop(path);
        }
    }
    set(&mut body, "keep_alive", style.keep_alive);
    let mut options = Map::new();
    writer.extensions(&task.extensions, &mut options, &mut body);
    place_options(options, style, &mut body);
    Ok((Value::Object(body).to_string().into_bytes(), writer.dropped))
}

/// The text of blocks that are nothing else.
fn words(blocks: &[Block]) -> Option<String> {
    let texts: Option<Vec<&str>> = blocks
        .iter()
        .map(|block| if let Content::Text { text, .. } = &block.content { Some(text.as_str()) } else { None })
        .collect();
    texts.map(|texts| texts.join("\n"))
}

/// The operator's options stand below the caller's, and an object that comes with the extensions below both.
fn place_options(mut options: Map<String, Value>, style: &Style<'_>, body: &mut Map<String, Value>) {
    let own = body.shift_remove("options");
    let own = own.as_ref().and_then(Value::as_object).into_iter().flatten();
    for (name, value) in own.chain(style.options.into_iter().flatten()) {
        options.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if !options.is_empty() {
        body.insert("options".to_owned(), Value::Object(options));
    }
}

fn options(request: &Request) -> Map<String, Value> {
    let mut options = Map::new();
    set(&mut options, "num_predict", request.output_tokens_max);
    set(&mut options, "temperature", request.temperature);
    set(&mut options, "top_p", request.top_p);
    set(&mut options, "top_k", request.top_k);
    set(&mut options, "seed", request.seed);
    if !request.stop.is_empty() {
        set(&mut options, "stop", Some(request.stop.clone()));
    }
    options
}

fn format(format: &Format) -> Value {
    match format {
        Format::Json => Value::from("json"),
        Format::Schema { schema, .. } => schema.clone(),
    }
}

struct Writer {
    dropped: Vec<String>,
}

/// What the blocks of one message become.
#[derive(Default)]
struct Parts {
    texts: Vec<String>,
    images: Vec<String>,
    calls: Vec<Value>,
    thinking: String,
}

impl Writer {
    fn drop(&mut self, path: impl Into<String>) {
        self.dropped.push(path.into());
    }

    fn messages(&mut self, request: &Request) -> Vec<Value> {
        let mut messages = Vec::with_capacity(request.messages.len() + 1);
        if !request.system.is_empty() {
            let parts = self.parts(&request.system, "system");
            messages.push(message("system", parts));
        }
        for (index, turn) in request.messages.iter().enumerate() {
            if turn.name.is_some() {
                self.drop(format!("messages[{index}].name"));
            }
            let path = format!("messages[{index}].blocks");
            let role = match turn.role {
                Role::User => {
                    self.user(turn, &request.messages, &path, &mut messages);
                    continue;
                }
                Role::System => "system",
                Role::Assistant => "assistant",
            };
            let parts = self.parts(&turn.blocks, &path);
            messages.push(message(role, parts));
        }
        messages
    }

    /// A user's turn: each result of a tool is a message of its own, before what the user says and what the tools show.
    fn user(&mut self, turn: &Message, all: &[Message], path: &str, messages: &mut Vec<Value>) {
        let (mut rest, mut has_results) = (Parts::default(), false);
        for (index, block) in turn.blocks.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Content::ToolResult { id, blocks, is_error } = &block.content else {
                self.block(block, &path, &mut rest);
                continue;
            };
            has_results = true;
            self.cache(block, &path);
            if *is_error {
                self.drop(format!("{path}.is_error"));
            }
            let mut told = self.parts(blocks, &format!("{path}.blocks"));
            rest.images.append(&mut told.images);
            let mut result = message("tool", told);
            // Older versions tell results apart by the tool's name, newer ones by the id of the call.
            if let Some(name) = tool_name(all, id) {
                result["tool_name"] = Value::from(name);
            }
            result["tool_call_id"] = Value::from(id.as_str());
            messages.push(result);
        }
        if !has_results || !rest.texts.is_empty() || !rest.images.is_empty() {
            messages.push(message("user", rest));
        }
    }

    fn parts(&mut self, blocks: &[Block], path: &str) -> Parts {
        let mut parts = Parts::default();
        for (index, block) in blocks.iter().enumerate() {
            self.block(block, &format!("{path}[{index}]"), &mut parts);
        }
        parts
    }

    fn block(&mut self, block: &Block, path: &str, parts: &mut Parts) {
        self.cache(block, path);
        match &block.content {
            Content::Text { text, .. } | Content::Refusal { text } => parts.texts.push(text.clone()),
            Content::Media { source: Source::Text { text }, .. } => parts.texts.push(text.clone()),
            Content::Media { kind, source: Source::Base64 { data, .. }, .. } if kind == "image" => {
                parts.images.push(data.clone());
            }
            Content::ToolUse { id, name, input } => {
                let arguments = match input.as_str() {
                    "" => Some(Map::new()),
                    input => serde_json::from_str::<Map<String, Value>>(input).ok(),
                };
                if arguments.is_none() {
                    self.drop(format!("{path}.input"));
                }
                let function = json!({ "name": name, "arguments": arguments.unwrap_or_default() });
                let call = if id.is_empty() { json!({}) } else { json!({ "id": id }) };
                parts.calls.push(with(call, "function", function));
            }
            Content::Reasoning { text, signature } => {
                parts.thinking.push_str(text);
                if signature.is_some() {
                    self.drop(format!("{path}.signature"));
                }
            }
            _ => self.drop(path),
        }
    }

    fn cache(&mut self, block: &Block, path: &str) {
        if block.cache.is_some() {
            self.drop(format!("{path}.cache"));
        }
    }

    /// There is no choice of tools: to have none called, none is offered.
    fn tools(&mut self, request: &Request, body: &mut Map<String, Value>) {
        match &request.tool_choice {
            Some(ToolChoice::None) => return,
            Some(ToolChoice::Required | ToolChoice::Tool(_)) => self.drop("tool_choice"),
            Some(ToolChoice::Auto) | None => {}
        }
        let numbered = request.tools.iter().enumerate();
        let tools: Vec<Value> =
            numbered.filter_map(|(index, tool)| self.tool(tool, &format!("tools[{index}]"))).collect();
        if !tools.is_empty() {
            body.insert("tools".to_owned(), Value::from(tools));
        }
        if request.parallel_tools == Some(false) {
            self.drop("parallel_tools");
        }
    }

    fn tool(&mut self, tool: &Tool, path: &str) -> Option<Value> {
        if tool.opaque.is_some() {
            self.drop(path);
            return None;
        }
        for (said, member) in [(tool.strict == Some(true), "strict"), (tool.cache.is_some(), "cache")] {
            if said {
                self.drop(format!("{path}.{member}"));
            }
        }
        let mut function = Map::new();
        function.insert("name".to_owned(), Value::from(tool.name.as_str()));
        set(&mut function, "description", tool.description.as_deref());
        let none = json!({ "type": "object", "properties": {} });
        let parameters = if tool.parameters.is_object() { tool.parameters.clone() } else { none };
        function.insert("parameters".to_owned(), parameters);
        Some(json!({ "type": "function", "function": function }))
    }

    fn think(&mut self, stated: Option<&Reasoning>, levels: bool) -> Option<Value> {
        let Reasoning { enabled, effort, budget_tokens } = stated?;
        if budget_tokens.is_some() {
            self.drop("reasoning.budget_tokens");
        }
        if *enabled == Some(false) || effort.as_deref() == Some("none") {
            return Some(Value::from(false));
        }
        Some(match effort.as_deref() {
            Some("minimal" | "low") if levels => Value::from("low"),
            Some("medium") if levels => Value::from("medium"),
            Some(_) if levels => Value::from("high"),
            effort => {
                if effort.is_some() {
                    self.drop("reasoning.effort");
                }
                Value::from(true)
            }
        })
    }

    fn extensions(&mut self, extensions: &Extensions, options: &mut Map<String, Value>, body: &mut Map<String, Value>) {
        for (dialect, members) in extensions {
            for (name, value) in members {
                if dialect == NAME {
                    body.entry(name.clone()).or_insert_with(|| value.clone());
                } else if dialect == crate::openai_chat::NAME && SHARED_OPTIONS.contains(&name.as_str()) {
                    options.entry(name.clone()).or_insert_with(|| value.clone());
                } else if !is_said(name) && !says_nothing(value) {
                    self.drop(name);
                }
            }
        }
    }
}

/// Members that have become [`Request::reasoning`].
fn is_said(name: &str) -> bool {
    matches!(name, "enable_thinking" | "thinking_budget" | "thinking" | "reasoning")
}

/// Whether a member asks for what would happen anyway.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Number(_) | Value::Bool(true) | Value::String(_) => false,
    }
}

/// The name of the tool that was called under an id.
fn tool_name<'m>(messages: &'m [Message], wanted: &str) -> Option<&'m str> {
    let mut blocks = messages.iter().rev().flat_map(|message| message.blocks.iter().rev());
    blocks.find_map(|block| match &block.content {
        Content::ToolUse { id, name, .. } if id == wanted => Some(name.as_str()),
        _ => None,
    })
}

fn message(role: &str, parts: Parts) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), Value::from(role));
    message.insert("content".to_owned(), Value::from(parts.texts.join("\n")));
    if !parts.thinking.is_empty() {
        message.insert("thinking".to_owned(), Value::from(parts.thinking));
    }
    for (name, list) in [("images", parts.images.into_iter().map(Value::from).collect()), ("tool_calls", parts.calls)] {
        let list: Vec<Value> = list;
        if !list.is_empty() {
            message.insert(name.to_owned(), Value::from(list));
        }
    }
    Value::Object(message)
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn set(members: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        members.insert(name.to_owned(), value.into());
    }
}
