// SPDX-License-Identifier: Apache-2.0
//! Vectors, rankings, pictures and films, what no recording shows: shapes of other vendors, forms, failures.

use penstock_dialects::codec::{Codec, Envelope, Operation};
use penstock_dialects::cohere_v2::CohereV2;
use penstock_dialects::ir::{Block, Content, Event, Fault, FaultClass, Response, Source, Usage};
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::settle::settle;
use penstock_dialects::task::{
    EMBEDDING, Embed, EmbedInput, IMAGE, IMAGE_FAULT, Image, RANKING, Rerank, Task, VIDEO, Video,
};
use serde_json::{Value, json};

use crate::anthropic::recorded::folded;

fn envelope() -> Envelope {
    Envelope { request_id: "r-1".into(), model: "alias".into(), created: 7, ..Envelope::default() }
}

fn decoded(codec: &dyn Codec, operation: Operation, body: &Value) -> Task {
    codec
        .decode_task(operation, body.to_string().as_bytes())
        .unwrap_or_else(|fault| panic!("{body}: {}", fault.message))
}

fn refused(codec: &dyn Codec, operation: Operation, body: &Value) -> String {
    let fault = codec.decode_task(operation, body.to_string().as_bytes()).unwrap_err();
    assert_eq!(fault.class, FaultClass::InvalidRequest);
    fault.message
}

fn encoded(codec: &dyn Codec, operation: Operation, task: &Task) -> (Value, Vec<String>) {
    let (body, dropped) = codec.encode_task(operation, task).unwrap();
    (serde_json::from_slice(&body).unwrap(), dropped)
}

fn answer(codec: &dyn Codec, operation: Operation, body: &Value) -> Response {
    folded(&codec.decode_result(operation, body.to_string().as_bytes()).unwrap())
}

fn written(codec: &dyn Codec, operation: Operation, response: &Response) -> Value {
    serde_json::from_slice(&codec.encode_result(operation, response, &envelope())).unwrap()
}

fn others(response: &Response, name: &str) -> Vec<String> {
    response.other.iter().filter(|(other, _)| other == name).map(|(_, json)| json.clone()).collect()
}

fn told(name: &str, json: &Value) -> (String, String) {
    (name.to_owned(), json.to_string())
}

fn picture(url: &str) -> Block {
    let source = match url.strip_prefix("data:image/png;base64,") {
        Some(data) => Source::Base64 { media_type: "image/png".into(), data: data.into() },
        None => Source::Url { url: url.into() },
    };
    Block::new(Content::Media { kind: "image".into(), source, title: None, detail: None })
}

#[test]
fn inputs_of_every_kind_are_read_and_written_again() {
    let text = |text: &str| EmbedInput::Text(text.into());
    let cases = [
        (json!("a"), vec![text("a")], true),
        (json!(["a", "b"]), vec![text("a"), text("b")], false),
        (json!([1, 2]), vec![EmbedInput::Tokens(vec![1, 2])], true),
        (json!([[1], [2, 3]]), vec![EmbedInput::Tokens(vec![1]), EmbedInput::Tokens(vec![2, 3])], false),
        (
            json!([{ "content": [{ "type": "text", "text": "t" }, { "type": "image_url", "image_url": { "url": "https://x" } }] }]),
            vec![EmbedInput::Blocks(vec![Block::text("t"), picture("https://x")])],
            false,
        ),
    ];
    for (input, expected, single) in cases {
        let body = json!({ "model": "m", "input": input, "dimensions": 8, "encoding_format": "base64", "user": "u" });
        let task = decoded(&OpenAiChat, Operation::Embeddings, &body);
        let Task::Embed(embed) = &task else { panic!("{task:?}") };
        assert_eq!((&embed.input, embed.single), (&expected, single), "{input}");
        assert_eq!(encoded(&OpenAiChat, Operation::Embeddings, &task), (body, vec![]));
    }
    let jina =
        decoded(&OpenAiChat, Operation::Embeddings, &json!({ "model": "m", "input": [{ "image": "https://x" }] }));
    let expected = vec![EmbedInput::Blocks(vec![picture("https://x")])];
    assert!(matches!(jina, Task::Embed(Embed { input, .. }) if input == expected));
    let wrong = [
        (json!({ "model": "m" }), "input: is required"),
        (json!({ "input": "a" }), "model: is required"),
        (json!({ "model": "m", "input": [] }), "input: must not be empty"),
        (json!({ "model": "m", "input": ["a", true] }), "input[1]: must be a string, a list of tokens or an object"),
        (json!({ "model": "m", "input": [[1, -2]] }), "input[0]: must be a list of tokens"),
        (json!({ "model": "m", "input": "a", "dimensions": -1 }), "dimensions: must be a whole number, not negative"),
    ];
    for (body, expected) in wrong {
        assert_eq!(refused(&OpenAiChat, Operation::Embeddings, &body), expected);
    }
}

