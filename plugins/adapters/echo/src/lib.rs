// SPDX-License-Identifier: Apache-2.0
//! Answers by itself with the caller's last words: a vendor that needs no key and no network, for a first start and for
//! tests. README.md says what it makes of a request.

use penstock_sdk::dialect::read_request;
use penstock_sdk::dialects::estimate::{input_tokens, text_tokens};
use penstock_sdk::dialects::ir::{Block, Content, Message, Role, Tool, ToolChoice};
use penstock_sdk::prelude::{
    Adapter, Blob, Call, Config, Event, Fault, FaultClass, Finish, Issue, Pairs, Plan, Request, Unasked, Usage,
};
use serde_json::{Map, Value};

/// How to echo.
#[derive(Debug, Config)]
pub struct Options {
    /// What stands before the caller's words.
    #[config(default = "You said: ")]
    prefix: String,
    /// Think first, whether the caller asks for it or not.
    #[config(default = false)]
    reasoning: bool,
}

/// The adapter.
#[derive(Debug)]
pub struct Echo(Options);

impl Adapter for Echo {
    type Config = Options;
    type Exchange = Unasked;

    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens"];
    const FEATURES: &'static [&'static str] = &["streaming"];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn open(&self, call: &Call, _: &Pairs, body: &[u8], _: &[Blob]) -> Result<(Unasked, Plan), Fault> {
        if !Self::OPERATIONS.contains(&call.operation.as_str()) {
            let message =
                format!("echo answers chat and count_tokens only, not {}: name a vendor's model", call.operation);
            return Err(Fault::new(FaultClass::Unsupported, message));
        }
        let request = read_request(call, body)?;
        let input = input_tokens(&request);
        if call.operation == "count_tokens" {
            return Ok((Unasked, Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })])));
        }
        Ok((Unasked, Plan::Answer(self.answer(call, &request, input))))
    }

    fn reject(&self, status: u16, _: &Pairs, _: &[u8]) -> Fault {
        Fault::new(FaultClass::VendorBug, format!("echo asks no vendor, yet was given an answer with status {status}"))
    }
}

impl Echo {
    fn answer(&self, call: &Call, request: &Request, input: u64) -> Vec<Event> {
        let said = last_words(request);
        let mut events = vec![Event::Start { id: format!("echo-{}", call.id), model: call.model.clone() }];
        let mut usage = Usage { input, ..Usage::default() };
        let asked = request.reasoning.as_ref().is_some_and(|reasoning| reasoning.enabled != Some(false));
        if self.0.reasoning || asked {
            let thought = format!("The last message has {} characters. I will repeat it.", said.chars().count());
            usage.reasoning = text_tokens(&thought);
            events.extend([Event::Reasoning(thought), Event::BlockEnd]);
        }
        let finish = match tool_call(request, &said) {
            Some((name, input)) => {
                usage.output = text_tokens(&input);
                let id = format!("call_{}", call.id.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_"));
                events.push(Event::Tool { index: 0, id, name });
                events.extend(halves(&input).map(|json| Event::ToolInput { index: 0, json }));
                events.push(Event::BlockEnd);
                "tool_calls"
            }
            None => {
                let mut text = format!("{}{said}", self.0.prefix);
                let cut = shorten(&mut text, request.output_tokens_max);
                usage.output = text_tokens(&text);
                events.extend(words(&text).map(|word| Event::Text(word.to_owned())));
                events.push(Event::BlockEnd);
                if cut { "length" } else { "stop" }
            }
        };
        events.push(Event::Usage(usage));
        events.push(Event::Finish(Finish { reason: finish.to_owned(), sequence: None }));
        events
    }
}

/// The text of the last user message, with what is not text named in brackets.
fn last_words(request: &Request) -> String {
    let Some(Message { blocks, .. }) = request.messages.iter().rev().find(|message| message.role == Role::User) else {
        return String::new();
    };
    blocks.iter().filter_map(block_text).collect::<Vec<_>>().join("\n")
}

fn block_text(block: &Block) -> Option<String> {
    match &block.content {
        Content::Text { text, .. } => Some(text.clone()),
        Content::Media { kind, .. } => Some(format!("[{kind}]")),
        Content::ToolResult { id, blocks, .. } => {
            let inner = blocks.iter().filter_map(block_text).collect::<Vec<_>>().join("\n");
            Some(format!("[result of {id}] {inner}"))
        }
        _ => None,
    }
}

/// The tool to call, and its input. `call:NAME {json}` calls that tool; a request that demands a tool gets its first one,
/// or the named one, with an input made from the schema.
fn tool_call(request: &Request, said: &str) -> Option<(String, String)> {
    let named = |name: &str| request.tools.iter().find(|tool| tool.name == name);
    if let Some(order) = said.trim_start().strip_prefix("call:") {
        let (name, input) = order.split_once(char::is_whitespace).unwrap_or((order, ""));
        let tool = named(name)?;
        let input = input.trim();
        let input = if serde_json::from_str::<Value>(input).is_ok_and(|value| value.is_object()) {
            input.to_owned()
        } else {
            sample_input(tool)
        };
        return Some((name.to_owned(), input));
    }
    let tool = match request.tool_choice.as_ref()? {
        ToolChoice::Required => request.tools.first()?,
        ToolChoice::Tool(name) => named(name)?,
        ToolChoice::Auto | ToolChoice::None => return None,
    };
    // Once the tool has answered, a model would talk about the result.
    let answered = request
        .messages
        .last()
        .is_some_and(|message| message.blocks.iter().any(|block| matches!(block.content, Content::ToolResult { .. })));
    (!answered).then(|| (tool.name.clone(), sample_input(tool)))
}

/// An input that has every required member, each with a plain value of its type.
fn sample_input(tool: &Tool) -> String {
    let properties = tool.parameters.get("properties").and_then(Value::as_object);
    let required = tool.parameters.get("required").and_then(Value::as_array);
    let mut input = Map::new();
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        let schema = properties.and_then(|properties| properties.get(name)).unwrap_or(&Value::Null);
        input.insert(name.to_owned(), sample(schema));
    }
    Value::Object(input).to_string()
}

fn sample(schema: &Value) -> Value {
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(|values| values.first()) {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => Value::from(1),
        Some("boolean") => Value::Bool(true),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => Value::Object(Map::new()),
        _ => Value::from("echo"),
    }
}

/// Cuts the text to the longest beginning that the ceiling allows; whether it was cut.
fn shorten(text: &mut String, tokens_max: Option<u64>) -> bool {
    let Some(tokens_max) = tokens_max.filter(|tokens_max| text_tokens(text) > *tokens_max) else { return false };
    let ends: Vec<usize> = text.char_indices().map(|(end, _)| end).collect();
    let fitting = ends.partition_point(|end| text_tokens(&text[..*end]) <= tokens_max);
    text.truncate(fitting.checked_sub(1).map_or(0, |last| ends[last]));
    true
}

/// The words of the text, each with the white space that follows it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

/// Two pieces, so that a caller who streams sees a tool's input arrive in parts.
fn halves(json: &str) -> impl Iterator<Item = String> {
    let (first, second) = json.split_at(json.floor_char_boundary(json.len() / 2));
    [first.to_owned(), second.to_owned()].into_iter().filter(|piece| !piece.is_empty())
}

penstock_sdk::adapter!(Echo);

#[cfg(test)]
mod tests {
    use super::Echo;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Echo>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
