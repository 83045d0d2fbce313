// SPDX-License-Identifier: Apache-2.0
//! The canonical form into a request to a vendor, and the paths of what this dialect has no place for.

use serde_json::{Map, Value, json};

use super::NAME;
use super::thinking::{self, Generation};
use super::write_blocks::{Blocks, cached};
use crate::ir::{Content, Format, Members, Request, Tool, ToolChoice};

/// Members that the count-tokens operation takes; it refuses others.
const COUNTED_MEMBERS: &[&str] = &[
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
    "context_management",
    "mcp_servers",
];

/// Writes a request for an answer.
pub(super) fn request(request: &Request) -> (Vec<u8>, Vec<String>) {
    let (members, dropped) = members(request);
    (Value::Object(members).to_string().into_bytes(), dropped)
}

/// Writes a request to count input tokens: like one for an answer, without what is only about the answer.
#[must_use]
pub fn encode_count_request(request: &Request) -> (Vec<u8>, Vec<String>) {
    let (mut members, dropped) = members(request);
    members.retain(|name, _| COUNTED_MEMBERS.contains(&name.as_str()));
    (Value::Object(members).to_string().into_bytes(), dropped)
}

fn members(request: &Request) -> (Map<String, Value>, Vec<String>) {
    let mut writer = Writer { request, members: Map::new(), dropped: Vec::new() };
    if !request.model.is_empty() {
        writer.set("model", json!(request.model));
    }
    let thinks = writer.thinking();
    writer.conversation();
    writer.tools();
    writer.sampling(thinks);
    writer.format();
    if let Some(user) = &request.user {
        writer.set("metadata", json!({"user_id": user}));
    }
    if request.streaming {
        writer.set("stream", json!(true));
    }
    writer.extensions();
    (writer.members, writer.dropped)
}

struct Writer<'a> {
    request: &'a Request,
    members: Map<String, Value>,
    dropped: Vec<String>,
}

