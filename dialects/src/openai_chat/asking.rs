// SPDX-License-Identifier: Apache-2.0
//! Writes a request to a vendor, and tells what of it this dialect has no place for.

use serde_json::{Map, Value, json};

use super::ways::{Back, Form, OWN_MEMBERS, Thinking};
use super::{NAME, seal, writing};
use crate::ir::{Block, Content, Format, Message, Reasoning, Request, Role, Source, Tool, ToolChoice};

/// The ways in which vendors of this dialect differ in what they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Whether cache marks (`cache_control`) are understood.
    pub cache_marks: bool,
    /// Whether `top_k` is understood.
    pub top_k: bool,
    /// Name of the output limit: `max_tokens`, or `max_completion_tokens`, which OpenAI's newer models demand.
    pub output_limit: &'static str,
    /// How it is told how much to think.
    pub thinking: Thinking,
    /// Where thoughts and their seals go back.
    pub back: Back,
}

impl Default for Style {
    fn default() -> Self {
        let (thinking, back) = (Thinking::default(), Back::default());
        Self { cache_marks: false, top_k: false, output_limit: "max_tokens", thinking, back }
    }
}

/// Writes a request, and the paths of what it leaves out.
pub(super) fn encode(request: &Request, style: &Style) -> (Vec<u8>, Vec<String>) {
    let mut writer = Writer { style, dropped: Vec::new() };
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(request.model.as_str()));
    body.insert("messages".to_owned(), Value::from(writer.messages(request)));
    writer.tools(request, &mut body);
    writer.sampling(request, &mut body);
    writer.reasoning(request, &mut body);
    writer.extensions(request, &mut body);
    (Value::Object(body).to_string().into_bytes(), writer.dropped)
}

struct Writer<'s> {
    style: &'s Style,
    dropped: Vec<String>,
}

/// What the blocks of one message become.
#[derive(Default)]
struct Parts {
    content: Vec<Value>,
    calls: Vec<Value>,
    reasoning: String,
    details: Vec<Value>,
    /// Whether a detail has something that must come back.
    sealed: bool,
    refusal: String,
    extra: Vec<(Value, Option<String>)>,
    kept: Map<String, Value>,
}

