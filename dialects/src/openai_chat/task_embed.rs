// SPDX-License-Identifier: Apache-2.0
//! Embeddings (platform.openai.com/docs/api-reference/embeddings), and what compatible vendors add: inputs of several
//! parts (`OpenRouter`, Jina), `input_type` and `truncation` (Voyage), answers of Ollama and of text-embeddings-inference.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::task::{self, Answer};
use super::{NAME, asking, content, usage};
use crate::codec::Envelope;
use crate::ir::{Block, Content, Event, Fault, Finish, Response, Usage};
use crate::members::{Fields, wrong};
use crate::task::{EMBEDDING, Embed, EmbedInput};
use crate::vectors::{self, BASE64, FLOAT, Vector};

/// Reads a request.
pub(super) fn decode(body: &[u8]) -> Result<Embed, Fault> {
    let mut fields = Fields::of_body(body)?;
    let mut task = Embed { model: fields.required_text("model")?, ..Embed::default() };
    let input = fields.take("input").ok_or_else(|| fields.wrong("input", "is required"))?;
    (task.input, task.single) = inputs(input)?;
    task.dimensions = fields.count("dimensions")?;
    task.encodings = fields.text("encoding_format")?.into_iter().collect();
    task.user = fields.text("user")?;
    // Compatible vendors know these; they are understood, and kept as they came.
    task.purpose = fields.peek("input_type").and_then(Value::as_str).map(purpose);
    task.truncate = truncate(&fields);
    task.dimensions = task.dimensions.or(fields.peek("output_dimension").and_then(Value::as_u64));
    let rest = fields.rest();
    if !rest.is_empty() {
        task.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(task)
}

fn purpose(word: &str) -> String {
    match word {
        "query" => "search_query",
        "document" | "passage" => "search_document",
        other => other,
    }
    .to_owned()
}

fn truncate(fields: &Fields) -> Option<String> {
    match (fields.peek("truncate"), fields.peek("truncation")) {
        (Some(Value::String(word)), _) => Some(word.to_ascii_lowercase()),
        (_, Some(Value::Bool(true))) => Some("end".to_owned()),
        (_, Some(Value::Bool(false))) => Some("none".to_owned()),
        _ => None,
    }
}

/// The inputs, and whether there is one that stands for itself.
fn inputs(input: Value) -> Result<(Vec<EmbedInput>, bool), Fault> {
    match input {
        Value::String(text) => Ok((vec![EmbedInput::Text(text)], true)),
        Value::Array(list) if list.is_empty() => Err(wrong("input", "must not be empty")),
        Value::Array(list) if list.iter().all(Value::is_number) => {
            Ok((vec![tokens(&list, "input").map(EmbedInput::Tokens)?], true))
        }
        Value::Array(list) => {
            let read = |(index, value)| self::input(value, &format!("input[{index}]"));
            Ok((list.into_iter().enumerate().map(read).collect::<Result<_, _>>()?, false))
        }
        object @ Value::Object(_) => Ok((vec![self::input(object, "input")?], true)),
        _ => Err(wrong("input", "must be a string, a list of tokens, or a list of these")),
    }
}

fn input(value: Value, path: &str) -> Result<EmbedInput, Fault> {
    match value {
        Value::String(text) => Ok(EmbedInput::Text(text)),
        Value::Array(list) => tokens(&list, path).map(EmbedInput::Tokens),
        Value::Object(members) => {
            let parts = match members.get("content") {
                Some(Value::Array(parts)) => parts.clone(),
                _ => vec![part_of(&members)],
            };
            let read = |(index, part)| content::part(part, &format!("{path}.content[{index}]"));
            Ok(EmbedInput::Blocks(parts.into_iter().enumerate().map(read).collect::<Result<_, _>>()?))
        }
        _ => Err(wrong(path, "must be a string, a list of tokens or an object")),
    }
}

/// A part that stands for a whole input, also as Jina writes it: `{"text": …}`, `{"image": …}`.
fn part_of(members: &Map<String, Value>) -> Value {
    match (members.get("text"), members.get("image")) {
        _ if members.contains_key("type") => Value::Object(members.clone()),
        (Some(text), _) => json!({ "type": "text", "text": text }),
        (None, Some(image)) => json!({ "type": "image_url", "image_url": image }),
        (None, None) => Value::Object(members.clone()),
    }
}

fn tokens(list: &[Value], path: &str) -> Result<Vec<u64>, Fault> {
    let token = |token: &Value| token.as_u64().ok_or_else(|| wrong(path, "must be a list of tokens"));
    list.iter().map(token).collect()
}

/// Writes a request, and the paths of what is left out.
pub(super) fn encode(task: &Embed) -> (Vec<u8>, Vec<String>) {
    let mut dropped = Vec::new();
    let inputs = task.input.iter().enumerate();
    let mut inputs: Vec<Value> = inputs.map(|(index, input)| wire_input(input, index, &mut dropped)).collect();
    let input = if task.single && inputs.len() == 1 { inputs.remove(0) } else { Value::from(inputs) };
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(task.model));
    body.insert("input".to_owned(), input);
    let own = task.extensions.get(NAME);
    let has = |names: &[&str]| own.is_some_and(|own| names.iter().any(|name| own.contains_key(*name)));
    if let Some(dimensions) = task.dimensions.filter(|_| !has(&["output_dimension"])) {
        body.insert("dimensions".to_owned(), json!(dimensions));
    }
    let known = |encoding: &&String| own.is_some() || matches!(encoding.as_str(), FLOAT | BASE64);
    let encoding = task.encodings.iter().find(|encoding| matches!(encoding.as_str(), FLOAT | BASE64));
    let encoding = encoding.or_else(|| task.encodings.first().filter(known));
    if let Some(encoding) = encoding {
        body.insert("encoding_format".to_owned(), json!(encoding));
    }
    let left = task.encodings.iter().enumerate().filter(|(_, word)| Some(*word) != encoding);
    dropped.extend(left.map(|(index, _)| format!("encodings[{index}]")));
    if let Some(user) = &task.user {
        body.insert("user".to_owned(), json!(user));
    }
    if task.purpose.is_some() && !has(&["input_type"]) {
        dropped.push("purpose".to_owned());
    }
    if task.truncate.is_some() && !has(&["truncate", "truncation"]) {
        dropped.push("truncate".to_owned());
    }
    extend(&mut body, &task.extensions, &mut dropped);
    (Value::Object(body).to_string().into_bytes(), dropped)
}

