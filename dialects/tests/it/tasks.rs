// SPDX-License-Identifier: Apache-2.0
//! Vectors, rankings and pictures of recorded vendors: every answer is read whole and in order, written for a caller of the
//! same dialect it is what the vendor wrote, and a caller of the other dialect reads the same.

use penstock_dialects::codec::{Codec, Envelope, Operation};
use penstock_dialects::cohere_v2::CohereV2;
use penstock_dialects::ir::{FaultClass, Response, Usage};
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::settle::settle;
use penstock_dialects::task::{EMBEDDING, Embed, EmbedInput, IMAGE, RANKING, Task};
use penstock_dialects::vectors::Vector;
use serde_json::{Value, json};

use crate::anthropic::recorded::folded;
use crate::recordings::{Exchange, matching};

/// Recorded exchanges of an operation whose path ends so, in whatever dialect.
fn recorded(operation: &str, vendors: impl Fn(&str) -> bool, ends: &[&str]) -> Vec<Exchange> {
    let mut found =
        matching(operation, |meta| meta["operation"] == operation && vendors(meta["vendor"].as_str().unwrap()));
    found.retain(|exchange| {
        let url = exchange.request["url"].as_str().unwrap_or_default();
        ends.iter().any(|end| url.ends_with(end))
    });
    found
}

fn of_openai(operation: &str, ends: &[&str]) -> Vec<Exchange> {
    recorded(operation, |vendor| vendor != "cohere", ends)
}

fn of_cohere(operation: &str) -> Vec<Exchange> {
    recorded(operation, |vendor| vendor == "cohere", &["/embed", "/rerank"])
}

fn envelope(model: &str) -> Envelope {
    Envelope { request_id: "r-1".into(), model: model.into(), created: 7, ..Envelope::default() }
}

fn answer(codec: &dyn Codec, operation: Operation, exchange: &Exchange) -> Response {
    let events = codec.decode_result(operation, &exchange.answer);
    folded(&events.unwrap_or_else(|fault| panic!("{}: {}", exchange.name, fault.message)))
}

fn written(codec: &dyn Codec, operation: Operation, response: &Response) -> Value {
    serde_json::from_slice(&codec.encode_result(operation, response, &envelope(&response.model))).unwrap()
}

/// The task of a recorded request, and what it is written as again.
fn task(codec: &dyn Codec, operation: Operation, exchange: &Exchange) -> (Task, Value) {
    let body = exchange.request["body"].to_string();
    let task = codec.decode_task(operation, body.as_bytes());
    let task = task.unwrap_or_else(|fault| panic!("{}: {}", exchange.name, fault.message));
    assert_eq!(Task::from_json(operation, &task.to_json()).unwrap(), task, "{}", exchange.name);
    let (body, dropped) = codec.encode_task(operation, &task).unwrap();
    assert_eq!(dropped, [""; 0], "{}", exchange.name);
    (task, serde_json::from_slice(&body).unwrap())
}

fn without_nulls(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(members) = &mut value {
        members.retain(|_, value| !value.is_null());
    }
    value
}

fn others(response: &Response, name: &str) -> Vec<String> {
    response.other.iter().filter(|(other, _)| other == name).map(|(_, json)| json.clone()).collect()
}

/// Length of every vector, in the order of the inputs.
fn lengths(response: &Response) -> Vec<usize> {
    let vectors = others(response, EMBEDDING);
    let vectors: Vec<Vector<'_>> = vectors.iter().map(|json| Vector::read(json).unwrap()).collect();
    assert!((0..).zip(&vectors).all(|(place, vector)| vector.index == place), "in order");
    let length = |vector: &Vector<'_>| {
        let floats: Value = serde_json::from_str(&vector.as_floats().unwrap()).unwrap();
        floats["values"].as_array().unwrap().len()
    };
    vectors.iter().map(length).collect()
}

fn embed(task: &Task) -> &Embed {
    let Task::Embed(task) = task else { panic!("{task:?}") };
    task
}