impl Writer<'_> {
    fn set(&mut self, name: &str, value: Value) {
        self.members.insert(name.to_owned(), value);
    }

    fn drop(&mut self, path: &str) {
        self.dropped.push(path.to_owned());
    }

    fn own_extensions(&self) -> Option<&Members> {
        self.request.extensions.get(NAME)
    }

    /// `max_tokens`, `thinking` and the effort; says whether the model will think.
    fn thinking(&mut self) -> bool {
        let stated = self.own_extensions().and_then(|members| members.get("output_config"));
        let stated_effort = stated.is_some_and(|config| config["effort"].is_string());
        let thinking = thinking::of(self.request, stated_effort);
        self.set("max_tokens", json!(thinking.output_tokens_max));
        thinking.dropped.iter().for_each(|path| self.drop(path));
        let thinks = thinking.thinking.as_ref().is_some_and(|thinking| thinking["type"] != "disabled");
        // The API refuses to think before a tool that it is forced to call: the call is the harder wish.
        let forced = matches!(self.request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_)));
        if thinks && forced && !self.request.tools.is_empty() {
            self.drop("reasoning");
            return false;
        }
        if let Some(thinking) = thinking.thinking {
            self.set("thinking", thinking);
        }
        if let Some(effort) = thinking.effort {
            self.set("output_config", json!({"effort": effort}));
        }
        thinks
    }

    fn conversation(&mut self) {
        let mut blocks = Blocks::default();
        let mut system = blocks.system(self.request);
        let messages = blocks.messages(self.request, &mut system);
        // One plain text is written as such, as nearly everybody does.
        let only = if let [only] = system.as_slice() { only.as_object().filter(|only| only.len() == 2) } else { None };
        match only.and_then(|only| only.get("text").cloned()) {
            Some(text) => self.set("system", text),
            None if system.is_empty() => {}
            None => self.set("system", Value::Array(system)),
        }
        self.set("messages", Value::Array(messages));
        self.dropped.append(&mut blocks.dropped);
    }

    fn tools(&mut self) {
        let generation = Generation::of(&self.request.model);
        let mut tools = Vec::with_capacity(self.request.tools.len());
        for (index, tool) in self.request.tools.iter().enumerate() {
            match &tool.opaque {
                Some((dialect, json)) if dialect == NAME => tools.push(json.clone()),
                Some(_) => self.dropped.push(format!("tools[{index}]")),
                None => tools.push(self.tool(index, tool, generation)),
            }
        }
        if tools.is_empty() {
            if matches!(self.request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_))) {
                self.drop("tool_choice");
            }
            return;
        }
        self.set("tools", Value::Array(tools));
        let mut choice = match &self.request.tool_choice {
            Some(ToolChoice::Auto) => json!({"type": "auto"}),
            Some(ToolChoice::None) => json!({"type": "none"}),
            Some(ToolChoice::Required) => json!({"type": "any"}),
            Some(ToolChoice::Tool(name)) => json!({"type": "tool", "name": name}),
            None if self.request.parallel_tools == Some(false) => json!({"type": "auto"}),
            None => return,
        };
        if self.request.parallel_tools == Some(false) && choice["type"] != "none" {
            choice["disable_parallel_tool_use"] = json!(true);
        }
        self.set("tool_choice", choice);
    }

    fn tool(&mut self, index: usize, tool: &Tool, generation: Generation) -> Value {
        let mut wire = Map::new();
        wire.insert("name".to_owned(), json!(tool.name));
        wire.extend(tool.description.as_ref().map(|description| ("description".to_owned(), json!(description))));
        wire.insert("input_schema".to_owned(), input_schema(&tool.parameters));
        if tool.strict == Some(true) {
            if generation.is_claude_before(4, 5) {
                self.dropped.push(format!("tools[{index}].strict"));
            } else {
                wire.insert("strict".to_owned(), json!(true));
            }
        }
        for (name, value) in tool.extensions.get(NAME).into_iter().flatten() {
            wire.entry(name.clone()).or_insert_with(|| value.clone());
        }
        cached(wire, tool.cache.as_ref())
    }

    fn sampling(&mut self, thinks: bool) {
        self.temperature(thinks);
        let request = self.request;
        if request.seed.is_some() {
            self.drop("seed");
        }
        let mut stop = Vec::with_capacity(request.stop.len());
        for (index, sequence) in request.stop.iter().enumerate() {
            // The API refuses sequences of white space.
            if sequence.trim().is_empty() {
                self.dropped.push(format!("stop[{index}]"));
            } else {
                stop.push(sequence);
            }
        }
        if !stop.is_empty() {
            self.set("stop_sequences", json!(stop));
        }
    }

    /// What the API admits depends on the generation of the model: since 4.1 one of `temperature` and `top_p`, since 4.7
    /// none of the three. A model that thinks samples in its own way.
    fn temperature(&mut self, thinks: bool) {
        let request = self.request;
        let generation = Generation::of(&request.model);
        let fixed = generation.is_claude_from(4, 7);
        if let Some(temperature) = request.temperature {
            // Other dialects go up to 2.
            let clamped = temperature.clamp(0.0, 1.0);
            #[allow(clippy::float_cmp, reason = "whether it is the default to the bit")]
            let is_default = temperature == 1.0;
            #[allow(clippy::float_cmp, reason = "whether the value was changed, not whether it is near")]
            let changed = clamped != temperature;
            if changed || (!is_default && (thinks || fixed)) {
                self.drop("temperature");
            }
            if !fixed && (!thinks || is_default) {
                self.set("temperature", json!(clamped));
            }
        }
        if let Some(top_p) = request.top_p {
            if fixed || (request.temperature.is_some() && generation.is_claude_from(4, 1)) {
                self.drop("top_p");
            } else {
                self.set("top_p", json!(top_p));
            }
        }
        if let Some(top_k) = request.top_k {
            if thinks || fixed { self.drop("top_k") } else { self.set("top_k", json!(top_k)) }
        }
    }

    /// A schema goes to the vendor, which enforces it. "Any JSON object" has no place: an instruction in words would be a
    /// promise that nobody keeps.
    fn format(&mut self) {
        match &self.request.format {
            None => {}
            Some(Format::Schema { schema, .. }) if !Generation::of(&self.request.model).is_claude_before(4, 5) => {
                let config = self.members.entry("output_config").or_insert_with(|| json!({}));
                config["format"] = json!({"type": "json_schema", "schema": schema});
            }
            Some(Format::Schema { .. } | Format::Json) => self.drop("format"),
        }
    }

    /// This dialect's own members go through, below what has been written; those of others are reported.
    fn extensions(&mut self) {
        for (dialect, members) in &self.request.extensions {
            for (name, value) in members {
                if dialect != NAME {
                    if !is_neutral(name, value) {
                        self.dropped.push(name.clone());
                    }
                    continue;
                }
                match (self.members.get_mut(name), value) {
                    (Some(Value::Object(written)), Value::Object(more)) => {
                        for (name, value) in more {
                            written.entry(name.clone()).or_insert_with(|| value.clone());
                        }
                    }
                    (Some(_), _) => {}
                    // What is left of `thinking` says nothing without it.
                    (None, _) if name == "thinking" => {}
                    (None, value) => {
                        self.members.insert(name.clone(), value.clone());
                    }
                }
            }
        }
    }
}

/// Whether a member asks for what would happen anyway.
pub(crate) fn is_neutral(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(if name == "n" { 1.0 } else { 0.0 }),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::String(_) => false,
    }
}

/// The API demands a schema, and one of an object.
fn input_schema(parameters: &Value) -> Value {
    match parameters {
        Value::Object(schema) if schema.contains_key("type") => parameters.clone(),
        Value::Object(schema) => {
            let mut schema = schema.clone();
            schema.insert("type".to_owned(), json!("object"));
            Value::Object(schema)
        }
        _ => json!({"type": "object", "properties": {}}),
    }
}

/// Whether a block holds nothing but white space, which the API refuses.
pub(crate) fn is_blank(content: &Content) -> bool {
    match content {
        Content::Text { text, .. } | Content::Refusal { text } => text.trim().is_empty(),
        _ => false,
    }
}
