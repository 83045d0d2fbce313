// SPDX-License-Identifier: Apache-2.0
//! Requests: what a caller of this dialect wrote reaches a vendor of it, and what others wrote is said in its words.

use penstock_dialects::codec::{Codec, Head, Operation};
use penstock_dialects::ir::{
    Block, Content, FaultClass, Format, Message, Reasoning, Request, Role, Source, Tool, ToolChoice,
};
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::openai_responses::{NAME, OpenAiResponses, Style, encode_count_request};
use serde_json::{Value, json};

use super::{CODEC, recorded, report};

fn decoded(body: &Value) -> Request {
    CODEC.decode_request(body.to_string().as_bytes()).unwrap()
}

fn written(request: &Request) -> (Value, Vec<String>) {
    let (body, dropped) = CODEC.encode_request(request);
    (serde_json::from_slice(&body).unwrap(), dropped)
}

/// A request in the form that the codec's documentation calls normal.
fn normalised(body: &Value) -> Value {
    let mut body = body.clone();
    normalise(&mut body);
    let members = body.as_object_mut().unwrap();
    if let Some(Value::String(text)) = members.get("input").cloned() {
        members["input"] = json!([{ "role": "user", "content": text }]);
    }
    if members.get("stream") == Some(&json!(false)) {
        members.shift_remove("stream");
    }
    if members.get("tools") == Some(&json!([])) {
        members.shift_remove("tools");
    }
    let mut next_has_id = false;
    for item in members.get_mut("input").and_then(Value::as_array_mut).into_iter().flatten().rev() {
        if item["role"].is_string() {
            item["type"] = json!("message");
            if let (Some([only]), None) = (item["content"].as_array().map(Vec::as_slice), item.get("id"))
                && only.as_object().unwrap().keys().all(|name| ["type", "text"].contains(&name.as_str()))
            {
                item["content"] = only["text"].clone();
            }
        }
        // The vendor refuses the id of a thought whose follower has none.
        if item["type"] == "reasoning" && !next_has_id && item["encrypted_content"].is_string() {
            item.as_object_mut().unwrap().shift_remove("id");
        }
        next_has_id = item["id"].is_string() || (next_has_id && item["type"] == "reasoning");
    }
    body
}

/// Without nulls and empty annotations; numbers by their value.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, value| !(value.is_null() || name == "annotations" && *value == json!([])));
            members.values_mut().for_each(normalise);
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Number(number) => *value = json!(number.as_f64()),
        _ => {}
    }
}

#[test]
fn a_recorded_request_goes_through_the_canonical_form_unharmed() {
    let (mut findings, mut seen) = (Vec::new(), 0);
    for exchange in recorded().iter().filter(|exchange| exchange.request["body"].is_object()) {
        let body = &exchange.request["body"];
        let request = decoded(body);
        let (written, dropped) = written(&request);
        if !dropped.is_empty() || normalised(&written) != normalised(body) {
            findings.push(format!(
                "{}: dropped {dropped:?}\n  {}\n  {}",
                exchange.name,
                normalised(body),
                normalised(&written)
            ));
        }
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request, "{}", exchange.name);
        seen += 1;
    }
    assert!(seen > 0 || recorded().is_empty());
    report(&findings);
}

/// A request with everything that the API documents.
fn full() -> Value {
    serde_json::from_str(include_str!("full.json")).unwrap()
}

#[test]
fn everything_that_the_dialect_has_reaches_a_vendor_of_it() {
    let request = decoded(&full());
    let (again, dropped) = written(&request);
    assert_eq!(dropped, Vec::<String>::new());
    assert_eq!(normalised(&again), normalised(&full()));
    assert!(request.stream_usage && request.streaming);
    assert_eq!(request.user.as_deref(), Some("u"));
    let roles: Vec<(Role, usize)> =
        request.messages.iter().map(|message| (message.role, message.blocks.len())).collect();
    let expected = [
        (Role::System, 1),
        (Role::User, 7),
        (Role::Assistant, 6),
        (Role::User, 2),
        (Role::Assistant, 1),
        (Role::User, 1),
        (Role::Assistant, 1),
        (Role::Assistant, 1),
        (Role::User, 1),
    ];
    assert_eq!(roles, expected);
}