#[test]
fn every_recorded_answer_with_vectors_is_read_and_written_as_the_vendor_wrote_it() {
    let mut vendors = Vec::new();
    for exchange in of_openai("embeddings", &["/embeddings", "/api/embed"]).iter().filter(|exchange| exchange.ok()) {
        let name = &exchange.name;
        let response = answer(&OpenAiChat, Operation::Embeddings, exchange);
        let (task, body) = task(&OpenAiChat, Operation::Embeddings, exchange);
        assert_eq!(body, without_nulls(&exchange.request["body"]), "{name}: the request");
        let asked = embed(&task);
        let lengths = lengths(&response);
        assert_eq!(lengths.len(), asked.input.len(), "{name}: a vector for each input");
        assert!(lengths.iter().all(|length| *length == lengths[0] && *length >= 128), "{name}: {lengths:?}");
        if let Some(dimensions) = asked.dimensions {
            assert_eq!(lengths[0] as u64, dimensions, "{name}");
        }
        let theirs: Value = serde_json::from_slice(&exchange.answer).unwrap();
        let usage = response.usage.as_ref().unwrap();
        let stated = [&theirs["usage"]["total_tokens"], &theirs["prompt_eval_count"]];
        let stated = stated.into_iter().find_map(Value::as_u64).unwrap();
        assert_eq!(usage.total(), stated, "{name}");
        assert_eq!(
            OpenAiChat.whole_usage(&exchange.answer).map(|usage| usage.total()),
            theirs["usage"]["total_tokens"].as_u64()
        );
        vendors.push(exchange.meta["vendor"].as_str().unwrap().to_owned());

        let mut ours = written(&OpenAiChat, Operation::Embeddings, &response);
        if theirs["embeddings"].is_array() {
            // Ollama's own shape is not OpenAI's: the vectors are the same.
            let vectors: Vec<&Value> = ours["data"].as_array().unwrap().iter().map(|item| &item["embedding"]).collect();
            assert_eq!(json!(vectors), theirs["embeddings"], "{name}");
            continue;
        }
        if theirs["usage"]["prompt_tokens"].is_null() {
            // Voyage states the total only; OpenAI's SDKs demand both.
            assert_eq!(ours["usage"].as_object_mut().unwrap().shift_remove("prompt_tokens"), Some(json!(stated)));
        }
        assert_eq!(ours, theirs, "{name}");
        let raw = serde_json::to_string(&theirs["data"][0]["embedding"]).unwrap();
        assert!(raw.len() > 100);
    }
    vendors.sort();
    vendors.dedup();
    let known =
        ["azure-openai", "dashscope", "llamacpp", "mistral", "ollama", "openai", "openrouter", "perplexity", "voyage"];
    assert!(vendors.is_empty() || vendors == known, "{vendors:?}");
}

#[test]
fn vectors_of_every_vendor_can_be_had_as_base64_and_as_numbers() {
    for exchange in of_openai("embeddings", &["/embeddings", "/api/embed"]).iter().filter(|exchange| exchange.ok()) {
        let response = answer(&OpenAiChat, Operation::Embeddings, exchange);
        let (task, _) = task(&OpenAiChat, Operation::Embeddings, exchange);
        let in_encoding = |encoding: &str| {
            let mut response = response.clone();
            let asked = Embed { encodings: vec![encoding.to_owned()], ..embed(&task).clone() };
            settle(&Task::Embed(asked), &mut response);
            assert_eq!(lengths(&response), lengths(&answer(&OpenAiChat, Operation::Embeddings, exchange)));
            written(&OpenAiChat, Operation::Embeddings, &response)["data"].take()
        };
        let (coded, listed) = (in_encoding("base64"), in_encoding("float"));
        for (coded, listed) in coded.as_array().unwrap().iter().zip(listed.as_array().unwrap()) {
            let text = coded["embedding"].as_str().unwrap_or_else(|| panic!("{}: {coded}", exchange.name));
            let bytes = base64(text);
            let again: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
            let numbers = listed["embedding"].as_array().unwrap();
            assert_eq!(again.len(), numbers.len(), "{}", exchange.name);
            for (again, number) in again.iter().zip(numbers) {
                let difference = (f64::from(*again) - number.as_f64().unwrap()).abs();
                assert!(difference <= 1e-7 * number.as_f64().unwrap().abs().max(1e-6), "{}", exchange.name);
            }
        }
    }
}

