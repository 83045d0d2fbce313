// SPDX-License-Identifier: Apache-2.0
//! Vectors: `POST /embed` (<https://docs.cohere.com/reference/embed>). The answer has a list for each encoding, in which the
//! vectors stand in the order of the inputs; the shape that version 1 has for plain floats is read, too.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answer::{answer_id, other};
use super::{NAME, REST, fault, messages, turns, unreadable, usage};
use crate::codec::Envelope;
use crate::ir::{Block, Content, Event, Fault, FaultClass, Finish, Response};
use crate::members::{Fields, wrong};
use crate::task::{EMBEDDING, Embed, EmbedInput};
use crate::vectors::{self, FLOAT, Vector};

/// The `input_type` of pictures, which says nothing that they do not say.
const IMAGE: &str = "image";

/// What a vector is for where nobody says it: the API demands a word.
const PURPOSE_DEFAULT: &str = "search_document";

/// What the API knows of what vectors are for.
const PURPOSES: &[&str] = &["search_document", "search_query", "classification", "clustering", IMAGE];

/// Reads a request.
pub(super) fn decode(body: &[u8]) -> Result<Embed, Fault> {
    let mut fields = Fields::of_body(body)?;
    let mut task = Embed { model: fields.required_text("model")?, ..Embed::default() };
    task.input.extend(fields.texts("texts")?.unwrap_or_default().into_iter().map(EmbedInput::Text));
    for url in fields.texts("images")?.unwrap_or_default() {
        let source = messages::source(&url);
        let content = Content::Media { kind: "image".to_owned(), source, title: None, detail: None };
        task.input.push(EmbedInput::Blocks(vec![Block::new(content)]));
    }
    for (index, input) in fields.list("inputs")?.unwrap_or_default().into_iter().enumerate() {
        task.input.push(self::input(input, &format!("inputs[{index}]"))?);
    }
    if task.input.is_empty() {
        return Err(fields.wrong("texts", "is required, or images, or inputs"));
    }
    task.dimensions = fields.count("output_dimension")?;
    task.encodings = fields.texts("embedding_types")?.unwrap_or_default();
    task.purpose = fields.text("input_type")?.filter(|purpose| purpose != IMAGE);
    task.truncate = fields.text("truncate")?.map(|word| word.to_ascii_lowercase());
    let rest = fields.rest();
    if !rest.is_empty() {
        task.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(task)
}

fn input(value: Value, path: &str) -> Result<EmbedInput, Fault> {
    let mut fields = Fields::of(value, path)?;
    let parts = fields.list("content")?.ok_or_else(|| fields.wrong("content", "is required"))?;
    let path = fields.at("content");
    let part = |(index, part): (usize, Value)| match messages::part(part, &format!("{path}[{index}]"))? {
        Block { content: Content::Opaque { .. }, .. } => Err(wrong(&format!("{path}[{index}].type"), "is not known")),
        block => Ok(block),
    };
    parts.into_iter().enumerate().map(part).collect::<Result<_, _>>().map(EmbedInput::Blocks)
}

/// Writes a request, and the paths of what is left out.
pub(super) fn encode(task: &Embed) -> Result<(Vec<u8>, Vec<String>), Fault> {
    let mut dropped = Vec::new();
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(task.model));
    let pictured = inputs(task, &mut body)?;
    let purpose = task.purpose.as_deref().filter(|purpose| PURPOSES.contains(purpose));
    if purpose.is_none() && task.purpose.is_some() {
        dropped.push("purpose".to_owned());
    }
    let purpose = purpose.unwrap_or(if pictured { IMAGE } else { PURPOSE_DEFAULT });
    body.insert("input_type".to_owned(), json!(purpose));
    let encodings = if task.encodings.is_empty() { vec![FLOAT.to_owned()] } else { task.encodings.clone() };
    body.insert("embedding_types".to_owned(), json!(encodings));
    if let Some(dimensions) = task.dimensions {
        body.insert("output_dimension".to_owned(), json!(dimensions));
    }
    if let Some(truncate) = &task.truncate {
        body.insert("truncate".to_owned(), json!(truncate.to_ascii_uppercase()));
    }
    if task.user.is_some() {
        dropped.push("user".to_owned());
    }
    extend(&mut body, &task.extensions, &mut dropped);
    Ok((Value::Object(body).to_string().into_bytes(), dropped))
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

/// Writes the inputs where the API has a place for them, and tells whether they are pictures and nothing else.
///
/// An input is never left out: the vectors after it would be those of other inputs.
fn inputs(task: &Embed, body: &mut Map<String, Value>) -> Result<bool, Fault> {
    let text = |input: &EmbedInput| match input {
        EmbedInput::Text(text) => Some(json!(text)),
        _ => None,
    };
    if let Some(texts) = task.input.iter().map(text).collect::<Option<Vec<_>>>() {
        body.insert("texts".to_owned(), Value::from(texts));
        return Ok(false);
    }
    let contents = task.input.iter().enumerate().map(|(index, input)| parts(input, &format!("input[{index}]")));
    let mut contents = contents.collect::<Result<Vec<_>, _>>()?;
    let is_picture = |content: &Vec<Value>| matches!(content.as_slice(), [only] if only["type"] == "image_url");
    let pictured = contents.iter().all(is_picture);
    match contents.as_mut_slice() {
        // Models before version 4 know pictures in this place only, one at a time.
        [only] if pictured => body.insert("images".to_owned(), json!([only[0]["image_url"]["url"].take()])),
        _ => {
            let content = |content: Vec<Value>| json!({ "content": content });
            body.insert("inputs".to_owned(), contents.into_iter().map(content).collect())
        }
    };
    Ok(pictured)
}

fn parts(input: &EmbedInput, path: &str) -> Result<Vec<Value>, Fault> {
    let refuse = |path: &str, what: &str| Fault::new(FaultClass::Unsupported, format!("{path}: {what}"));
    match input {
        EmbedInput::Text(text) => Ok(vec![json!({ "type": "text", "text": text })]),
        EmbedInput::Tokens(_) => Err(refuse(path, "Cohere embeds texts and pictures, no tokens of another vendor")),
        EmbedInput::Blocks(blocks) => {
            let part = |(index, block): (usize, &Block)| match &block.content {
                Content::Text { text, .. } => Ok(json!({ "type": "text", "text": text })),
                Content::Media { kind, source, .. } if kind == "image" => Ok(turns::image(source, None)),
                _ => Err(refuse(&format!("{path}.blocks[{index}]"), "Cohere embeds texts and pictures")),
            };
            blocks.iter().enumerate().map(part).collect()
        }
    }
}

/// Reads an answer.
pub(super) fn decode_result(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let answer: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))?;
    let Some(embeddings) = answer.get("embeddings") else {
        let object = serde_json::from_slice(body).unwrap_or_default();
        return Err(fault::in_band(&object).unwrap_or_else(|| unreadable("it has no `embeddings`")));
    };
    let value = |name: &str| -> Value {
        answer.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    };
    let id = value("id").as_str().unwrap_or_default().to_owned();
    let mut events = vec![Event::Start { id, model: String::new() }];
    if embeddings.get().starts_with('[') {
        list_events(FLOAT, embeddings, &mut events)?;
    } else {
        let by_type: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(embeddings.get()).map_err(|error| unreadable(&error.to_string()))?;
        for (encoding, list) in by_type.iter().filter(|(_, list)| list.get() != "null") {
            list_events(encoding.trim_end_matches('_'), list, &mut events)?;
        }
    }
    let known = ["id", "embeddings", "meta", "response_type"];
    let rest = answer.keys().filter(|name| !known.contains(&name.as_ref())).map(|name| (name.to_string(), value(name)));
    let rest: Map<String, Value> = rest.filter(|(_, value)| !value.is_null()).collect();
    if !rest.is_empty() {
        events.push(other(REST, &Value::Object(rest)));
    }
    events.extend(usage::read(&value("meta")).map(Event::Usage));
    events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
    Ok(events)
}