impl Writer<'_> {
    fn drop(&mut self, path: impl Into<String>) {
        self.dropped.push(path.into());
    }

    fn messages(&mut self, request: &Request) -> Vec<Value> {
        let mut messages = Vec::with_capacity(request.messages.len() + 1);
        if !request.system.is_empty() {
            let parts = self.parts(&request.system, "system");
            messages.push(self.message("system", None, parts));
        }
        for (index, message) in request.messages.iter().enumerate() {
            let path = format!("messages[{index}].blocks");
            match message.role {
                Role::User => self.user(message, &path, &mut messages),
                role => {
                    let role = if role == Role::System { "system" } else { "assistant" };
                    let parts = self.parts(&message.blocks, &path);
                    if !is_foreign(message) {
                        messages.push(self.message(role, message.name.as_deref(), parts));
                    }
                }
            }
        }
        messages
    }

    /// A user's turn: each result of a tool is a message of its own here, before what the user says.
    fn user(&mut self, message: &Message, path: &str, messages: &mut Vec<Value>) {
        let mut rest = Parts::default();
        let mut has_rest = message.blocks.is_empty();
        let mut has_results = false;
        for (index, block) in message.blocks.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Content::ToolResult { id, blocks, is_error } = &block.content {
                has_results = true;
                if *is_error {
                    self.drop(format!("{path}.is_error"));
                }
                let (shown, told): (Vec<&Block>, Vec<&Block>) =
                    blocks.iter().partition(|block| matches!(block.content, Content::Media { .. }));
                let mut parts = Parts::default();
                told.into_iter().for_each(|block| self.block(block, &path, &mut parts));
                // A tool message takes text only: what the tool shows stands in the user's message after it.
                shown.into_iter().for_each(|block| self.block(block, &path, &mut rest));
                let mut result = self.message("tool", message.name.as_deref(), parts);
                result["tool_call_id"] = Value::from(id.as_str());
                self.mark(block, &path, &mut result);
                messages.push(result);
            } else {
                has_rest |= !is_kept_members(block) && !is_foreign(message);
                self.block(block, &path, &mut rest);
            }
        }
        if has_rest || !rest.content.is_empty() {
            let name = message.name.as_deref().filter(|_| !has_results);
            messages.push(self.message("user", name, rest));
        }
    }

    fn parts(&mut self, blocks: &[Block], path: &str) -> Parts {
        let mut parts = Parts::default();
        for (index, block) in blocks.iter().enumerate() {
            self.block(block, &format!("{path}[{index}]"), &mut parts);
        }
        parts
    }

    fn message(&self, role: &str, name: Option<&str>, mut parts: Parts) -> Value {
        let mut message = json!({ "role": role });
        if let Some(name) = name {
            message["name"] = Value::from(name);
        }
        message["content"] = match parts.content.as_slice() {
            [] if !parts.calls.is_empty() || !parts.refusal.is_empty() => Value::Null,
            [] => Value::from(""),
            [only] if only["type"] == "text" && only.get("cache_control").is_none() => only["text"].clone(),
            _ => Value::from(std::mem::take(&mut parts.content)),
        };
        if let Some(member) = self.style.back.member().filter(|_| !parts.reasoning.is_empty()) {
            message[member] = Value::from(parts.reasoning);
        }
        if parts.sealed || self.style.back == Back::Details && !parts.details.is_empty() {
            message["reasoning_details"] = Value::from(parts.details);
        }
        if !parts.refusal.is_empty() {
            message["refusal"] = Value::from(parts.refusal);
        }
        writing::place_extra_content(parts.extra, &mut message, &mut parts.calls);
        if !parts.calls.is_empty() {
            message["tool_calls"] = Value::from(parts.calls);
        }
        for (name, value) in parts.kept {
            message[name] = value;
        }
        message
    }

    fn block(&mut self, block: &Block, path: &str, parts: &mut Parts) {
        match &block.content {
            Content::Text { text, .. } => self.part(json!({ "type": "text", "text": text }), block, path, parts),
            Content::Media { .. } => match medium(&block.content) {
                Some(part) => self.part(part, block, path, parts),
                None => self.drop(path),
            },
            Content::ToolUse { id, name, input } => {
                let input = if input.is_empty() { "{}" } else { input };
                let function = json!({ "name": name, "arguments": input });
                let mut call = json!({ "id": id, "type": "function", "function": function });
                self.mark(block, path, &mut call);
                parts.calls.push(call);
            }
            Content::Reasoning { text, signature } if self.style.back == Back::Part => {
                if signature.is_some() {
                    self.drop(format!("{path}.signature"));
                }
                let thoughts = json!([{ "type": "text", "text": text }]);
                parts.content.push(json!({ "type": "thinking", "thinking": thoughts }));
            }
            Content::Reasoning { signature, .. } if self.style.back == Back::Nowhere => {
                match signature.as_deref().and_then(seal::as_extra_content) {
                    Some(extra) => parts.extra.push(extra),
                    None => self.drop(path),
                }
            }
            Content::Redacted { .. } if matches!(self.style.back, Back::Part | Back::Nowhere) => self.drop(path),
            Content::Reasoning { text, signature } => {
                parts.reasoning.push_str(text);
                parts.extra.extend(signature.as_deref().and_then(seal::as_extra_content));
                let item = seal::text_item(text, signature.as_deref(), parts.details.len());
                parts.sealed |= item.is_some() && signature.is_some();
                parts.details.extend(item);
            }
            Content::Redacted { data } => {
                parts.details.push(seal::redacted_item(data, parts.details.len()));
                parts.sealed = true;
            }
            Content::Refusal { text } => parts.refusal.push_str(text),
            Content::Opaque { dialect, json } if dialect == NAME => match json {
                _ if json["message"].is_object() && json.get("type").is_none() => {
                    parts.kept.extend(json["message"].as_object().cloned().unwrap_or_default());
                }
                _ if json["tool_call"].is_object() => parts.calls.push(json["tool_call"].clone()),
                part => self.part(part.clone(), block, path, parts),
            },
            Content::Opaque { .. } | Content::ToolResult { .. } => self.drop(path),
        }
    }

    fn part(&mut self, mut part: Value, block: &Block, path: &str, parts: &mut Parts) {
        self.mark(block, path, &mut part);
        parts.content.push(part);
    }

    fn mark(&mut self, block: &Block, path: &str, marked: &mut Value) {
        self.cache_mark(block.cache.as_ref(), path, marked);
    }

    fn cache_mark(&mut self, mark: Option<&Value>, path: &str, marked: &mut Value) {
        match mark {
            Some(mark) if self.style.cache_marks => marked["cache_control"] = mark.clone(),
            Some(_) => self.drop(format!("{path}.cache")),
            None => {}
        }
    }

    fn tools(&mut self, request: &Request, body: &mut Map<String, Value>) {
        let written = request.tools.iter().enumerate();
        let tools: Vec<Value> =
            written.filter_map(|(index, tool)| self.tool(tool, &format!("tools[{index}]"))).collect();
        if !tools.is_empty() {
            body.insert("tools".to_owned(), Value::from(tools));
        }
        let choice = request.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto => Value::from("auto"),
            ToolChoice::None => Value::from("none"),
            ToolChoice::Required => Value::from("required"),
            ToolChoice::Tool(name) => json!({ "type": "function", "function": { "name": name } }),
        });
        set(body, "tool_choice", choice);
        set(body, "parallel_tool_calls", request.parallel_tools);
    }

    fn tool(&mut self, tool: &Tool, path: &str) -> Option<Value> {
        match &tool.opaque {
            Some((dialect, json)) if dialect == NAME => return Some(json.clone()),
            Some(_) => {
                self.drop(path);
                return None;
            }
            None => {}
        }
        let mut function = Map::new();
        function.insert("name".to_owned(), Value::from(tool.name.as_str()));
        set(&mut function, "description", tool.description.as_deref());
        if !tool.parameters.is_null() {
            function.insert("parameters".to_owned(), tool.parameters.clone());
        }
        set(&mut function, "strict", tool.strict);
        let mut written = json!({ "type": "function", "function": function });
        self.cache_mark(tool.cache.as_ref(), path, &mut written);
        Some(written)
    }

    fn sampling(&mut self, request: &Request, body: &mut Map<String, Value>) {
        set(body, self.style.output_limit, request.output_tokens_max);
        set(body, "temperature", request.temperature.map(number));
        set(body, "top_p", request.top_p.map(number));
        if self.style.top_k {
            set(body, "top_k", request.top_k);
        } else if request.top_k.is_some() {
            self.drop("top_k");
        }
        if !request.stop.is_empty() {
            body.insert("stop".to_owned(), Value::from(request.stop.clone()));
        }
        set(body, "seed", request.seed);
        set(body, "user", request.user.as_deref());
        set(body, "response_format", request.format.as_ref().map(response_format));
        if request.streaming {
            body.insert("stream".to_owned(), Value::from(true));
        }
        if request.stream_usage {
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
    }

    fn reasoning(&mut self, request: &Request, body: &mut Map<String, Value>) {
        let Some(stated) = &request.reasoning else { return };
        let own = request.extensions.get(NAME);
        let thinking = self.style.thinking;
        if thinking.form != Form::Effort {
            if !own.is_some_and(|own| own.contains_key(thinking.member())) {
                let (members, lost) = thinking.write(stated);
                body.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
                self.dropped.extend(lost.into_iter().map(str::to_owned));
            }
            return;
        }
        let has_own = own.is_some_and(|own| OWN_MEMBERS.iter().any(|member| own.contains_key(*member)));
        let own_effort =
            own.and_then(|own| own.get("reasoning")).is_some_and(|reasoning| !reasoning["effort"].is_null());
        let word = if has_own { stated.effort.as_deref().filter(|_| !own_effort) } else { effort(stated) };
        match word {
            Some(word) => set(body, "reasoning_effort", Some(word)),
            None if has_own => {} // says more, and is written with the extensions
            None => self.drop("reasoning"),
        }
    }

    fn extensions(&mut self, request: &Request, body: &mut Map<String, Value>) {
        for (dialect, members) in &request.extensions {
            for (name, value) in members {
                if dialect != NAME {
                    self.drop(name);
                } else if self.style.thinking.replaces(name) {
                    // Said in the vendor's form.
                } else if let (Some(Value::Object(own)), Value::Object(kept)) = (body.get_mut(name), value) {
                    own.extend(kept.clone()); // further stream_options
                } else {
                    body.insert(name.clone(), value.clone());
                }
            }
        }
    }
}