/// Base64, by the book and by another hand than the crate's.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| *known == byte).unwrap()).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn every_recorded_ranking_is_read_and_written_as_the_vendor_wrote_it() {
    let mut vendors = Vec::new();
    for exchange in of_openai("rerank", &["/rerank"]).iter().filter(|exchange| exchange.ok()) {
        let name = &exchange.name;
        let response = answer(&OpenAiChat, Operation::Rerank, exchange);
        let (_, body) = task(&OpenAiChat, Operation::Rerank, exchange);
        assert_eq!(body, exchange.request["body"], "{name}: the request");
        let theirs: Value = serde_json::from_slice(&exchange.answer).unwrap();
        assert_eq!(json!(response.usage.as_ref().unwrap().total()), theirs["usage"]["total_tokens"], "{name}");
        assert_eq!(OpenAiChat.whole_usage(&exchange.answer), response.usage, "{name}");
        vendors.push(exchange.meta["vendor"].as_str().unwrap().to_owned());

        let ours = written(&OpenAiChat, Operation::Rerank, &response);
        let mut expected = theirs.clone();
        let members = expected.as_object_mut().unwrap();
        // Listed: Voyage's `data` is `results`; what kind of JSON it is and the tokens of the prompt are always stated.
        if let Some(data) = members.shift_remove("data") {
            members.insert("results".into(), data);
        }
        members.insert("object".into(), json!("list"));
        members["usage"]["prompt_tokens"] = theirs["usage"]["total_tokens"].clone();
        assert_eq!(ours, expected, "{name}");
    }
    vendors.sort();
    vendors.dedup();
    assert!(vendors.is_empty() || vendors == ["llamacpp", "openrouter", "voyage"], "{vendors:?}");
}

#[test]
fn every_recorded_answer_with_pictures_is_read_and_written_as_the_vendor_wrote_it() {
    let mut seen = 0;
    for exchange in of_openai("images", &["/images/generations"]).iter().filter(|exchange| exchange.ok()) {
        let name = &exchange.name;
        let response = answer(&OpenAiChat, Operation::Images, exchange);
        let (task, body) = task(&OpenAiChat, Operation::Images, exchange);
        assert_eq!(body, exchange.request["body"], "{name}: the request");
        assert_eq!(others(&response, IMAGE).len(), 1, "{name}");
        let count = ("image-count".to_owned(), 1);
        assert!(response.usage.as_ref().unwrap().more.contains(&count), "{name}");
        assert_eq!(OpenAiChat.whole_usage(&exchange.answer), response.usage, "{name}");
        let mut settled = response.clone();
        settle(&task, &mut settled);
        assert_eq!(settled, response, "{name}: nothing is to be settled");
        let mut theirs: Value = serde_json::from_slice(&exchange.answer).unwrap();
        // Listed: xAI does not say when.
        theirs.as_object_mut().unwrap().entry("created").or_insert(json!(7));
        assert_eq!(written(&OpenAiChat, Operation::Images, &response), theirs, "{name}");
        seen += 1;
    }
    assert!(seen >= 4 || of_openai("images", &[""]).is_empty());
}