fn list_events(encoding: &str, list: &RawValue, events: &mut Vec<Event>) -> Result<(), Fault> {
    let vectors: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|error| unreadable(&error.to_string()))?;
    events.extend((0..).zip(vectors).map(|(index, raw)| vectors::event(index, encoding, raw)));
    Ok(())
}

/// Writes an answer.
pub(super) fn encode_result(response: &Response, envelope: &Envelope) -> Vec<u8> {
    #[derive(Serialize)]
    struct Wire {
        id: String,
        embeddings: BTreeMap<String, Vec<Box<RawValue>>>,
        #[serde(flatten)]
        rest: Map<String, Value>,
    }
    let vectors = response.other.iter().filter(|(name, _)| name == EMBEDDING);
    let mut vectors: Vec<Vector<'_>> = vectors.filter_map(|(_, json)| Vector::read(json)).collect();
    vectors.sort_by_key(|vector| vector.index);
    let mut embeddings: BTreeMap<String, Vec<Box<RawValue>>> = BTreeMap::new();
    for vector in vectors {
        embeddings.entry(vector.encoding.to_string()).or_default().extend(vector.raw());
    }
    let mut rest = Map::new();
    rest.insert("texts".to_owned(), json!([]));
    for (_, json) in response.other.iter().filter(|(name, _)| name == REST) {
        rest.extend(serde_json::from_str::<Map<String, Value>>(json).unwrap_or_default());
    }
    rest.insert("meta".to_owned(), usage::write_meta(response.usage.as_ref()));
    rest.insert("response_type".to_owned(), json!("embeddings_by_type"));
    serde_json::to_vec(&Wire { id: answer_id(&response.id, envelope), embeddings, rest }).unwrap_or_default()
}
