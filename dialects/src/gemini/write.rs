// SPDX-License-Identifier: Apache-2.0
//! The canonical form into a request to a vendor, and the paths of what this dialect has no place for. Model and streaming
//! belong into the path, which is the adapter's business.

use serde_json::{Map, Value, json};

use super::thinking::{self, Generation};
use super::write_parts::Contents;
use super::{NAME, naming, schema};
use crate::ir::{Format, Members, Request, Tool, ToolChoice};

/// Members of openai-chat that have a place here, and the place.
const KNOWN_THERE: &[(&str, &str)] = &[
    ("frequency_penalty", "frequencyPenalty"),
    ("presence_penalty", "presencePenalty"),
    ("logprobs", "responseLogprobs"),
    ("top_logprobs", "logprobs"),
];

/// Members that a count-tokens request takes beside the contents, where it takes them at all (Vertex AI).
const COUNTED_MEMBERS: &[&str] = &["contents", "systemInstruction", "tools", "generationConfig"];

/// Writes a request for an answer.
pub(super) fn request(request: &Request) -> (Vec<u8>, Vec<String>) {
    let (members, dropped) = members(request);
    (Value::Object(members).to_string().into_bytes(), dropped)
}

/// Writes a request to count input tokens. Google AI Studio counts all of a request only if it comes whole, with the model
/// in it; Vertex AI (`is_vertex`) takes the parts that count beside the contents.
#[must_use]
pub fn encode_count_request(request: &Request, is_vertex: bool) -> (Vec<u8>, Vec<String>) {
    let (mut members, dropped) = members(request);
    if is_vertex {
        members.retain(|name, _| COUNTED_MEMBERS.contains(&name.as_str()));
        return (Value::Object(members).to_string().into_bytes(), dropped);
    }
    members.insert("model".to_owned(), naming::full_name(&request.model));
    (json!({"generateContentRequest": members}).to_string().into_bytes(), dropped)
}

/// `toolConfig` for a choice.
pub(super) fn tool_config(choice: &ToolChoice) -> Value {
    let config = match choice {
        ToolChoice::Auto => json!({"mode": "AUTO"}),
        ToolChoice::None => json!({"mode": "NONE"}),
        ToolChoice::Required => json!({"mode": "ANY"}),
        ToolChoice::Tool(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
    };
    json!({"functionCallingConfig": config})
}

fn members(request: &Request) -> (Map<String, Value>, Vec<String>) {
    let mut writer = Writer { request, members: Map::new(), config: Map::new(), dropped: Vec::new() };
    writer.conversation();
    writer.tools();
    writer.sampling();
    writer.format();
    writer.thinking();
    writer.foreign_extensions();
    writer.own_extensions();
    if !writer.config.is_empty() {
        writer.members.insert("generationConfig".to_owned(), Value::Object(writer.config));
    }
    (writer.members, writer.dropped)
}

struct Writer<'a> {
    request: &'a Request,
    members: Map<String, Value>,
    /// `generationConfig`
    config: Map<String, Value>,
    dropped: Vec<String>,
}

