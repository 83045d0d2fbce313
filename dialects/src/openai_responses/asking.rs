// SPDX-License-Identifier: Apache-2.0
//! Writes a request to a vendor, and tells what of it this dialect has no place for.
//!
//! For a caller of another dialect two things are said that it cannot know of: that the vendor shall not store the answer
//! (no dialect but this one has stored answers), and that a thought shall come with its seal, without which it could not
//! be sent back.

use serde_json::{Map, Value, json};

use super::NAME;
use super::turns::Turns;
use crate::ir::{Content, Format, Reasoning, Request, Tool, ToolChoice};
use crate::members::plain_number;

/// Smallest ceiling of output tokens that the API takes.
const OUTPUT_TOKENS_MIN: u64 = 16;

/// Members that the request for a count takes; it refuses others.
const COUNTED_MEMBERS: &[&str] = &[
    "model",
    "input",
    "instructions",
    "previous_response_id",
    "conversation",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "truncation",
];

/// The ways in which vendors of this dialect differ in what they take, and what is asked for on behalf of callers of other
/// dialects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether thoughts are asked for with their seals (`reasoning.encrypted_content`); none leaves it to the name of the
    /// model, since models that do not think refuse it.
    pub sealed_reasoning: Option<bool>,
    /// Which summary of its thoughts a vendor is asked for ("auto") if the caller wants it to think. `OpenAI` refuses it to
    /// organisations that it has not verified.
    pub summary: Option<&'static str>,
}

/// Writes a request for an answer, and the paths of what it leaves out.
pub(super) fn encode(request: &Request, style: &Style) -> (Vec<u8>, Vec<String>) {
    let (body, dropped) = members(request, style);
    (Value::Object(body).to_string().into_bytes(), dropped)
}

/// Writes a request for a count of input tokens: as one for an answer, without what is only about the answer.
#[must_use]
pub fn encode_count_request(request: &Request) -> (Vec<u8>, Vec<String>) {
    let (mut body, dropped) = members(request, &Style::default());
    body.retain(|name, _| COUNTED_MEMBERS.contains(&name.as_str()));
    (Value::Object(body).to_string().into_bytes(), dropped)
}

fn members(request: &Request, style: &Style) -> (Map<String, Value>, Vec<String>) {
    // The reader of requests of this dialect always leaves extensions.
    let is_own = request.extensions.contains_key(NAME);
    let mut writer = Writer { request, is_own, body: Map::new(), dropped: Vec::new() };
    writer.set("model", Some(request.model.as_str()));
    writer.conversation();
    writer.tools();
    writer.sampling();
    writer.thinking(style);
    writer.extensions();
    (writer.body, writer.dropped)
}

struct Writer<'r> {
    request: &'r Request,
    is_own: bool,
    body: Map<String, Value>,
    dropped: Vec<String>,
}