/// Adds the members that only this dialect knows; those of other dialects are left out.
pub(super) fn extend(body: &mut Map<String, Value>, extensions: &crate::task::Extensions, dropped: &mut Vec<String>) {
    for (dialect, members) in extensions {
        for (name, value) in members {
            if dialect == NAME {
                body.insert(name.clone(), value.clone());
            } else {
                dropped.push(name.clone());
            }
        }
    }
}

fn wire_input(input: &EmbedInput, index: usize, dropped: &mut Vec<String>) -> Value {
    match input {
        EmbedInput::Text(text) => json!(text),
        EmbedInput::Tokens(tokens) => json!(tokens),
        EmbedInput::Blocks(blocks) => match texts(blocks) {
            Some(text) => json!(text),
            None => {
                let mut part = |(at, block): (usize, &Block)| {
                    let part = asking::plain_part(&block.content);
                    if part.is_none() {
                        dropped.push(format!("input[{index}].blocks[{at}]"));
                    }
                    part
                };
                let parts: Vec<Value> = blocks.iter().enumerate().filter_map(&mut part).collect();
                json!({ "content": parts })
            }
        },
    }
}

/// The text of an input that has nothing but text.
fn texts(blocks: &[Block]) -> Option<String> {
    let text = |block: &Block| match &block.content {
        Content::Text { text, .. } => Some(text.clone()),
        _ => None,
    };
    blocks.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.join("\n"))
}

/// One vector of an answer.
#[derive(Deserialize)]
struct Item<'b> {
    index: Option<u64>,
    #[serde(borrow)]
    embedding: &'b RawValue,
}

/// Reads an answer: `data` of OpenAI, `embeddings` of Ollama, or a bare list of vectors.
pub(super) fn decode_result(body: &[u8]) -> Result<Vec<Event>, Fault> {
    if body.trim_ascii_start().starts_with(b"[")
        && let Ok(vectors) = serde_json::from_slice::<Vec<&RawValue>>(body)
    {
        let mut events = vec![Event::Start { id: String::new(), model: String::new() }];
        events.extend((0..).zip(vectors).map(|(index, raw)| vectors::event(index, FLOAT, raw)));
        events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
        return Ok(events);
    }
    let mut answer = Answer::read(body, &["data", "embeddings"])?;
    let mut events = vec![answer.start()];
    if let Some(data) = answer.take("data") {
        let items: Vec<Item<'_>> = task::list(data, "data")?;
        let item = |(place, item): (u64, Item<'_>)| vectors::event(item.index.unwrap_or(place), FLOAT, item.embedding);
        events.extend((0..).zip(items).map(item));
    } else if let Some(embeddings) = answer.take("embeddings") {
        let vectors: Vec<&RawValue> = task::list(embeddings, "embeddings")?;
        events.extend((0..).zip(vectors).map(|(index, raw)| vectors::event(index, FLOAT, raw)));
    }
    let usage = usage::read(&answer.value("usage")).or_else(|| evaluated(&mut answer));
    answer.conclude(usage, &mut events);
    Ok(events)
}

/// Ollama's count.
fn evaluated(answer: &mut Answer<'_>) -> Option<Usage> {
    let count = answer.value("prompt_eval_count");
    let stated = json!({ "prompt_eval_count": count }).to_string();
    Some(Usage { input: count.as_u64()?, stated, ..Usage::default() })
}

/// Writes an answer.
pub(super) fn encode_result(response: &Response, envelope: &Envelope) -> Vec<u8> {
    #[derive(Serialize)]
    struct Wire {
        object: &'static str,
        index: u64,
        embedding: Box<RawValue>,
    }
    #[derive(Serialize)]
    struct List {
        object: &'static str,
        data: Vec<Wire>,
        #[serde(flatten)]
        rest: Map<String, Value>,
    }
    let mut data: Vec<Wire> = Vec::new();
    for vector in task::events(response, EMBEDDING).filter_map(Vector::read) {
        let Some(embedding) = vector.raw() else { continue };
        let wire = Wire { object: "embedding", index: vector.index, embedding };
        match data.iter_mut().find(|other| other.index == vector.index) {
            // This dialect has one encoding a vector: of several the one that every caller can read.
            Some(other) if vector.encoding == FLOAT => *other = wire,
            Some(_) => {}
            None => data.push(wire),
        }
    }
    let mut rest = task::begun(response);
    rest.insert("model".to_owned(), json!(task::model(response, envelope)));
    if !response.id.is_empty() {
        rest.insert("id".to_owned(), json!(response.id));
    }
    rest.insert("usage".to_owned(), task::input_usage(response.usage.as_ref().unwrap_or(&Usage::default())));
    serde_json::to_vec(&List { object: "list", data, rest }).unwrap_or_default()
}