#[test]
fn what_only_this_dialect_knows_is_reported_by_others() {
    let (body, dropped) = OpenAiChat.encode_request(&decoded(&full()));
    let body: Value = serde_json::from_slice(&body).unwrap();
    let is_empty = |message: &&Value| message["content"] == "" && message["tool_calls"].is_null();
    assert_eq!(body["messages"].as_array().unwrap().iter().find(is_empty), None, "a message of which nothing is left");
    for path in [
        "previous_response_id",
        "include",
        "truncation",
        "tool_choice",
        "tools[2]",
        "tools[3]",
        "tools[4]",
        "messages[2].blocks[3]",
        "messages[2].blocks[5]",
        "messages[3].blocks[1]",
    ] {
        assert!(dropped.iter().any(|dropped| dropped == path), "{path} is not in {dropped:?}");
    }
}

#[test]
fn a_request_that_is_wrong_is_refused_with_its_path() {
    let cases = [
        (json!({}), "model: is required"),
        (json!({ "model": "m" }), "input: is required"),
        (json!({ "model": "m", "input": 1 }), "input: must be"),
        (json!({ "model": "m", "input": [1] }), "input[0]: must be an object"),
        (json!({ "model": "m", "input": [{}] }), "input[0].type: is required"),
        (json!({ "model": "m", "input": [{ "role": "user" }] }), "input[0].content: is required"),
        (json!({ "model": "m", "input": [{ "role": "tool", "content": "" }] }), "input[0].role: unknown role"),
        (
            json!({ "model": "m", "input": [{ "role": "user", "content": [{}] }] }),
            "input[0].content[0].type: is required",
        ),
        (
            json!({ "model": "m", "input": [{ "role": "user", "content": [{ "type": "input_image" }] }] }),
            "input[0].content[0].image_url: is required",
        ),
        (json!({ "model": "m", "input": [{ "type": "function_call", "call_id": "c" }] }), "input[0].name: is required"),
        (
            json!({ "model": "m", "input": [{ "type": "function_call_output", "call_id": "c", "output": [7] }] }),
            "input[0].output[0]: must be an object",
        ),
        (json!({ "model": "m", "input": "x", "tools": [{ "type": "function" }] }), "tools[0].name: is required"),
        (json!({ "model": "m", "input": "x", "tool_choice": "any" }), "tool_choice: must be"),
        (json!({ "model": "m", "input": "x", "max_output_tokens": -1 }), "max_output_tokens: must be"),
        (
            json!({ "model": "m", "input": "x", "text": { "format": { "type": "json_schema" } } }),
            "text.format.schema: is required",
        ),
        (json!({ "model": "m", "input": "x", "reasoning": "high" }), "reasoning: must be an object"),
    ];
    for (body, message) in cases {
        let fault = CODEC.decode_request(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(fault.class, FaultClass::InvalidRequest);
        assert!(fault.message.starts_with(message), "{body}: {}", fault.message);
    }
    for body in ["", "[]", "{"] {
        assert_eq!(CODEC.decode_request(body.as_bytes()).unwrap_err().class, FaultClass::InvalidRequest);
    }
}

#[test]
fn a_request_without_input_is_one_where_the_vendor_has_it() {
    for member in ["previous_response_id", "conversation", "prompt"] {
        let body = json!({ "model": "m", member: "x" });
        assert_eq!(written(&decoded(&body)), (body, vec![]));
    }
}

fn user(content: Content) -> Message {
    Message { role: Role::User, name: None, blocks: vec![Block::new(content)] }
}

#[test]
fn what_others_say_is_said_in_the_words_of_this_dialect() {
    let request = Request {
        model: "gpt-5-mini".into(),
        system: vec![Block::text("one"), Block::text("two")],
        messages: vec![
            user(Content::Media {
                kind: "document".into(),
                source: Source::Base64 { media_type: "application/pdf".into(), data: "AAAA".into() },
                title: None,
                detail: None,
            }),
            Message {
                role: Role::Assistant,
                name: Some("n".into()),
                blocks: vec![
                    Block::new(Content::Reasoning { text: "t".into(), signature: Some("EqoB".into()) }),
                    Block::new(Content::ToolUse { id: String::new(), name: "f".into(), input: String::new() }),
                    Block::new(Content::ToolUse { id: "x".repeat(80), name: "f".into(), input: "{}".into() }),
                ],
            },
            user(Content::ToolResult { id: String::new(), blocks: vec![Block::text("r")], is_error: true }),
            user(Content::ToolResult { id: "x".repeat(80), blocks: vec![], is_error: false }),
        ],
        tools: vec![Tool { name: "f".into(), cache: Some(json!({})), ..Tool::default() }],
        tool_choice: Some(ToolChoice::Tool("f".into())),
        output_tokens_max: Some(5),
        top_k: Some(1),
        stop: vec!["x".into()],
        seed: Some(1),
        format: Some(Format::Json),
        reasoning: Some(Reasoning { budget_tokens: Some(9000), ..Reasoning::default() }),
        ..Request::default()
    };
    let (mut body, mut dropped) = written(&request);
    let calls: Vec<Value> =
        body["input"].as_array().unwrap().iter().filter_map(|item| item.get("call_id")).cloned().collect();
    assert_eq!((&calls[0], &calls[1]), (&calls[2], &calls[3]));
    assert!(calls[1].as_str().unwrap().len() <= 64 && calls[0] != calls[1]);
    body.as_object_mut().unwrap().shift_remove("input");
    let expected = json!({
        "model": "gpt-5-mini",
        "instructions": "one\n\ntwo",
        "tools": [{ "type": "function", "name": "f", "parameters": { "type": "object", "properties": {} }, "strict": false }],
        "tool_choice": { "type": "function", "name": "f" },
        "max_output_tokens": 16,
        "text": { "format": { "type": "json_object" } },
        "reasoning": { "effort": "medium" },
        "store": false,
        "include": ["reasoning.encrypted_content"],
    });
    assert_eq!(body, expected);
    dropped.sort();
    let expected = [
        "messages[1].blocks[0]",
        "messages[1].name",
        "messages[2].blocks[0].is_error",
        "output_tokens_max",
        "seed",
        "stop",
        "tools[0].cache",
        "top_k",
    ];
    assert_eq!(dropped, expected);
    let style = Style { sealed_reasoning: Some(false), summary: Some("auto") };
    let (body, _) = OpenAiResponses.encode_request_as(&request, &style);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&body["reasoning"]["summary"], &body["include"]), (&json!("auto"), &Value::Null));
}

