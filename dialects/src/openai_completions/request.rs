// SPDX-License-Identifier: Apache-2.0
//! Requests: a prompt is one message of the user.
//!
//! Normalised on the way (a request that is read and written again differs in this only): nulls are left out, a list of
//! one prompt becomes that prompt, a `stop` string becomes a list, `n` and `best_of` of one are left out.

use serde_json::{Map, Value, json};

use super::NAME;
use crate::ir::{Block, Content, Fault, Message, Request, Role, Source};
use crate::members::{Fields, plain_number};

/// What this dialect answers with where the caller of another one names no ceiling. OpenAI's own default are 16 tokens,
/// which no caller of a chat would expect.
const OUTPUT_TOKENS_DEFAULT: u64 = 1024;

/// Reads a request.
pub(super) fn decode(body: &[u8]) -> Result<Request, Fault> {
    let mut fields = Fields::of_body(body)?;
    let mut request = Request { model: fields.required_text("model")?, ..Request::default() };
    let prompt = prompt(&mut fields)?;
    request.messages.push(Message { role: Role::User, name: None, blocks: vec![Block::text(prompt)] });
    for several in ["n", "best_of"] {
        if fields.count(several)?.is_some_and(|count| count > 1) {
            return Err(fields.wrong(several, "more than one answer cannot be translated for this model; ask for one"));
        }
    }
    request.output_tokens_max = fields.count("max_tokens")?;
    request.temperature = fields.number("temperature")?;
    request.top_p = fields.number("top_p")?;
    request.top_k = fields.count("top_k")?;
    request.stop = stop(&mut fields)?;
    request.seed = fields.integer("seed")?;
    request.user = fields.text("user")?;
    request.streaming = fields.flag("stream")?.unwrap_or_default();
    if let Some(mut options) = fields.object("stream_options")? {
        request.stream_usage = options.flag("include_usage")?.unwrap_or_default();
        fields.put_rest("stream_options", options);
    }
    // Always there, so that the writer knows a caller of this dialect.
    request.extensions.insert(NAME.to_owned(), fields.rest());
    Ok(request)
}

/// The prompt: one text. Tokens and several prompts reach only vendors that the request is relayed to.
fn prompt(fields: &mut Fields) -> Result<String, Fault> {
    match fields.take("prompt") {
        None => Err(fields.wrong("prompt", "is required")),
        Some(Value::String(prompt)) => Ok(prompt),
        Some(Value::Array(mut list)) => match (list.len(), list.pop()) {
            (1, Some(Value::String(prompt))) => Ok(prompt),
            (_, Some(Value::String(_))) => {
                Err(fields.wrong("prompt", "several prompts cannot be translated for this model; send one by one"))
            }
            (_, Some(Value::Number(_) | Value::Array(_))) => {
                Err(fields.wrong("prompt", "tokens cannot be translated for this model; send the text"))
            }
            _ => Err(fields.wrong("prompt", "must be a string or a list of strings")),
        },
        Some(_) => Err(fields.wrong("prompt", "must be a string or a list of strings")),
    }
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, Fault> {
    match fields.take("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop]),
        Some(stop) => {
            serde_json::from_value(stop).map_err(|_| fields.wrong("stop", "must be a string or a list of strings"))
        }
    }
}

/// Writes a request, and the paths of what it leaves out.
pub(super) fn encode(request: &Request) -> (Vec<u8>, Vec<String>) {
    let mut dropped = Vec::new();
    let own = request.extensions.get(NAME);
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("model", Some(json!(request.model)));
    set("prompt", Some(Value::from(written_prompt(request, &mut dropped))));
    let ceiling = request.output_tokens_max.or((own.is_none()).then_some(OUTPUT_TOKENS_DEFAULT));
    set("max_tokens", ceiling.map(Value::from));
    set("temperature", request.temperature.map(plain_number));
    set("top_p", request.top_p.map(plain_number));
    // OpenAI does not know it; the local servers that speak this dialect do.
    set("top_k", request.top_k.map(Value::from));
    set("stop", (!request.stop.is_empty()).then(|| json!(request.stop)));
    set("seed", request.seed.map(Value::from));
    set("user", request.user.as_deref().map(Value::from));
    set("stream", request.streaming.then(|| json!(true)));
    set("stream_options", request.stream_usage.then(|| json!({ "include_usage": true })));
    dropped.extend((0..request.tools.len()).map(|index| format!("tools[{index}]")));
    let absent = [
        ("tool_choice", request.tool_choice.is_some()),
        ("format", request.format.is_some()),
        ("reasoning", request.reasoning.is_some()),
    ];
    dropped.extend(absent.into_iter().filter(|(_, stated)| *stated).map(|(name, _)| name.to_owned()));
    for (dialect, members) in &request.extensions {
        for (name, value) in members {
            match body.get_mut(name) {
                _ if dialect != NAME => dropped.push(name.clone()),
                Some(Value::Object(written)) => written.extend(value.as_object().cloned().unwrap_or_default()),
                _ => {
                    body.insert(name.clone(), value.clone());
                }
            }
        }
    }
    (Value::Object(body).to_string().into_bytes(), dropped)
}

/// The conversation as a text that the model continues. One message of the user is its text; of more, everybody's words
/// stand behind who says them, and the assistant is next.
fn written_prompt(request: &Request, dropped: &mut Vec<String>) -> String {
    let system = texts(&request.system, "system", dropped);
    if let ([only], true) = (request.messages.as_slice(), system.is_empty())
        && only.role == Role::User
    {
        return texts(&only.blocks, "messages[0].blocks", dropped);
    }
    let mut prompt = system;
    for (index, message) in request.messages.iter().enumerate() {
        let who = match message.role {
            Role::System => "System",
            Role::User => "User",
            Role::Assistant => "Assistant",
        };
        let said = texts(&message.blocks, &format!("messages[{index}].blocks"), dropped);
        if !said.is_empty() {
            let gap = if prompt.is_empty() { "" } else { "\n\n" };
            prompt.push_str(&format!("{gap}{who}: {said}"));
        }
    }
    prompt.push_str("\n\nAssistant:");
    prompt
}

fn texts(blocks: &[Block], path: &str, dropped: &mut Vec<String>) -> String {
    let mut texts = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        match &block.content {
            Content::Text { text, .. } | Content::Refusal { text } => texts.push(text.as_str()),
            Content::Media { source: Source::Text { text }, .. } => texts.push(text),
            _ => dropped.push(format!("{path}[{index}]")),
        }
        if block.cache.is_some() {
            dropped.push(format!("{path}[{index}].cache"));
        }
    }
    texts.join("\n\n")
}