#[test]
fn every_recorded_answer_of_cohere_is_read_and_written_as_cohere_wrote_it() {
    let mut seen = 0;
    for exchange in of_cohere("embeddings").iter().filter(|exchange| exchange.ok()) {
        let name = &exchange.name;
        let response = answer(&CohereV2, Operation::Embeddings, exchange);
        let (task, body) = task(&CohereV2, Operation::Embeddings, exchange);
        assert_eq!(body, exchange.request["body"], "{name}: the request");
        assert_eq!(lengths(&response), [1024], "{name}");
        assert_eq!(embed(&task).input.len(), 1, "{name}");
        let pictured = matches!(embed(&task).input[0], EmbedInput::Blocks(_));
        let more: Vec<&str> = response.usage.as_ref().unwrap().more.iter().map(|(bucket, _)| bucket.as_str()).collect();
        assert_eq!(more, if pictured { vec!["image-count"] } else { vec![] }, "{name}");
        assert_eq!(CohereV2.whole_usage(&exchange.answer), response.usage, "{name}");
        let theirs: Value = serde_json::from_slice(&exchange.answer).unwrap();
        assert_eq!(written(&CohereV2, Operation::Embeddings, &response), theirs, "{name}");
        seen += 1;
    }
    for exchange in of_cohere("rerank") {
        let response = answer(&CohereV2, Operation::Rerank, &exchange);
        let (_, body) = task(&CohereV2, Operation::Rerank, &exchange);
        assert_eq!(body, exchange.request["body"]);
        assert_eq!(others(&response, RANKING)[0], r#"{"index":0,"score":0.75809944}"#);
        assert_eq!(response.usage.as_ref().unwrap().more, [("search-units".to_owned(), 1)]);
        assert_eq!(CohereV2.whole_usage(&exchange.answer), response.usage);
        let theirs: Value = serde_json::from_slice(&exchange.answer).unwrap();
        assert_eq!(written(&CohereV2, Operation::Rerank, &response), theirs);
        seen += 1;
    }
    assert!(seen == 5 || of_cohere("rerank").is_empty(), "{seen}");
}

#[test]
fn a_caller_of_the_other_dialect_reads_the_same_vectors_and_rankings() {
    type Pair<'c> = (Vec<Exchange>, &'c dyn Codec, &'c dyn Codec, Operation);
    let vectors = of_openai("embeddings", &["/embeddings"]);
    let pairs: [Pair<'_>; 4] = [
        (vectors, &OpenAiChat, &CohereV2, Operation::Embeddings),
        (of_cohere("embeddings"), &CohereV2, &OpenAiChat, Operation::Embeddings),
        (of_openai("rerank", &["/rerank"]), &OpenAiChat, &CohereV2, Operation::Rerank),
        (of_cohere("rerank"), &CohereV2, &OpenAiChat, Operation::Rerank),
    ];
    for (exchanges, from, to, operation) in pairs {
        for exchange in exchanges.iter().filter(|exchange| exchange.ok()) {
            let response = answer(from, operation, exchange);
            let bytes = to.encode_result(operation, &response, &envelope("alias"));
            let again = folded(&to.decode_result(operation, &bytes).unwrap());
            for name in [EMBEDDING, RANKING] {
                assert_eq!(others(&again, name), others(&response, name), "{}", exchange.name);
            }
            let counted = |response: &Response| response.usage.as_ref().map(|usage: &Usage| usage.total());
            assert_eq!(
                counted(&again).unwrap_or_default(),
                counted(&response).unwrap_or_default(),
                "{}",
                exchange.name
            );
            // The request crosses, too: as many inputs or documents, in the same order.
            let (task, _) = task(from, operation, exchange);
            let (body, _) = to.encode_task(operation, &task).unwrap();
            match (&task, to.decode_task(operation, &body).unwrap()) {
                (Task::Embed(task), Task::Embed(again)) => {
                    assert_eq!((&again.input, again.dimensions), (&task.input, task.dimensions), "{}", exchange.name);
                }
                (Task::Rerank(task), Task::Rerank(again)) => {
                    assert_eq!((&again.documents, &again.query), (&task.documents, &task.query), "{}", exchange.name);
                }
                (one, other) => panic!("{one:?} became {other:?}"),
            }
        }
    }
}

#[test]
fn recorded_refusals_have_the_right_class() {
    use FaultClass as C;
    let table = [
        ("is less than the minimum", C::InvalidRequest),
        ("not allowed to generate embeddings", C::Permission),
        ("does not exist or you do not have access", C::ModelNotFound),
        ("Too many inputs in request", C::InvalidRequest),
        ("is not supported. Supported models", C::ModelNotFound),
        ("model 'nonexistent' not found", C::ModelNotFound),
        ("does not support reranking", C::Unsupported),
        ("Invalid image data", C::InvalidRequest),
    ];
    let mut seen = 0;
    for operation in ["embeddings", "rerank", "images"] {
        let ends = ["/embeddings", "/embed", "/rerank", "/images/generations", "/images/edits"];
        for exchange in recorded(operation, |vendor| vendor != "gemini", &ends).iter().filter(|exchange| !exchange.ok())
        {
            let is_cohere = exchange.meta["vendor"] == "cohere";
            let codec: &dyn Codec = if is_cohere { &CohereV2 } else { &OpenAiChat };
            let status = u16::try_from(exchange.meta["status"].as_u64().unwrap()).unwrap();
            let fault = codec.decode_fault(status, &|_| None, &exchange.answer);
            let row = table.iter().find(|(words, _)| fault.message.contains(words));
            assert_eq!(row.map(|(_, class)| *class), Some(fault.class), "{}: {fault:?}", exchange.name);
            seen += 1;
        }
    }
    assert!(seen >= 8 || of_cohere("rerank").is_empty(), "{seen}");
}