#[test]
fn what_a_vendor_of_vectors_cannot_be_told_is_reported() {
    let cohere = json!({
        "model": "m", "texts": ["a"], "input_type": "search_query", "embedding_types": ["int8", "float"],
        "truncate": "END", "output_dimension": 256, "priority": 3,
    });
    let task = decoded(&CohereV2, Operation::Embeddings, &cohere);
    assert_eq!(encoded(&CohereV2, Operation::Embeddings, &task), (cohere, vec![]));
    let (body, dropped) = encoded(&OpenAiChat, Operation::Embeddings, &task);
    assert_eq!(body, json!({ "model": "m", "input": ["a"], "dimensions": 256, "encoding_format": "float" }));
    assert_eq!(dropped, ["encodings[0]", "purpose", "truncate", "priority"]);

    let openai = json!({ "model": "m", "input": "a", "user": "u", "input_type": "query", "truncation": false, "x": 1 });
    let task = decoded(&OpenAiChat, Operation::Embeddings, &openai);
    assert_eq!(encoded(&OpenAiChat, Operation::Embeddings, &task), (openai, vec![]));
    let (body, dropped) = encoded(&CohereV2, Operation::Embeddings, &task);
    let expected = json!({ "model": "m", "texts": ["a"], "input_type": "search_query", "embedding_types": ["float"],
        "truncate": "NONE" });
    assert_eq!(body, expected);
    assert_eq!(dropped, ["user", "input_type", "truncation", "x"]);

    let similar = Task::Embed(Embed {
        model: "m".into(),
        input: vec![EmbedInput::Text("a".into())],
        purpose: Some("similarity".into()),
        ..Embed::default()
    });
    let (body, dropped) = encoded(&CohereV2, Operation::Embeddings, &similar);
    assert_eq!((&body["input_type"], dropped), (&json!("search_document"), vec!["purpose".to_owned()]));

    let tokens = decoded(&OpenAiChat, Operation::Embeddings, &json!({ "model": "m", "input": [1, 2] }));
    let fault = CohereV2.encode_task(Operation::Embeddings, &tokens).unwrap_err();
    assert_eq!(fault.class, FaultClass::Unsupported, "an input is never left out");
}

#[test]
fn cohere_takes_pictures_where_it_has_a_place_for_them() {
    let task = |input: Vec<EmbedInput>| Task::Embed(Embed { model: "m".into(), input, ..Embed::default() });
    let shown = || EmbedInput::Blocks(vec![picture("data:image/png;base64,AAAA")]);
    let url = "data:image/png;base64,AAAA";
    let content = json!({ "content": [{ "type": "image_url", "image_url": { "url": url } }] });
    let cases = [
        (vec![shown()], json!({ "model": "m", "images": [url], "input_type": "image", "embedding_types": ["float"] })),
        (
            vec![shown(), shown()],
            json!({ "model": "m", "inputs": [content, content], "input_type": "image", "embedding_types": ["float"] }),
        ),
        (
            vec![EmbedInput::Text("t".into()), shown()],
            json!({ "model": "m", "inputs": [{ "content": [{ "type": "text", "text": "t" }] }, content],
                "input_type": "search_document", "embedding_types": ["float"] }),
        ),
    ];
    for (input, expected) in cases {
        let count = input.len();
        let (body, dropped) = encoded(&CohereV2, Operation::Embeddings, &task(input));
        assert_eq!((&body, dropped), (&expected, vec![]));
        let Task::Embed(again) = decoded(&CohereV2, Operation::Embeddings, &body) else { panic!("no embed") };
        assert_eq!(again.input.len(), count);
    }
    let none = refused(&CohereV2, Operation::Embeddings, &json!({ "model": "m" }));
    assert_eq!(none, "texts: is required, or images, or inputs");
}