impl Writer<'_> {
    fn drop(&mut self, path: &str) {
        self.dropped.push(path.to_owned());
    }

    fn configure(&mut self, name: &str, value: Option<impl Into<Value>>) {
        self.config.extend(value.map(|value| (name.to_owned(), value.into())));
    }

    fn conversation(&mut self) {
        let mut contents = Contents::new(self.request);
        let (system, turns) = contents.written();
        self.dropped.append(&mut contents.dropped);
        if !system.is_empty() {
            self.members.insert("systemInstruction".to_owned(), json!({"parts": system}));
        }
        self.members.insert("contents".to_owned(), Value::Array(turns));
    }

    fn tools(&mut self) {
        let mut tools: Vec<Value> = Vec::new();
        let mut functions = Vec::new();
        let mut place = None;
        for (index, tool) in self.request.tools.iter().enumerate() {
            match &tool.opaque {
                Some((dialect, json)) if dialect == NAME => tools.push(json.clone()),
                Some(_) => self.dropped.push(format!("tools[{index}]")),
                None => {
                    place.get_or_insert(tools.len());
                    functions.push(self.declaration(index, tool));
                }
            }
        }
        let has_functions = !functions.is_empty();
        if let Some(place) = place {
            tools.insert(place, json!({"functionDeclarations": functions}));
        }
        if !tools.is_empty() {
            self.members.insert("tools".to_owned(), Value::Array(tools));
        }
        match &self.request.tool_choice {
            Some(choice) if has_functions => {
                self.members.insert("toolConfig".to_owned(), tool_config(choice));
            }
            Some(ToolChoice::Required | ToolChoice::Tool(_)) => self.drop("tool_choice"),
            _ => {}
        }
        if self.request.parallel_tools == Some(false) {
            self.drop("parallel_tools");
        }
    }

    fn declaration(&mut self, index: usize, tool: &Tool) -> Value {
        let mut wire = Map::new();
        wire.insert("name".to_owned(), json!(tool.name));
        wire.extend(tool.description.as_ref().map(|description| ("description".to_owned(), json!(description))));
        let own = tool.extensions.get(NAME);
        let stated = own.and_then(|own| own.get("parameters"));
        // The caller's own words, as long as they say what the canonical form says.
        match stated.filter(|stated| schema::to_json_schema(stated) == tool.parameters) {
            Some(stated) => wire.insert("parameters".to_owned(), stated.clone()),
            None if tool.parameters.is_null() => None,
            None => wire.insert("parametersJsonSchema".to_owned(), tool.parameters.clone()),
        };
        for (name, value) in own.into_iter().flatten().filter(|(name, _)| *name != "parameters") {
            wire.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if tool.strict == Some(true) {
            self.dropped.push(format!("tools[{index}].strict"));
        }
        if tool.cache.is_some() {
            self.dropped.push(format!("tools[{index}].cache"));
        }
        Value::Object(wire)
    }

    fn sampling(&mut self) {
        let request = self.request;
        self.configure("temperature", request.temperature.map(number));
        self.configure("topP", request.top_p.map(number));
        self.configure("topK", request.top_k);
        self.configure("maxOutputTokens", request.output_tokens_max);
        self.configure("stopSequences", Some(&request.stop).filter(|stop| !stop.is_empty()).cloned());
        match request.seed.map(i32::try_from) {
            None => {}
            Some(Ok(seed)) => self.configure("seed", Some(seed)),
            // A number of 32 bits there.
            Some(Err(_)) => self.drop("seed"),
        }
        if request.user.is_some() {
            self.drop("user");
        }
    }

    fn format(&mut self) {
        let Some(format) = &self.request.format else { return };
        self.configure("responseMimeType", Some("application/json"));
        if let Format::Schema { schema, .. } = format {
            let stated = self.own("generationConfig").and_then(|config| config.get("responseSchema"));
            match stated.filter(|stated| schema::to_json_schema(stated) == *schema).cloned() {
                Some(stated) => self.configure("responseSchema", Some(stated)),
                None if schema.is_null() => {}
                None => self.configure("responseJsonSchema", Some(schema.clone())),
            }
        }
    }

    fn thinking(&mut self) {
        // What the caller wrote in this dialect goes with the other extensions.
        let stated = self.own("generationConfig").is_some_and(|config| config.get("thinkingConfig").is_some());
        let Some(reasoning) = self.request.reasoning.as_ref().filter(|_| !stated) else { return };
        let (config, dropped) = thinking::write(reasoning, Generation::of(&self.request.model));
        self.configure("thinkingConfig", config);
        dropped.into_iter().for_each(|path| self.drop(path));
    }

    fn own(&self, name: &str) -> Option<&Value> {
        self.request.extensions.get(NAME)?.get(name)
    }

    fn foreign_extensions(&mut self) {
        for (dialect, members) in self.request.extensions.iter().filter(|(dialect, _)| *dialect != NAME) {
            for (name, value) in members.iter().filter(|(name, value)| !is_neutral(name, value)) {
                match KNOWN_THERE.iter().find(|(there, _)| dialect == "openai-chat" && there == name) {
                    Some((_, here)) => self.configure(here, Some(value.clone())),
                    None => self.drop(name),
                }
            }
        }
    }

    /// The caller's own members, below what has been written.
    fn own_extensions(&mut self) {
        let own: Option<&Members> = self.request.extensions.get(NAME);
        for (name, value) in own.into_iter().flatten() {
            let written = if name == "generationConfig" { Some(&mut self.config) } else { None };
            match (written.or_else(|| self.members.get_mut(name).and_then(Value::as_object_mut)), value) {
                // Other words for what has been written, or what said it before it was changed.
                (Some(_), _) if name == "toolConfig" => {
                    self.members.insert(name.clone(), value.clone());
                }
                (Some(written), Value::Object(more)) => {
                    for (name, value) in more.iter().filter(|(name, _)| *name != "responseSchema") {
                        written.entry(name.clone()).or_insert_with(|| value.clone());
                    }
                }
                (Some(_), _) => {}
                (None, value) => {
                    self.members.insert(name.clone(), value.clone());
                }
            }
        }
    }
}

/// Whether a member asks for what would happen anyway.
fn is_neutral(name: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(if name == "n" { 1.0 } else { 0.0 }),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::String(_) => false,
    }
}

/// 1.0 as 1, as callers write it.
fn number(value: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers below 1e15 are cast")]
    let whole = (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64);
    whole.map_or(Value::from(value), Value::from)
}
