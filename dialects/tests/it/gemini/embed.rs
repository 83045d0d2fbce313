// SPDX-License-Identifier: Apache-2.0
//! Vectors of Gemini: embeddings, one and many, both ways, and the recordings of them.

use serde_json::{Value, json};

use penstock_dialects::codec::{Codec, Operation};
use penstock_dialects::gemini::encode_vertex_request;
use penstock_dialects::ir::FaultClass;
use penstock_dialects::task::{EMBEDDING, Embed, EmbedInput, Task};

use super::{CODEC, envelope};
use crate::anthropic::recorded::folded;
use crate::recordings::shared;

const EMBEDDINGS: Operation = Operation::Embeddings;

fn read(body: &Value) -> Embed {
    match CODEC.decode_task(EMBEDDINGS, body.to_string().as_bytes()) {
        Ok(Task::Embed(embed)) => embed,
        other => panic!("{other:?} for {body}"),
    }
}

#[test]
fn one_vector_and_a_list_of_them_are_the_same_task() {
    let one = read(
        &json!({"content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_QUERY", "output_dimensionality": 8, "title": "t"}),
    );
    assert_eq!((one.single, one.purpose.as_deref(), one.dimensions), (true, Some("search_query"), Some(8)));
    assert_eq!(one.input, [EmbedInput::Text("a".into())]);
    let request = |text: &str| json!({"model": "models/m", "content": {"parts": [{"text": text}]}, "taskType": "FACT_VERIFICATION"});
    let list = read(&json!({"requests": [request("a"), request("b")]}));
    assert_eq!((list.single, list.model.as_str(), list.purpose.as_deref()), (false, "m", Some("fact_verification")));
    assert_eq!(list.input.len(), 2);
    let (body, dropped) = CODEC.encode_task(EMBEDDINGS, &Task::Embed(list)).expect("a request");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body, json!({"requests": [request("a"), request("b")]}));
    assert_eq!(dropped, Vec::<String>::new());
    let mixed = json!({"requests": [request("a"), {"content": {"parts": [{"text": "b"}]}}]}).to_string();
    assert_eq!(CODEC.decode_task(EMBEDDINGS, mixed.as_bytes()).expect_err("refused").class, FaultClass::Unsupported);
}

#[test]
fn what_has_no_place_is_reported_and_tokens_are_refused() {
    let task = Embed {
        model: "m".into(),
        input: vec![EmbedInput::Text("a".into())],
        encodings: vec!["int8".into()],
        truncate: Some("none".into()),
        user: Some("u".into()),
        purpose: Some("similarity".into()),
        dimensions: Some(3),
        ..Embed::default()
    };
    let (_, dropped) = CODEC.encode_task(EMBEDDINGS, &Task::Embed(task.clone())).expect("a request");
    assert_eq!(dropped, ["encodings", "truncate", "user"]);
    let (verb, body, dropped) = encode_vertex_request(&task).expect("a request");
    assert_eq!(verb, "predict");
    let expected = json!({"instances": [{"content": "a", "task_type": "SEMANTIC_SIMILARITY"}],
        "parameters": {"outputDimensionality": 3, "autoTruncate": false}});
    assert_eq!(
        (serde_json::from_slice::<Value>(&body).expect("JSON"), dropped),
        (expected, vec!["encodings".to_owned(), "user".to_owned()])
    );
    let tokens = Embed { input: vec![EmbedInput::Tokens(vec![1])], ..task.clone() };
    assert!(CODEC.encode_task(EMBEDDINGS, &Task::Embed(tokens.clone())).is_err());
    assert!(encode_vertex_request(&tokens).is_err());
    let of_everything = Embed { model: "gemini-embedding-2".into(), ..task };
    let (verb, body, _) = encode_vertex_request(&of_everything).expect("a request");
    let config = json!({"taskType": "SEMANTIC_SIMILARITY", "outputDimensionality": 3});
    let expected = json!({"content": {"parts": [{"text": "a"}]}, "embedContentConfig": config});
    assert_eq!((verb, serde_json::from_slice::<Value>(&body).expect("JSON")), ("embedContent", expected));
    let two = Embed { input: vec![EmbedInput::Text("a".into()), EmbedInput::Text("b".into())], ..of_everything };
    assert!(encode_vertex_request(&two).is_err());
}

#[test]
fn every_form_of_answer_is_read_and_written() {
    let answers = [
        (json!({"embeddings": [{"values": [0.5, 1.0]}, {"values": [2.0]}]}), true, 0),
        (
            json!({"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4}}),
            false,
            4,
        ),
        (
            json!({"predictions": [{"embeddings": {"values": [0.5], "statistics": {"token_count": 5.0, "truncated": false}}}]}),
            true,
            5,
        ),
    ];
    for (answer, array, tokens) in answers {
        let events = CODEC.decode_result(EMBEDDINGS, answer.to_string().as_bytes()).expect("vectors");
        let response = folded(&events);
        assert_eq!(response.usage.as_ref().map_or(0, |usage| usage.input_total()), tokens);
        let again = CODEC.encode_result(EMBEDDINGS, &response, &envelope(array));
        let again: Value = serde_json::from_slice(&again).expect("JSON");
        let vector = |answer: &Value| match answer {
            _ if answer["embeddings"].is_array() => answer["embeddings"][0]["values"].clone(),
            _ if answer["embedding"].is_object() => answer["embedding"]["values"].clone(),
            _ => answer["predictions"][0]["embeddings"]["values"].clone(),
        };
        assert_eq!(vector(&again), vector(&answer));
        assert_eq!(again.get("embeddings").is_some(), array);
    }
    assert_eq!(CODEC.decode_result(EMBEDDINGS, b"{}").expect_err("nonsense").class, FaultClass::VendorBug);
}

#[test]
fn every_recorded_exchange_reads_and_is_written_again() {
    let mut folders: Vec<_> = shared("open/gemini").into_iter().collect();
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            folders.extend(Some(entry.expect("an entry").path()).filter(|path| path.is_dir()));
        }
        let json = |name: &str| {
            std::fs::read(folder.join(name)).ok().map(|bytes| serde_json::from_slice::<Value>(&bytes).expect("JSON"))
        };
        let (Some(meta), Some(request), Some(answer)) =
            (json("meta.json"), json("request.json"), json("response.json"))
        else {
            continue;
        };
        if meta["operation"] != "embeddings" {
            continue;
        }
        let embed = read(&request["body"]);
        let (body, dropped) = CODEC.encode_task(EMBEDDINGS, &Task::Embed(embed)).expect("a request");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let stated = request["body"].to_string().replace("output_dimensionality", "outputDimensionality");
        let stated = stated.replace("inline_data", "inlineData").replace("mime_type", "mimeType");
        assert_eq!(body, serde_json::from_str::<Value>(&stated).expect("JSON"), "{}", folder.display());
        assert_eq!(dropped, Vec::<String>::new());
        if meta["status"] == 200 {
            let response = folded(&CODEC.decode_result(EMBEDDINGS, answer.to_string().as_bytes()).expect("vectors"));
            let vectors = response.other.iter().filter(|(name, _)| name == EMBEDDING).count();
            assert_eq!(Some(vectors), answer["embeddings"].as_array().map(Vec::len), "{}", folder.display());
        }
        count += 1;
    }
    assert!(count > 0 || shared("open/gemini").is_none(), "no exchange was found");
}
