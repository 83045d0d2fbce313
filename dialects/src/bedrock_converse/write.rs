// SPDX-License-Identifier: Apache-2.0
//! The canonical form into a request to the vendor, and the paths of what this dialect has no place for.

use serde_json::{Map, Value, json};

use super::NAME;
use super::model::Family;
use super::names::{called, tool_name};
use super::sampling::Sampling;
use super::write_blocks::{Blocks, cache_point, input_schema};
use crate::anthropic_messages::is_neutral;
use crate::ir::{Content, Format, Request, Tool, ToolChoice};

/// Members that a count takes.
const COUNTED_MEMBERS: &[&str] = &["messages", "system", "toolConfig", "additionalModelRequestFields"];

/// Writes a request for an answer. Neither the model nor whether to stream stands in it: both belong into the path.
pub(super) fn request(request: &Request) -> (Vec<u8>, Vec<String>) {
    let (members, dropped) = members(request);
    (Value::Object(members).to_string().into_bytes(), dropped)
}

/// Writes a request to count input tokens.
#[must_use]
pub fn encode_count_request(request: &Request) -> (Vec<u8>, Vec<String>) {
    let (mut members, dropped) = members(request);
    members.retain(|name, _| COUNTED_MEMBERS.contains(&name.as_str()));
    (json!({"input": {"converse": members}}).to_string().into_bytes(), dropped)
}

fn members(request: &Request) -> (Map<String, Value>, Vec<String>) {
    let family = Family::of(&request.model);
    let mut writer = Writer { request, family, members: Map::new(), dropped: Vec::new() };
    writer.conversation();
    writer.sampling();
    writer.tools();
    writer.format();
    if request.user.is_some() {
        writer.drop("user");
    }
    writer.extensions();
    (writer.members, writer.dropped)
}

