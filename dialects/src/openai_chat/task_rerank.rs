// SPDX-License-Identifier: Apache-2.0
//! Rerank, which OpenAI does not have and many of its kin do, in the shape that Cohere gave it: Jina, vLLM, llama.cpp,
//! `SiliconFlow`, `OpenRouter`, Voyage (`top_k`, and `data` for `results`).

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::task::{self, Answer};
use super::{NAME, task_embed, usage};
use crate::codec::Envelope;
use crate::ir::{Event, Fault, Response, Usage};
use crate::members::Fields;
use crate::task::{RANKING, Rerank};

/// Reads a request.
pub(super) fn decode(body: &[u8]) -> Result<Rerank, Fault> {
    let mut fields = Fields::of_body(body)?;
    let model = fields.required_text("model")?;
    let query = fields.required_text("query")?;
    let documents = fields.list("documents")?.ok_or_else(|| fields.wrong("documents", "is required"))?;
    let mut task = Rerank { model, query, documents, ..Rerank::default() };
    // Voyage's word is understood, and kept as it came.
    task.top_n = fields.count("top_n")?.or(fields.peek("top_k").and_then(Value::as_u64));
    task.return_documents = fields.flag("return_documents")?;
    let rest = fields.rest();
    if !rest.is_empty() {
        task.extensions.insert(NAME.to_owned(), rest);
    }
    Ok(task)
}

/// Writes a request, and the paths of what is left out.
pub(super) fn encode(task: &Rerank) -> (Vec<u8>, Vec<String>) {
    let mut body = Map::new();
    body.insert("model".to_owned(), json!(task.model));
    body.insert("query".to_owned(), json!(task.query));
    body.insert("documents".to_owned(), json!(task.documents));
    let in_own_word = task.extensions.get(NAME).is_some_and(|own| own.contains_key("top_k"));
    if let Some(top) = task.top_n.filter(|_| !in_own_word) {
        body.insert("top_n".to_owned(), json!(top));
    }
    if let Some(wanted) = task.return_documents {
        body.insert("return_documents".to_owned(), json!(wanted));
    }
    let mut dropped = Vec::new();
    task_embed::extend(&mut body, &task.extensions, &mut dropped);
    (Value::Object(body).to_string().into_bytes(), dropped)
}

/// One ranked document, as the vendors write it.
#[derive(Deserialize)]
struct Item<'b> {
    index: Option<u64>,
    #[serde(borrow, alias = "score")]
    relevance_score: Option<&'b RawValue>,
    #[serde(borrow)]
    document: Option<&'b RawValue>,
}

/// Reads an answer.
pub(super) fn decode_result(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let mut answer = Answer::read(body, &["results", "data"])?;
    let mut events = vec![answer.start()];
    let ranked = answer.take("results").or_else(|| answer.take("data"));
    let items: Vec<Item<'_>> = ranked.map(|raw| task::list(raw, "results")).transpose()?.unwrap_or_default();
    events.extend((0..).zip(items).map(|(place, item)| ranking(place, &item)));
    let usage = usage::read(&answer.value("usage")).or_else(|| of_meta(&answer.look("meta")));
    answer.conclude(usage, &mut events);
    Ok(events)
}

fn ranking(place: u64, item: &Item<'_>) -> Event {
    let index = item.index.unwrap_or(place);
    let score = item.relevance_score.map_or("0", RawValue::get);
    let json = match item.document.map(RawValue::get).filter(|raw| *raw != "null") {
        Some(document) => format!("{{\"index\":{index},\"score\":{score},\"document\":{document}}}"),
        None => format!("{{\"index\":{index},\"score\":{score}}}"),
    };
    Event::Other { name: RANKING.to_owned(), json }
}

/// `SiliconFlow` and Cohere count in `meta`: tokens, and units that are billed.
fn of_meta(meta: &Value) -> Option<Usage> {
    let count = |pointer: &str| meta.pointer(pointer).and_then(Value::as_u64);
    let input = count("/tokens/input_tokens").or(count("/billed_units/input_tokens"));
    let output = count("/tokens/output_tokens").or(count("/billed_units/output_tokens"));
    let units = count("/billed_units/search_units").filter(|units| *units > 0);
    input.or(output).or(units)?;
    let more = units.map(|units| ("search-units".to_owned(), units)).into_iter().collect();
    let (input, output) = (input.unwrap_or_default(), output.unwrap_or_default());
    Some(Usage { input, output, more, stated: meta.to_string(), ..Usage::default() })
}

/// Writes an answer.
pub(super) fn encode_result(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let results = task::events(response, RANKING).filter_map(|json| {
        let ranked: Ranked<'_> = serde_json::from_str(json).ok()?;
        let document = ranked.document.map(|raw| format!(",\"document\":{}", raw.get())).unwrap_or_default();
        Some(format!("{{\"index\":{},\"relevance_score\":{}{document}}}", ranked.index, ranked.score.get()))
    });
    let results = results.collect::<Vec<_>>().join(",");
    let mut answer = task::begun(response);
    if !response.id.is_empty() {
        answer.insert("id".to_owned(), json!(response.id));
    }
    answer.insert("object".to_owned(), json!("list"));
    answer.insert("model".to_owned(), json!(task::model(response, envelope)));
    if let Some(usage) = &response.usage {
        answer.insert("usage".to_owned(), task::input_usage(usage));
    }
    let head = Value::Object(answer).to_string();
    format!("{},\"results\":[{results}]}}", head.strip_suffix('}').unwrap_or_default()).into_bytes()
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