fn set(body: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(name.to_owned(), value.into());
    }
}

/// 1.0 as 1, as callers write it.
pub(crate) fn number(value: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers below 1e15 are cast")]
    let whole = (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64);
    whole.map_or(Value::from(value), Value::from)
}

/// Whether nothing of a message can be said in this dialect: without its blocks it would be an empty one.
fn is_foreign(message: &Message) -> bool {
    let foreign = |block: &Block| matches!(&block.content, Content::Opaque { dialect, .. } if dialect != NAME);
    !message.blocks.is_empty() && message.blocks.iter().all(foreign)
}

fn is_kept_members(block: &Block) -> bool {
    matches!(&block.content, Content::Opaque { json, .. } if json["message"].is_object() && json.get("type").is_none())
}

/// The effort that comes nearest to what is asked for; none where the dialect cannot say it.
fn effort(stated: &Reasoning) -> Option<&str> {
    match (stated.effort.as_deref(), stated.budget_tokens) {
        (Some(effort), _) => Some(effort),
        _ if stated.enabled == Some(false) => None,
        (None, Some(0..=2048)) => Some("low"),
        (None, Some(2049..=12_288)) => Some("medium"),
        (None, Some(_)) => Some("high"),
        (None, None) => None,
    }
}

fn response_format(format: &Format) -> Value {
    match format {
        Format::Json => json!({ "type": "json_object" }),
        Format::Schema { name, description, schema, strict } => {
            let mut stated = Map::new();
            stated.insert("name".to_owned(), Value::from(name.as_deref().unwrap_or("answer")));
            set(&mut stated, "description", description.as_deref());
            stated.insert("schema".to_owned(), schema.clone());
            set(&mut stated, "strict", *strict);
            json!({ "type": "json_schema", "json_schema": stated })
        }
    }
}