struct Writer<'a> {
    request: &'a Request,
    family: Family,
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

    fn conversation(&mut self) {
        let mut blocks = Blocks::new(self.family);
        let mut system = blocks.system(self.request);
        let messages = blocks.messages(self.request, &mut system);
        self.set("messages", Value::Array(messages));
        if !system.is_empty() {
            self.set("system", Value::Array(system));
        }
        self.dropped.append(&mut blocks.dropped);
    }

    /// `inferenceConfig`, and what the models behind the API have by names of their own.
    fn sampling(&mut self) {
        let Sampling { config, fields, effort, dropped } = Sampling::of(self.request, self.family);
        if !config.is_empty() {
            self.set("inferenceConfig", Value::Object(config));
        }
        if !fields.is_empty() {
            self.set("additionalModelRequestFields", Value::Object(fields));
        }
        if let Some(effort) = effort {
            self.set("outputConfig", json!({"effort": effort}));
        }
        dropped.into_iter().for_each(|path| self.drop(&path));
    }

    /// The API wants tools where the conversation has calls or results, also when none may be called any more.
    fn tools(&mut self) {
        let mut tools = Vec::with_capacity(self.request.tools.len());
        for (index, tool) in self.request.tools.iter().enumerate() {
            match &tool.opaque {
                Some((dialect, json)) if dialect == NAME => tools.push(json.clone()),
                Some(_) => self.dropped.push(format!("tools[{index}]")),
                None => tools.push(self.tool(index, tool)),
            }
            if let (Some(mark), Some(_)) = (&tool.cache, tools.last()) {
                if self.family.takes_cached_tools() {
                    tools.push(cache_point(mark));
                } else {
                    self.dropped.push(format!("tools[{index}].cache"));
                }
            }
        }
        let needed = self
            .request
            .messages
            .iter()
            .flat_map(|message| &message.blocks)
            .any(|block| matches!(block.content, Content::ToolUse { .. } | Content::ToolResult { .. }));
        let none_wanted = self.request.tool_choice == Some(ToolChoice::None);
        if tools.is_empty() && needed {
            let unstated = |name| json!({"toolSpec": {"name": tool_name(name), "inputSchema": {"json": input_schema(&Value::Null)}}});
            tools.extend(called(&self.request.messages).into_iter().map(unstated));
        }
        if tools.is_empty() || (none_wanted && !needed) {
            if matches!(self.request.tool_choice, Some(ToolChoice::Required | ToolChoice::Tool(_))) {
                self.drop("tool_choice");
            }
            return;
        }
        let choice = match &self.request.tool_choice {
            Some(ToolChoice::Auto) => Some(json!({"auto": {}})),
            Some(ToolChoice::Required) => Some(json!({"any": {}})),
            Some(ToolChoice::Tool(name)) => Some(json!({"tool": {"name": tool_name(name)}})),
            Some(ToolChoice::None) => {
                self.drop("tool_choice");
                None
            }
            None => None,
        };
        if self.request.parallel_tools == Some(false) {
            self.drop("parallel_tools");
        }
        let mut config = json!({"tools": tools});
        if let Some(choice) = choice {
            config["toolChoice"] = choice;
        }
        self.set("toolConfig", config);
    }

    fn tool(&mut self, index: usize, tool: &Tool) -> Value {
        let mut spec = Map::new();
        spec.insert("name".to_owned(), json!(tool_name(&tool.name)));
        let description = tool.description.as_ref().filter(|description| !description.is_empty());
        spec.extend(description.map(|description| ("description".to_owned(), json!(description))));
        spec.insert("inputSchema".to_owned(), json!({"json": input_schema(&tool.parameters)}));
        if tool.strict == Some(true) {
            if self.family.takes_strict_tools() {
                spec.insert("strict".to_owned(), json!(true));
            } else {
                self.dropped.push(format!("tools[{index}].strict"));
            }
        }
        for (name, value) in tool.extensions.get(NAME).into_iter().flatten() {
            spec.entry(name.clone()).or_insert_with(|| value.clone());
        }
        json!({"toolSpec": spec})
    }

    /// A schema goes to the vendor, which enforces it. "Any JSON object" has no place: an instruction in words would be a
    /// promise that nobody keeps.
    fn format(&mut self) {
        match &self.request.format {
            None => {}
            Some(Format::Schema { name, description, schema, .. }) if self.family.takes_schemas() => {
                let mut definition = json!({"schema": schema.to_string()});
                if let Some(name) = name {
                    definition["name"] = json!(name);
                }
                if let Some(description) = description {
                    definition["description"] = json!(description);
                }
                let format = json!({"type": "json_schema", "structure": {"jsonSchema": definition}});
                self.members.entry("outputConfig").or_insert_with(|| json!({}))["textFormat"] = format;
            }
            Some(Format::Schema { .. } | Format::Json) => self.drop("format"),
        }
    }

    /// This dialect's own members go through, below what has been written; those of others are reported.
    fn extensions(&mut self) {
        for (dialect, members) in &self.request.extensions {
            for (name, value) in members {
                if dialect == NAME {
                    lay_under(&mut self.members, name, value);
                    // What is left of `thinking` says nothing without it.
                    if let Some(Value::Object(fields)) = self.members.get_mut("additionalModelRequestFields")
                        && fields.get("thinking").is_some_and(|thinking| thinking.get("type").is_none())
                    {
                        fields.shift_remove("thinking");
                    }
                } else if !is_neutral(name, value) {
                    self.dropped.push(name.clone());
                }
            }
        }
    }
}

/// Adds a member; of one that is there already, only what it lacks.
fn lay_under(written: &mut Map<String, Value>, name: &str, value: &Value) {
    match (written.get_mut(name), value) {
        (Some(Value::Object(written)), Value::Object(more)) => {
            more.iter().for_each(|(name, value)| lay_under(written, name, value));
        }
        (Some(_), _) => {}
        (None, value) => {
            written.insert(name.to_owned(), value.clone());
        }
    }
}