impl Writer<'_> {
    fn set(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.body.insert(name.to_owned(), value.into());
        }
    }

    fn drop(&mut self, path: impl Into<String>) {
        self.dropped.push(path.into());
    }

    fn own(&self, name: &str) -> Option<&Value> {
        self.request.extensions.get(NAME)?.get(name)
    }

    fn conversation(&mut self) {
        let mut instructions = Vec::with_capacity(self.request.system.len());
        for (index, block) in self.request.system.iter().enumerate() {
            match &block.content {
                Content::Text { text, .. } => instructions.push(text.as_str()),
                _ => self.dropped.push(format!("system[{index}]")),
            }
            if block.cache.is_some() {
                self.dropped.push(format!("system[{index}].cache"));
            }
        }
        let instructions = (!instructions.is_empty()).then(|| instructions.join("\n\n"));
        self.set("instructions", instructions);
        let mut turns = Turns::default();
        for (index, message) in self.request.messages.iter().enumerate() {
            turns.message(message, &format!("messages[{index}]"));
        }
        let (items, dropped) = turns.finish();
        self.dropped.extend(dropped);
        // A caller of this dialect may have left the input out.
        if !(items.is_empty() && self.is_own) {
            self.set("input", Some(items));
        }
    }

    fn tools(&mut self) {
        let request = self.request;
        let mut tools = Vec::with_capacity(request.tools.len());
        for (index, tool) in request.tools.iter().enumerate() {
            match &tool.opaque {
                Some((dialect, json)) if dialect == NAME => tools.push(json.clone()),
                Some(_) => self.drop(format!("tools[{index}]")),
                None => tools.push(function(tool)),
            }
            if tool.cache.is_some() {
                self.drop(format!("tools[{index}].cache"));
            }
        }
        let has_tools = !tools.is_empty();
        self.set("tools", has_tools.then_some(tools));
        let choice = request.tool_choice.as_ref().map(|choice| match choice {
            ToolChoice::Auto => Value::from("auto"),
            ToolChoice::None => Value::from("none"),
            ToolChoice::Required => Value::from("required"),
            ToolChoice::Tool(name) => json!({ "type": "function", "name": name }),
        });
        self.set("tool_choice", choice);
        self.set("parallel_tool_calls", request.parallel_tools);
    }

    fn sampling(&mut self) {
        let request = self.request;
        let ceiling = request.output_tokens_max;
        if !self.is_own && ceiling.is_some_and(|ceiling| ceiling < OUTPUT_TOKENS_MIN) {
            self.drop("output_tokens_max");
            self.set("max_output_tokens", Some(OUTPUT_TOKENS_MIN));
        } else {
            self.set("max_output_tokens", ceiling);
        }
        self.set("temperature", request.temperature.map(plain_number));
        self.set("top_p", request.top_p.map(plain_number));
        let absent =
            [("top_k", request.top_k.is_some()), ("stop", !request.stop.is_empty()), ("seed", request.seed.is_some())];
        absent.into_iter().filter(|(_, stated)| *stated).for_each(|(name, _)| self.drop(name));
        if let Some(format) = &request.format {
            self.set("text", Some(json!({ "format": text_format(format) })));
        }
        let identifier = self.own("safety_identifier").and_then(Value::as_str);
        let user = request.user.as_deref().filter(|user| identifier != Some(*user));
        self.set("user", user);
        self.set("stream", request.streaming.then_some(true));
    }

    fn thinking(&mut self, style: &Style) {
        let request = self.request;
        let asked = request.reasoning.as_ref();
        let effort = asked.and_then(effort);
        if asked.is_some() && effort.is_none() {
            self.drop("reasoning");
        }
        if let Some(effort) = effort {
            let mut reasoning = json!({ "effort": effort });
            if let Some(summary) = style.summary.filter(|_| !self.is_own && effort != "none") {
                reasoning["summary"] = json!(summary);
            }
            self.set("reasoning", Some(reasoning));
        }
        if !self.is_own {
            self.set("store", Some(false));
            if style.sealed_reasoning.unwrap_or_else(|| thinks(&request.model)) {
                self.set("include", Some(json!(["reasoning.encrypted_content"])));
            }
        }
    }

    /// This dialect's own members go through; those of others are reported.
    fn extensions(&mut self) {
        for (dialect, members) in &self.request.extensions {
            for (name, value) in members {
                if dialect != NAME {
                    if !is_neutral(name, value) {
                        self.dropped.push(name.clone());
                    }
                    continue;
                }
                match (self.body.get_mut(name), value) {
                    // What is left of `text` and `reasoning`.
                    (Some(Value::Object(written)), Value::Object(more)) => written.extend(more.clone()),
                    _ => {
                        self.body.insert(name.clone(), value.clone());
                    }
                }
            }
        }
    }
}

fn function(tool: &Tool) -> Value {
    let mut written = json!({ "type": "function", "name": tool.name });
    if let Some(description) = &tool.description {
        written["description"] = json!(description);
    }
    written["parameters"] = match &tool.parameters {
        Value::Null => json!({ "type": "object", "properties": {} }),
        parameters => parameters.clone(),
    };
    // Not stating it would make the vendor enforce the schema; in other dialects it says the contrary.
    written["strict"] = json!(tool.strict.unwrap_or_default());
    for (name, value) in tool.extensions.get(NAME).into_iter().flatten() {
        written[name] = value.clone();
    }
    if let Value::Object(members) = &mut written {
        members.retain(|_, value| !value.is_null());
    }
    written
}

fn text_format(format: &Format) -> Value {
    match format {
        Format::Json => json!({ "type": "json_object" }),
        Format::Schema { name, description, schema, strict } => {
            let name = name.as_deref().unwrap_or("answer");
            let mut stated = json!({ "type": "json_schema", "name": name, "schema": schema });
            if let Some(description) = description {
                stated["description"] = json!(description);
            }
            if let Some(strict) = strict {
                stated["strict"] = json!(strict);
            }
            stated
        }
    }
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

/// Whether a model is known to think, by its name: "gpt-5-mini", "openai.gpt-oss-20b", "openai/o4-mini", "grok-4.3".
fn thinks(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.strip_prefix("openai.").unwrap_or(name);
    let numbered = |prefix: &str, from: u8| {
        let digit = name.strip_prefix(prefix).and_then(|rest| rest.bytes().next());
        digit.is_some_and(|digit| digit.is_ascii_digit() && digit >= from)
    };
    let named = numbered("o", b'1') || numbered("gpt-", b'5') || numbered("grok-", b'3') || name.contains("codex");
    named && !name.contains("-chat") && !name.contains("non-reasoning")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_think_are_known_by_their_names() {
        for model in
            ["gpt-5", "openai/gpt-5.6-sol", "o4-mini", "openai.gpt-5.5", "gpt-5.3-codex", "grok-3-mini", "gpt-6"]
        {
            assert!(thinks(model), "{model}");
        }
        for model in ["gpt-4.1-nano", "gpt-4o", "gpt-5-chat-latest", "chatgpt-4o", "deepseek-v4", "omni", "grok-2", ""]
        {
            assert!(!thinks(model), "{model}");
        }
    }
}