/// A text or a medium as a part; none if the dialect cannot carry it.
pub(super) fn plain_part(content: &Content) -> Option<Value> {
    match content {
        Content::Text { text, .. } => Some(json!({ "type": "text", "text": text })),
        content => medium(content),
    }
}

/// A medium as a part; none if the dialect cannot carry it.
fn medium(content: &Content) -> Option<Value> {
    let Content::Media { kind, source, title, detail } = content else { return None };
    match (kind.as_str(), source) {
        ("image" | "video", Source::Url { .. } | Source::Base64 { .. }) => {
            let mut stated = json!({ "url": url(source)? });
            if let Some(detail) = detail {
                stated["detail"] = Value::from(detail.as_str());
            }
            let member = format!("{kind}_url");
            Some(json!({ "type": member, member: stated }))
        }
        ("audio", Source::Base64 { media_type, data }) => {
            let format = match media_type.trim_start_matches("audio/") {
                "mpeg" => "mp3",
                "x-wav" | "wave" => "wav",
                format => format,
            };
            Some(json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } }))
        }
        ("document", Source::Text { text }) => Some(json!({ "type": "text", "text": text })),
        ("document", Source::File { id }) => Some(json!({ "type": "file", "file": { "file_id": id } })),
        ("document", Source::Base64 { .. }) => {
            let name = title.as_deref().unwrap_or("document.pdf");
            Some(json!({ "type": "file", "file": { "filename": name, "file_data": url(source)? } }))
        }
        _ => None,
    }
}

/// A source as a URL; none if it is neither at one nor in the request.
pub(super) fn url(source: &Source) -> Option<String> {
    match source {
        Source::Url { url } => Some(url.clone()),
        Source::Base64 { media_type, data } => Some(format!("data:{media_type};base64,{data}")),
        Source::File { .. } | Source::Text { .. } => None,
    }
}