#[test]
fn every_encoding_of_cohere_reaches_a_caller() {
    let body = json!({
        "id": "x", "texts": ["a", "b"], "response_type": "embeddings_by_type",
        "embeddings": { "float": [[0.5], [0.25]], "int8": [[1], [-1]], "base64": ["AAAAPw==", "AACAPg=="], "binary": null },
        "meta": { "api_version": { "version": "2" }, "billed_units": { "input_tokens": 2 }, "warnings": ["w"] },
    });
    let response = answer(&CohereV2, Operation::Embeddings, &body);
    let mut expected = body;
    expected["embeddings"].as_object_mut().unwrap().shift_remove("binary");
    assert_eq!(written(&CohereV2, Operation::Embeddings, &response), expected);
    let openai = written(&OpenAiChat, Operation::Embeddings, &response);
    assert_eq!(openai["data"][1], json!({ "object": "embedding", "index": 1, "embedding": [0.25] }));
    assert_eq!(openai["usage"], json!({ "prompt_tokens": 2, "total_tokens": 2 }));
    assert_eq!((&openai["model"], openai.get("texts")), (&json!("alias"), None));
    // The shape of version 1.
    let floats = json!({ "id": "x", "embeddings": [[1.0], [2.0]], "response_type": "embeddings_floats" });
    let response = answer(&CohereV2, Operation::Embeddings, &floats);
    assert_eq!(others(&response, EMBEDDING), [r#"{"index":0,"values":[1.0]}"#, r#"{"index":1,"values":[2.0]}"#]);
}

#[test]
fn rankings_of_every_kin_are_read() {
    let cases = [
        (
            json!({ "model": "jina", "results": [{ "index": 1, "relevance_score": 0.9, "document": { "text": "b" } }],
                "usage": { "total_tokens": 15 } }),
            r#"{"index":1,"score":0.9,"document":{"text":"b"}}"#,
            15,
        ),
        (
            json!({ "id": "sf", "results": [{ "index": 0, "relevance_score": 0.5, "document": null }],
                "meta": { "billed_units": { "input_tokens": 29 }, "tokens": { "input_tokens": 28, "output_tokens": 1 } } }),
            r#"{"index":0,"score":0.5}"#,
            29,
        ),
        (
            json!({ "object": "list", "data": [{ "index": 3, "score": 0.25 }], "usage": { "prompt_tokens": 4, "total_tokens": 4 } }),
            r#"{"index":3,"score":0.25}"#,
            4,
        ),
    ];
    for (body, expected, total) in cases {
        let response = answer(&OpenAiChat, Operation::Rerank, &body);
        assert_eq!(others(&response, RANKING), [expected]);
        assert_eq!(response.usage.as_ref().unwrap().total(), total);
        let ours = written(&OpenAiChat, Operation::Rerank, &response);
        assert_eq!(ours["usage"]["total_tokens"], total);
        let cohere = written(&CohereV2, Operation::Rerank, &response);
        assert_eq!(cohere["results"][0]["relevance_score"], ours["results"][0]["relevance_score"]);
    }
}

#[test]
fn a_ranking_crosses_with_what_was_asked_for() {
    let body = json!({ "model": "m", "query": "q", "documents": ["a", { "text": "b" }, { "text": "c", "n": 1 }],
        "top_n": 2, "return_documents": true, "max_chunks_per_doc": 3 });
    let task = decoded(&OpenAiChat, Operation::Rerank, &body);
    assert_eq!(encoded(&OpenAiChat, Operation::Rerank, &task), (body, vec![]));
    let (cohere, dropped) = encoded(&CohereV2, Operation::Rerank, &task);
    let documents = json!(["a", "b", r#"{"text":"c","n":1}"#]);
    assert_eq!(cohere, json!({ "model": "m", "query": "q", "documents": documents, "top_n": 2 }));
    assert_eq!(dropped, ["max_chunks_per_doc"]);
    let vendors = json!({ "id": "x", "results": [{ "index": 1, "relevance_score": 0.9 }, { "index": 0, "relevance_score": 0.1 }],
        "meta": { "billed_units": { "search_units": 1 } } });
    let mut response = answer(&CohereV2, Operation::Rerank, &vendors);
    settle(&task, &mut response);
    let ours = written(&OpenAiChat, Operation::Rerank, &response);
    let first = json!({ "index": 1, "relevance_score": 0.9, "document": { "text": "b" } });
    assert_eq!((&ours["results"][0], &ours["usage"]["search_units"]), (&first, &json!(1)));
    let none = Task::Rerank(Rerank { top_n: Some(0), ..Rerank::default() });
    assert_eq!(encoded(&CohereV2, Operation::Rerank, &none).0.get("top_n"), None);
    assert_eq!(
        refused(&OpenAiChat, Operation::Rerank, &json!({ "model": "m", "query": "q" })),
        "documents: is required"
    );
    assert_eq!(refused(&CohereV2, Operation::Rerank, &json!({ "model": "m" })), "query: is required");
}

#[test]
fn a_request_for_pictures_goes_through_unharmed() {
    let body = json!({
        "model": "gpt-image-1", "prompt": "a cat", "n": 2, "size": "1024x1024", "quality": "high", "style": "vivid",
        "response_format": "b64_json", "background": "transparent", "output_format": "webp", "moderation": "low", "user": "u",
        "seed": 4, "negative_prompt": "dogs",
    });
    let task = decoded(&OpenAiChat, Operation::Images, &body);
    assert_eq!(encoded(&OpenAiChat, Operation::Images, &task), (body, vec![]));
    assert!(matches!(&task, Task::Image(Image { delivery: Some(delivery), .. }) if delivery == "base64"));
    let streamed = json!({ "model": "m", "prompt": "p", "stream": true, "partial_images": 2 });
    let task = decoded(&OpenAiChat, Operation::Images, &streamed);
    let (body, dropped) = encoded(&OpenAiChat, Operation::Images, &task);
    assert_eq!(
        (body, dropped),
        (json!({ "model": "m", "prompt": "p" }), vec!["stream".into(), "partial_images".into()])
    );
    assert_eq!(refused(&OpenAiChat, Operation::Images, &json!({ "model": "m" })), "prompt: is required");
}

#[test]
fn an_edit_arrives_as_a_form_or_as_json_and_goes_out_as_json() {
    let file = |name: &str| json!([{ "filename": name, "media_type": "image/png", "base64": "AAAA" }]);
    let picture = json!({ "image_url": "data:image/png;base64,AAAA" });
    let rest = json!({ "model": "m", "prompt": "p", "n": 2, "output_compression": 90 });
    let with = |more: Value| {
        let mut body = rest.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let expected = with(json!({ "images": [picture], "mask": picture }));
    let form = json!({ "model": "m", "prompt": "p", "n": "2", "output_compression": "90", "stream": "false" });
    let mut one = form.clone();
    one["image"] = file("a.png");
    one["mask"] = file("m.png");
    let mut list = form;
    list["image[]"] = file("a.png");
    list["mask"] = file("m.png");
    for body in [one, list, expected.clone()] {
        let task = decoded(&OpenAiChat, Operation::ImageEdits, &body);
        assert_eq!(encoded(&OpenAiChat, Operation::ImageEdits, &task), (expected.clone(), vec![]), "{body}");
    }
    for stated in [
        json!("https://x/a.png"),
        json!({ "url": "https://x/a.png" }),
        json!([{ "image_url": { "url": "https://x/a.png" } }]),
    ] {
        let task = decoded(&OpenAiChat, Operation::ImageEdits, &with(json!({ "image": stated })));
        let (body, _) = encoded(&OpenAiChat, Operation::ImageEdits, &task);
        assert_eq!(body["images"], json!([{ "image_url": "https://x/a.png" }]));
    }
    let kept = decoded(&OpenAiChat, Operation::ImageEdits, &with(json!({ "images": [{ "file_id": "f" }] })));
    assert_eq!(encoded(&OpenAiChat, Operation::ImageEdits, &kept).0["images"], json!([{ "file_id": "f" }]));
    assert_eq!(refused(&OpenAiChat, Operation::ImageEdits, &rest), "image: is required");
    let wrong = with(json!({ "image": [7] }));
    assert_eq!(refused(&OpenAiChat, Operation::ImageEdits, &wrong), "image: must be a picture or a list of these");
}

#[test]
fn pictures_are_written_with_their_tokens_and_beside_those_that_failed() {
    let body = json!({
        "created": 5, "background": "opaque", "output_format": "png",
        "data": [{ "b64_json": "AAAA", "revised_prompt": "a fine cat" }],
        "usage": { "total_tokens": 1110, "input_tokens": 110, "output_tokens": 1000,
            "input_tokens_details": { "text_tokens": 10, "image_tokens": 100 } },
    });
    let response = answer(&OpenAiChat, Operation::Images, &body);
    let usage = response.usage.as_ref().unwrap();
    assert_eq!((usage.input, usage.output), (10, 0));
    let more = [("input-image", 100), ("output-image", 1000), ("image-count", 1)];
    assert_eq!(usage.more, more.map(|(name, count)| (name.to_owned(), count)));
    assert_eq!(OpenAiChat.whole_usage(body.to_string().as_bytes()).as_ref(), Some(usage));
    assert_eq!(written(&OpenAiChat, Operation::Images, &response), body);

    // As an adapter of another vendor tells it.
    let fault = json!({ "code": "DataInspectionFailed", "message": "no" });
    let mut partly = Response {
        other: vec![told(IMAGE, &json!({ "url": "https://x", "media_type": "image/png" })), told(IMAGE_FAULT, &fault)],
        usage: Some(Usage { more: vec![("image-count".into(), 1)], ..Usage::default() }),
        ..Response::default()
    };
    let ours = written(&OpenAiChat, Operation::Images, &partly);
    let data = json!([{ "url": "https://x", "mime_type": "image/png" }]);
    assert_eq!(ours, json!({ "created": 7, "data": data, "errors": [fault] }));
    assert_eq!(others(&answer(&OpenAiChat, Operation::Images, &ours), IMAGE_FAULT), [fault.to_string()]);

    partly.other.remove(0);
    let ours = written(&OpenAiChat, Operation::Images, &partly);
    assert_eq!((&ours["error"]["code"], &ours["error"]["message"]), (&json!("content_filter"), &json!("no")));
    settle(&Task::Image(Image::default()), &mut partly);
    assert_eq!(partly.fault.as_ref().map(|fault| fault.class), Some(FaultClass::ContentFilter));
    assert_eq!(written(&OpenAiChat, Operation::Images, &partly), ours);
}

#[test]
fn a_film_is_asked_for_and_answered() {
    let body = json!({ "model": "sora-2", "prompt": "waves", "seconds": "8", "size": "1280x720",
        "input_reference": { "image_url": "https://x/a.png" }, "seed": 3, "negative_prompt": "people", "remix": true });
    let task = decoded(&OpenAiChat, Operation::Videos, &body);
    assert_eq!(encoded(&OpenAiChat, Operation::Videos, &task), (body, vec![]));
    let form = json!({ "model": "sora-2", "prompt": "waves", "seconds": "8",
        "input_reference": [{ "filename": "a.png", "media_type": "image/jpeg", "base64": "AAAA" }] });
    let Task::Video(Video { seconds, image, .. }) = decoded(&OpenAiChat, Operation::Videos, &form) else {
        panic!("no film")
    };
    assert_eq!(seconds, Some(8));
    assert_eq!(image, Some(Source::Base64 { media_type: "image/jpeg".into(), data: "AAAA".into() }));
    assert_eq!(refused(&OpenAiChat, Operation::Videos, &json!({ "model": "m" })), "prompt: is required");

    let film = json!({ "url": "https://x/f.mp4", "media_type": "video/mp4", "seconds": 8, "size": "1280x720" });
    let response = Response { id: "task-1".into(), other: vec![told(VIDEO, &film)], ..Response::default() };
    let ours = written(&OpenAiChat, Operation::Videos, &response);
    let expected = json!({ "created_at": 7, "id": "task-1", "object": "video", "model": "alias", "status": "completed",
        "progress": 100, "error": null, "seconds": "8", "size": "1280x720", "url": "https://x/f.mp4" });
    assert_eq!(ours, expected);
    let again = answer(&OpenAiChat, Operation::Videos, &ours);
    assert_eq!(others(&again, VIDEO), [film.to_string()]);
    assert_eq!(again.usage.as_ref().unwrap().more, [("video-seconds".to_owned(), 8)]);
    assert_eq!(written(&OpenAiChat, Operation::Videos, &again), expected);
    let failed = Response { fault: Some(Fault::new(FaultClass::ContentFilter, "no")), ..Response::default() };
    let ours = written(&OpenAiChat, Operation::Videos, &failed);
    assert_eq!(
        (&ours["status"], &ours["error"]["message"], &ours["id"]),
        (&json!("failed"), &json!("no"), &json!("video_r-1"))
    );
}

#[test]
fn a_film_that_is_not_finished_has_no_finish_and_one_that_failed_is_a_fault() {
    let running = json!({ "id": "v", "object": "video", "status": "in_progress", "progress": 40 });
    let events = OpenAiChat.decode_result(Operation::Videos, running.to_string().as_bytes()).unwrap();
    assert_eq!(events, [Event::Start { id: "v".into(), model: String::new() }]);
    let failed =
        json!({ "id": "v", "status": "failed", "error": { "code": "moderation_blocked", "message": "refused" } });
    let fault = OpenAiChat.decode_result(Operation::Videos, failed.to_string().as_bytes()).unwrap_err();
    assert_eq!((fault.class, fault.message.as_str()), (FaultClass::ContentFilter, "refused"));
}

#[test]
fn errors_under_200_and_nonsense_are_faults() {
    let operations = [Operation::Embeddings, Operation::Rerank, Operation::Images, Operation::Videos];
    let error = json!({ "error": { "message": "slow down", "code": 429 } }).to_string();
    for operation in operations {
        let fault = OpenAiChat.decode_result(operation, error.as_bytes()).unwrap_err();
        assert_eq!(fault.class, FaultClass::RateLimit, "{operation:?}");
        for nonsense in ["", "{}", "7", "<html>", r#"{"data":7,"results":7,"status":7}"#] {
            let read = OpenAiChat.decode_result(operation, nonsense.as_bytes());
            assert!(read.is_err() || operation == Operation::Videos, "{operation:?} {nonsense}");
        }
    }
    for operation in [Operation::Embeddings, Operation::Rerank] {
        let fault = CohereV2.decode_result(operation, br#"{"message":"too many tokens"}"#).unwrap_err();
        assert_eq!(fault.class, FaultClass::ContextTooLong);
        assert!(CohereV2.decode_result(operation, b"{}").is_err());
        let failed = Response { fault: Some(fault), ..Response::default() };
        assert_eq!(written(&CohereV2, operation, &failed)["error_type"], "TOO_MANY_TOKENS");
        assert_eq!(written(&OpenAiChat, operation, &failed)["error"]["code"], "context_length_exceeded");
    }
    let bare = OpenAiChat.decode_result(Operation::Embeddings, b"[[1.0],[2.0]]").unwrap();
    assert_eq!(others(&folded(&bare), EMBEDDING).len(), 2);
    assert!(OpenAiChat.decode_task(Operation::Speech, b"{}").is_err());
}
