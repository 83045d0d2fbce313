// SPDX-License-Identifier: Apache-2.0
//! Rankings: `POST /rerank` (<https://docs.cohere.com/reference/rerank>). Version 2 takes texts only and does not repeat
//! them; objects, `rank_fields` and `return_documents` of version 1 are read.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answer::{answer_id, other};
use super::{NAME, REST, embed, fault, unreadable, usage};
use crate::codec::Envelope;
use crate::ir::{Event, Fault, Finish, Response};
use crate::members::Fields;
use crate::task::{RANKING, Rerank};

/// Reads a request.
pub(super) fn decode(body: &[u8]) -> Result<Rerank, Fault> {
    let mut fields = Fields::of_body(body)?;
    let model = fields.required_text("model")?;
    let query = fields.required_text("query")?;
    let documents = fields.list("documents")?.ok_or_else(|| fields.wrong("documents", "is required"))?;
    let mut task = Rerank { model, query, documents, top_n: fields.count("top_n")?, ..Rerank::default() };
    task.return_documents = fields.flag("return_documents")?;
    let rest = fields.rest();
    if !rest.is_empty() {
        task.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(task)
}

/// Writes a request, and the paths of what is left out. Whether documents come back is settled by
/// [`crate::settle::settle`].
pub(super) fn encode(task: &Rerank) -> (Vec<u8>, Vec<String>) {
    let mut dropped = Vec::new();
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(task.model));
    body.insert("query".to_owned(), json!(task.query));
    body.insert("documents".to_owned(), task.documents.iter().map(document).collect());
    // Zero is what others say for none; the API refuses it.
    if let Some(top) = task.top_n.filter(|top| *top > 0) {
        body.insert("top_n".to_owned(), json!(top));
    }
    embed::extend(&mut body, &task.extensions, &mut dropped);
    (Value::Object(body).to_string().into_bytes(), dropped)
}

/// A document as text: its own if it has one, or all of it.
fn document(given: &Value) -> Value {
    match given {
        Value::String(_) => given.clone(),
        Value::Object(members) => match members.get("text") {
            Some(text @ Value::String(_)) if members.len() == 1 => text.clone(),
            _ => json!(given.to_string()),
        },
        other => json!(other.to_string()),
    }
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Wire<'b> {
    id: Option<String>,
    #[serde(borrow)]
    results: Option<Vec<Item<'b>>>,
    #[serde(default)]
    meta: Value,
}

#[derive(Deserialize)]
struct Item<'b> {
    index: u64,
    #[serde(borrow)]
    relevance_score: &'b RawValue,
    #[serde(borrow)]
    document: Option<&'b RawValue>,
}

/// Reads an answer.
pub(super) fn decode_result(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let wire: Wire<'_> = serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))?;
    let Some(results) = wire.results else {
        let object = serde_json::from_slice(body).unwrap_or_default();
        return Err(fault::in_band(&object).unwrap_or_else(|| unreadable("it has no `results`")));
    };
    let mut events = vec![Event::Start { id: wire.id.unwrap_or_default(), model: String::new() }];
    for Item { index, relevance_score, document } in results {
        let document = document.map(|raw| format!(",\"document\":{}", raw.get())).unwrap_or_default();
        let json = format!("{{\"index\":{index},\"score\":{}{document}}}", relevance_score.get());
        events.push(Event::Other { name: RANKING.to_owned(), json });
    }
    let object: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let known = |name: &str| ["id", "results", "meta"].contains(&name);
    let rest: Map<String, Value> =
        object.into_iter().filter(|(name, value)| !known(name) && !value.is_null()).collect();
    if !rest.is_empty() {
        events.push(other(REST, &Value::Object(rest)));
    }
    events.extend(usage::read(&wire.meta).map(Event::Usage));
    events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
    Ok(events)
}

/// The JSON of an event.
#[derive(Deserialize)]
struct Ranked<'j> {
    index: u64,
    #[serde(borrow)]
    score: &'j RawValue,
    #[serde(borrow)]
    document: Option<&'j RawValue>,
}

/// Writes an answer.
pub(super) fn encode_result(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let ranked = response.other.iter().filter(|(name, _)| name == RANKING);
    let results = ranked.filter_map(|(_, json)| {
        let ranked: Ranked<'_> = serde_json::from_str(json).ok()?;
        let document = ranked.document.map(|raw| format!(",\"document\":{}", raw.get())).unwrap_or_default();
        Some(format!("{{\"index\":{},\"relevance_score\":{}{document}}}", ranked.index, ranked.score.get()))
    });
    let results = results.collect::<Vec<_>>().join(",");
    let mut answer = Map::new();
    answer.insert("id".to_owned(), json!(answer_id(&response.id, envelope)));
    for (_, json) in response.other.iter().filter(|(name, _)| name == REST) {
        answer.extend(serde_json::from_str::<Map<String, Value>>(json).unwrap_or_default());
    }
    answer.insert("meta".to_owned(), usage::write_meta(response.usage.as_ref()));
    let head = Value::Object(answer).to_string();
    format!("{},\"results\":[{results}]}}", head.strip_suffix('}').unwrap_or_default()).into_bytes()
}