#[test]
fn an_id_that_we_made_up_does_not_reach_a_vendor() {
    let body = json!({ "model": "m", "input": [
        { "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" },
        { "type": "message", "role": "assistant", "id": "msg_penstock_r1_0", "status": "completed",
          "content": [{ "type": "output_text", "text": "a" }] },
        { "type": "reasoning", "id": "rs_2", "summary": [] },
        { "type": "function_call", "id": "fc_penstock_r1_1", "call_id": "c", "name": "f", "arguments": "{}" },
        { "type": "reasoning", "id": "rs_penstock_r1_2", "summary": [{ "type": "summary_text", "text": "t" }] },
        { "type": "message", "role": "user", "content": "b" },
    ]});
    let (written, dropped) = written(&decoded(&body));
    let expected = json!([
        { "type": "reasoning", "summary": [], "encrypted_content": "x" },
        { "type": "message", "role": "assistant", "content": "a", "status": "completed" },
        { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
        { "type": "message", "role": "user", "content": "b" },
    ]);
    assert_eq!(written["input"], expected);
    // The thought without a seal, and the one that has nothing but an id, which means nothing without its follower's.
    assert_eq!(dropped, ["messages[0].blocks[4]", "messages[0].blocks[2]"]);
}

#[test]
fn a_count_is_asked_for_with_what_counts() {
    let (body, _) = encode_count_request(&decoded(&full()));
    let body: Value = serde_json::from_slice(&body).unwrap();
    let mut names: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "input",
        "instructions",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    ];
    assert_eq!(names, expected);
}

#[test]
fn requests_of_this_dialect_are_told_by_their_paths() {
    let operation = |method: &'static str, path: &'static str| {
        let head = Head { method, path, query: "", header: &|_| None };
        penstock_dialects::recognise(&head, &[]).map(|(codec, ask)| (codec.name(), ask.operation))
    };
    let cases = [
        ("POST", "/responses", Some(Operation::Chat)),
        ("POST", "/responses/input_tokens", Some(Operation::CountTokens)),
        ("POST", "/responses/compact", Some(Operation::Stored)),
        ("GET", "/responses/resp_1", Some(Operation::Stored)),
        ("DELETE", "/responses/resp_1", Some(Operation::Stored)),
        ("POST", "/responses/resp_1/cancel", Some(Operation::Stored)),
        ("GET", "/responses/resp_1/input_items", Some(Operation::Stored)),
        ("POST", "/conversations", Some(Operation::Stored)),
        ("POST", "/conversations/conv_1/items", Some(Operation::Stored)),
        ("GET", "/responses", None),
        ("GET", "/responses/", None),
        ("PUT", "/responses/x", None),
        ("POST", "/responsesx", None),
        ("POST", "/", None),
        ("POST", "", None),
    ];
    for (method, path, expected) in cases {
        assert_eq!(operation(method, path), expected.map(|operation| (NAME, operation)), "{method} {path}");
    }
}
